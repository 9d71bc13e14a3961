"""The HTTP surface: one module for each family of URLs."""
