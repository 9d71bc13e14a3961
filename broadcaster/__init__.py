"""The event engine: it turns committed events into bytes on the sockets of those who asked for them.

Import from the modules; this package re-exports nothing.
"""
