"""The search index: what of a text is found, the rows that hold it, and which rows contain a phrase.

The words are made here and not by the databases, whose tokenizers find nothing inside a Japanese text. Both hold them
as they are made: SQLite in FTS5 over the words separated by spaces, PostgreSQL in a tsvector with a GIN index.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Select,
    Text,
    bindparam,
    cast,
    column,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    table,
)
from sqlalchemy.dialects.postgresql import TSQUERY

from taskhub.storage.schema import search_documents, tickets, workspaces
from taskhub.storage.transaction import Transaction

MAX_WORD: Final = 64
"""Characters; a longer word, such as encoded data, is several. PostgreSQL takes no word of more than 2046 bytes."""
MAX_WORDS: Final = 2000
"""Of one document. PostgreSQL keeps at most a megabyte of words …"""
MAX_TIMES: Final = 255
"""… and at most 255 places of each, in none of which a phrase may be missed."""
MAX_PHRASE: Final = 64
"""Words of a phrase. The documents of a long text overlap by as many, so that one of them has the whole phrase."""

MAX_LISTED: Final = 1000
"""Tickets by their numbers in one statement. Of a hundred thousand, every hundredth is met after two thousand."""
MAX_DRIVING: Final = 20_000
"""Documents with one phrase that are counted to find out whether to begin with them."""
PAGE: Final = 20
"""Rows that a list is usually asked for."""

TEXTS: Final = ("summary", "description", "external_ticket_id", "remarks", "response_details")
"""The columns by which a ticket is found, beside its labels and its comments."""

_BREAK: Final = "¶"  # between two texts: no phrase begins in one and ends in the next
# Scripts that are written without spaces (Korean has them, but joins particles to its words).
_UNSPACED: Final = (
    "\u0e01-\u0e3a\u0e40-\u0e4e\u0e81-\u0ece\u1000-\u103f\u1050-\u108f\u1780-\u17d3"
    "\u3005-\u3007\u3041-\u3096\u3099\u309a\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97c\uac00-\ud7fb\uf900-\ufaff\U00020000-\U0003ffff"
)
# Marks that belong to the letter before them, where they have no composed form with it.
_MARKS: Final = (
    "\u0300-\u036f\u0483-\u0487\u0591-\u05bd\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06dc\u0900-\u0963\u0981-\u0dff"
)
_RUN: Final = re.compile(rf"([{_UNSPACED}]+)|(?:(?![{_UNSPACED}])(?:[^\W_]|[{_MARKS}]))+")
_IS_UNSPACED: Final = re.compile(f"[{_UNSPACED}]")

_D: Final = search_documents.c
_ONE: Final = search_documents.alias("document").c
_INSERT: Final = insert(search_documents)
_FORGET: Final = delete(search_documents).where(
    _D.workspace_id == bindparam("of_workspace"), _D.ticket_no == bindparam("of_no"), _D.comment_seq.is_(None)
)
_FTS: Final = table("search_words", column("rowid"))
_MATCH: Final = column("search_words").op("MATCH", is_comparison=True)
_COUNT: Final = select(func.count()).select_from(
    select(_FTS.c.rowid).where(_MATCH(bindparam("matching", type_=Text))).limit(bindparam("most")).subquery()
)


@dataclass(frozen=True, slots=True)
class Phrase:
    """Words that follow one another. `prefix`: the last one may go on. `key_of`: the number of the ticket whose key it
    is, which need not contain it."""

    words: tuple[str, ...]
    prefix: bool = False
    key_of: int | None = None


def normal(text: str) -> str:
    """Full-width and half-width, upper and lower case look the same in it."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


def words_of(text: str) -> Iterator[str]:
    """The words of a text, in their order. A run of a script without spaces gives each character with the one after
    it, and the last one alone: 全文検索 is 全文, 文検, 検索, 索."""
    for run in _RUN.finditer(normal(text)):
        found = run[0]
        if run[1]:
            yield from (found[i : i + 2] for i in range(len(found)))
        else:
            yield from (found[i : i + MAX_WORD] for i in range(0, len(found), MAX_WORD))


def phrases_of(text: str, *, prefix: bool) -> Iterator[Phrase]:
    """What a text must contain to contain `text`; nothing when that has no letters. `prefix`: its last word may go on.

    A phrase that is too long is several, which must all be there.
    """
    words = list(words_of(text))
    ends_unspaced = bool(words) and _IS_UNSPACED.match(words[-1]) is not None
    if ends_unspaced:
        if len(words) > 1 and len(words[-2]) == 2 and words[-2][1] == words[-1] and _IS_UNSPACED.match(words[-2]):
            words.pop()  # there may be more characters after it, and the pair before it says it already
            prefix = False
        else:
            prefix = True  # alone or with another character after it
    while len(words) > MAX_PHRASE:
        yield Phrase(tuple(words[:MAX_PHRASE]))
        del words[:MAX_PHRASE]
    if words:
        yield Phrase(tuple(words), prefix)


