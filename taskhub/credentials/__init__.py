"""Stored credentials of every kind, judged in one place: whose they are, until when, and what ends with them."""
