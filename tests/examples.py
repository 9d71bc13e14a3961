"""How many examples a random test takes."""

from typing import Final

from hypothesis import settings

EXAMPLES: Final = settings().max_examples
"""In the profile that is loaded (see conftest.py); a test that takes long takes a part of them."""