def documents(texts: Iterable[str | None]) -> Iterator[list[str]]:
    """The words of texts that are found together, as documents: one unless they are long."""
    words: list[str] = []
    for text in texts:
        if text:
            words += [_BREAK] if words else []
            words += words_of(text)
    if 0 < len(words) <= MAX_TIMES:  # most are so short that no limit needs to be counted
        yield words
        return
    start = 0
    while start < len(words):
        end, times = start, Counter[str]()
        while end < len(words) and end - start < MAX_WORDS and times[words[end]] < MAX_TIMES:
            times[words[end]] += 1
            end += 1
        yield words[start:end]
        if end == len(words):
            return
        start = end - MAX_PHRASE


def add_texts(transaction: Transaction, no: int, texts: Iterable[str | None], comment_seq: int | None = None) -> None:
    """Let a ticket be found by these texts: its own, or those of one of its comments."""
    rows = rows_of(transaction.connection, transaction.workspace, no, texts, comment_seq)
    if rows:
        transaction.execute(_INSERT, rows)


def replace_texts(transaction: Transaction, no: int, texts: Iterable[str | None]) -> None:
    """Let a ticket be found by these texts of its own, and no longer by those that it had."""
    transaction.execute(_FORGET, {"of_workspace": transaction.workspace, "of_no": no})
    add_texts(transaction, no, texts)


def rows_of(
    connection: Connection, workspace: str, no: int, texts: Iterable[str | None], comment_seq: int | None
) -> list[dict[str, Any]]:
    """The rows of the index for these texts."""
    stored = _tsvector if connection.dialect.name == "postgresql" else " ".join
    common = {"workspace_id": workspace, "ticket_no": no, "comment_seq": comment_seq}
    return [{**common, "words": stored(words)} for words in documents(texts)]


def tickets_that_contain(
    connection: Connection, workspace: str, phrases: Iterable[Phrase]
) -> tuple[set[int] | None, list[ColumnElement[bool]]]:
    """Which tickets contain all the phrases, each themselves or in a comment: those among these numbers (None: all)
    that meet these conditions.

    How rare a word is decides from which side to come. Looked up first, a rare one makes a short list of tickets, from
    which everything else follows; frequent ones are asked of each ticket in the order of the list, for the first page
    is full after a few. On SQLite those are looked up, too, that are frequent but hardly ever in one ticket.
    """
    numbers: set[int] | None = None
    frequent: list[Phrase] = []
    for phrase in phrases:
        some = None if _is_frequent(connection, workspace, phrase) else _few(connection, workspace, phrase)
        if some is None:
            frequent.append(phrase)
            continue
        found = some if phrase.key_of is None else {*some, phrase.key_of}
        numbers = found if numbers is None else numbers & found
    if numbers is None and len(frequent) > 1 and connection.dialect.name == "sqlite":
        numbers = _few_with_all(connection, workspace, frequent)
    return numbers, [_contains(connection, phrase, tickets.c.workspace_id, tickets.c.no) for phrase in frequent]


def _is_frequent(connection: Connection, workspace: str, phrase: Phrase) -> bool:
    """Whether more tickets contain it than can be listed, as far as counting tells that sooner than listing."""
    if connection.dialect.name == "sqlite":
        return _documents_with(connection, [phrase]) > MAX_LISTED
    some = _tickets_with(connection, workspace, _whole(phrase)).limit(MAX_LISTED + 1)
    return connection.execute(select(func.count()).select_from(some.subquery())).scalar_one() > MAX_LISTED


def _whole(phrase: Phrase) -> Phrase:
    """The phrase with its last word as it stands: asked for the beginning of a word, both databases first put together
    all documents with any such word, and often the word itself is frequent enough to tell."""
    return replace(phrase, prefix=False)


def _few(connection: Connection, workspace: str, phrase: Phrase, others: Iterable[Phrase] = ()) -> set[int] | None:
    """The tickets that contain a phrase, and the others; None when they are too many to be listed."""
    statement = _tickets_with(connection, workspace, phrase)
    for other in others:
        statement = statement.where(_contains(connection, other, _D.workspace_id, _D.ticket_no))
    some = connection.execute(statement.limit(MAX_LISTED + 1)).scalars().all()
    return None if len(some) > MAX_LISTED else set(some)


