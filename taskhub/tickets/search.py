"""What somebody typed to find tickets, as what the search index is asked."""

import re
from dataclasses import dataclass
from typing import Final

from taskhub.storage.search import Phrase, normal, phrases_of, words_of
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
        typed = part[1] if part[2] is None else part[2]
        no = number_of(key_prefix, typed)
        if no is None:
            phrases += phrases_of(typed, prefix=part[2] is not None and part is parts[-1])
        else:
            numbers.append(no)
            # As texts write it, also when it was typed as th-012. Keys are not in the index: all of them begin alike.
            phrases.append(Phrase(tuple(words_of(key_of(key_prefix, no))), key_of=no))
    return Search(tuple(phrases), tuple(numbers))
