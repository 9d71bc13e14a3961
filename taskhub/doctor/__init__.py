"""Whether a database is sound: what the product keeps true, looked at from outside, in one moment of the database."""
