"""API keys that are stored: whose they are, what they may do, until when, and what ends with them."""
