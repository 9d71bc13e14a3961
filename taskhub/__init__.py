"""TaskHub: tickets that agents change through MCP tools, broadcast live over Server-Sent Events."""

__version__ = "0.1.0"
