"""The Model Context Protocol face of TaskHub: tools over the ticket service, and hosting of the SDK under aiohttp."""
