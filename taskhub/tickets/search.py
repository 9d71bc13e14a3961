"""What somebody typed to find tickets, as what the search index is asked."""

import re
from dataclasses import dataclass
from typing import Final

from taskhub.storage.search import Phrase, normal, phrases_of
from taskhub.tickets.errors import InputProblem, InvalidInput
from taskhub.tickets.keys import key_of, number_of

MAX_WORDS: Final = 20
_QUOTES: Final = str.maketrans("“”„«»", '"""""')
_PART: Final = re.compile(r'"([^"]*)"?|([^\s"]+)')


@dataclass(frozen=True, slots=True)
class Search:
    """Phrases, each of which a ticket or one of its comments must contain; with none of them nothing is found.
    `numbers` are those of the tickets whose keys were typed."""

    phrases: tuple[Phrase, ...]
    numbers: tuple[int, ...] = ()


def parse_search(text: str, key_prefix: str) -> Search:
    """Read words and "quoted phrases". The last word may still be being typed, unless it is quoted or a key.

    Raises InvalidInput for too many.
    """
    parts = list(_PART.finditer(normal(text).translate(_QUOTES)))
    if len(parts) > MAX_WORDS:
        raise InvalidInput([InputProblem("/query", f"has {len(parts)} words; at most {MAX_WORDS} are searched for")])
    phrases: list[Phrase] = []
    numbers: list[int] = []
    for part in parts:
        quoted, word = part[1], part[2]
        no = None if word is None else number_of(key_prefix, word)
        if no is not None:
            numbers.append(no)
            word = key_of(key_prefix, no)  # also as th-012
        phrases += phrases_of(
            quoted if word is None else word, prefix=no is None and word is not None and part is parts[-1]
        )
    return Search(tuple(phrases), tuple(numbers))
