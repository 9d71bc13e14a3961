"""Metrics: what a process counts and measures of itself, and how collectors are told."""
