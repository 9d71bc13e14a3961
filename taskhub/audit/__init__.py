"""Who did what that counts for security: recorded where it is done, kept for a time, read by operators."""
