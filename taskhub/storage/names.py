"""Ids and names of reference data: how an id is made of a name, and when two spellings mean the same."""

import unicodedata
from collections.abc import Container


def slug(name: str, taken: Container[str] = ()) -> str:
    """An id for `name` that is not in `taken`: `In Progress` → `in_progress`, then `in_progress_2`."""
    folded = unicodedata.normalize("NFKC", name).casefold()
    words = "".join(c if c.isalnum() else " " for c in folded).split()
    base = "_".join(words)[:60] or "unnamed"
    candidate, count = base, 1
    while candidate in taken:
        count += 1
        candidate = f"{base}_{count}"
    return candidate


def normalise(text: str) -> str:
    """What is compared when an id or a name is looked up: case, spaces, `_` and `-` make no difference."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(c for c in folded if not c.isspace() and c not in "_-")
