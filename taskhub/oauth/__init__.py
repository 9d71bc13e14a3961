"""OAuth 2.1: access tokens, what they are worth here, and who issues them."""
