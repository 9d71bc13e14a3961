"""Tickets: the model, the rules, and the one service behind every face."""
