"""Imported last by the process that others are forked from: what it has loaded is nothing that they would collect.

A collection writes to each object that it looks at, and so each fork would copy nearly all memory.
"""

import gc

gc.collect()
gc.freeze()