def _few_with_all(connection: Connection, workspace: str, phrases: Sequence[Phrase]) -> set[int] | None:
    """On SQLite: the tickets that contain all these frequent phrases; None when they are many, or met sooner in the
    order of the list."""
    together = _documents_with(connection, phrases)
    if together > MAX_LISTED or any(phrase.key_of is not None for phrase in phrases):
        return None
    total = connection.execute(select(workspaces.c.next_no).where(workspaces.c.id == workspace)).scalar_one()
    counts = [_count(connection, [phrase], MAX_DRIVING) for phrase in phrases]
    rarest = counts.index(min(counts))
    # From one side all documents with the rarest one are visited, from the other the tickets until a page is full.
    if counts[rarest] * together > PAGE * total:
        return None
    return _few(connection, workspace, phrases[rarest], [*phrases[:rarest], *phrases[rarest + 1 :]])


def _documents_with(connection: Connection, phrases: Sequence[Phrase]) -> int:
    """On SQLite: how many documents contain all the phrases, each document by itself; one more than can be listed
    stands for any more."""
    whole = [_whole(phrase) for phrase in phrases]
    found = _count(connection, whole, MAX_LISTED + 1)
    return found if found > MAX_LISTED or whole == phrases else _count(connection, phrases, MAX_LISTED + 1)


def _count(connection: Connection, phrases: Sequence[Phrase], most: int) -> int:
    """On SQLite: how many documents contain all the phrases, each document by itself; counted up to `most`."""
    matching = " AND ".join(map(_fts_query, phrases))
    return connection.execute(_COUNT, {"matching": matching, "most": most}).scalar_one()


def _tickets_with(connection: Connection, workspace: str, phrase: Phrase) -> Select[int]:
    if connection.dialect.name == "postgresql":
        # The words stand in the statement. Of a parameter PostgreSQL soon assumes that it is rare, whatever it is, and
        # collects every document with a frequent one before it counts the first thousand.
        wanted = bindparam(None, _tsquery(phrase), Text, literal_execute=True)
        matches = _D.words.op("@@", is_comparison=True)(cast(wanted, TSQUERY))
        return select(_D.ticket_no).where(_D.workspace_id == workspace, matches)
    # SQLite would go through all documents of the workspace and ask of each whether it was found.
    found = _FTS.join(search_documents, _D.id == _FTS.c.rowid)
    matches = _MATCH(_fts_query(phrase))
    return select(_D.ticket_no).select_from(found).where(matches, _D.workspace_id.concat("") == workspace)


def _contains(
    connection: Connection, phrase: Phrase, workspace: ColumnElement[str], no: Column[int]
) -> ColumnElement[bool]:
    """Whether one of the documents of the ticket `no` of the enclosing statement holds the phrase."""
    document = select(_ONE.id).where(
        _ONE.workspace_id == workspace, _ONE.ticket_no == no, _holds_words(connection, _ONE.words, phrase)
    )
    if connection.dialect.name == "postgresql":
        # That keeps it from being joined. What begins with a word counts as rare to PostgreSQL, however frequent it is:
        # it would go through all that contain it, and sort them.
        document = document.offset(0)
    contained = exists(document.correlate(no.table))
    return contained if phrase.key_of is None else or_(contained, no == phrase.key_of)


# The words are letters and digits alone, and quoted: nothing that was typed is read as an operator.


def _holds_words(connection: Connection, words: ColumnElement[str], phrase: Phrase) -> ColumnElement[bool]:
    if connection.dialect.name == "postgresql":
        return words.op("@@", is_comparison=True)(cast(_tsquery(phrase), TSQUERY))
    # Of one document, looking through its words is much faster than asking the index about it.
    wanted = f" {' '.join(phrase.words)}" + ("" if phrase.prefix else " ")
    return func.instr(literal(" ").concat(words).concat(" "), wanted) > 0


def _tsquery(phrase: Phrase) -> str:
    return " <-> ".join(f"'{word}'" for word in phrase.words) + (":*" if phrase.prefix else "")


def _fts_query(phrase: Phrase) -> str:
    return f'"{" ".join(phrase.words)}"' + ("*" if phrase.prefix else "")


def _tsvector(words: list[str]) -> str:
    places: dict[str, list[str]] = {}
    for place, word in enumerate(words, start=1):
        places.setdefault(word, []).append(str(place))
    return " ".join(f"'{word}':{','.join(found)}" for word, found in places.items())
