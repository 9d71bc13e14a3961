"""How people sign in, and what they then have: a session, which a browser keeps in a cookie."""
