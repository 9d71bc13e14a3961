"""The search index: every ticket and comment is found by its words, and by no others."""

import re
from collections.abc import Iterable
from typing import Any, Final

from sqlalchemy import Connection, Text, bindparam, cast, exists, select, text, tuple_

from taskhub.doctor.findings import Findings
from taskhub.storage.reindex import Indexed, pages
from taskhub.storage.schema import comments, search_documents

_D: Final = search_documents.c
_WORDS: Final = select(_D.workspace_id, _D.ticket_no, _D.comment_seq, cast(_D.words, Text).label("words"))
_OF_TICKETS: Final = _WORDS.where(
    tuple_(_D.workspace_id, _D.ticket_no).in_(bindparam("places", expanding=True)), _D.comment_seq.is_(None)
)
_OF_COMMENTS: Final = _WORDS.where(
    tuple_(_D.workspace_id, _D.comment_seq).in_(bindparam("places", expanding=True))
)  # fmt: skip
_ORPHANS: Final = select(_D.workspace_id, _D.ticket_no, _D.comment_seq).where(
    _D.comment_seq.is_not(None),
    ~exists().where(comments.c.workspace_id == _D.workspace_id, comments.c.seq == _D.comment_seq),
)
# FTS5 has a row in its table of sizes for each document that it has indexed.
_NOT_IN_FTS: Final = text(
    "SELECT count(*) FROM (SELECT id FROM search_documents EXCEPT SELECT id FROM search_words_docsize)"
    " UNION ALL SELECT count(*) FROM (SELECT id FROM search_words_docsize EXCEPT SELECT id FROM search_documents)"
)
_LEXEME: Final = re.compile(r"'([^']*)':([0-9,]+)")


def check_index(connection: Connection, findings: Findings) -> None:
    """Make the words of each text again, and hold them against those in the index."""
    for page in pages(connection):
        stored = _stored(connection, page)
        for indexed in page:
            place = (indexed.workspace, indexed.comment_seq or indexed.ticket_no)
            expected = sorted(_normal(row["words"]) for row in indexed.rows(connection))
            if sorted(stored.get(place, [])) != expected:
                findings.add("search", indexed.workspace, f"{_name(indexed)} cannot be found by its words alone")
    for row in connection.execute(_ORPHANS):
        findings.add("search", row.workspace_id, f"comment {row.comment_seq} is found, and is not there")
    if connection.dialect.name == "sqlite":
        missing = sum(connection.execute(_NOT_IN_FTS).scalars())
        if missing:
            findings.add("search", None, f"{missing} documents are in only one of the two parts of the index")


def _stored(connection: Connection, page: Iterable[Indexed]) -> dict[tuple[str, int], list[str]]:
    found: dict[tuple[str, int], list[str]] = {}
    places = [(indexed.workspace, indexed.comment_seq or indexed.ticket_no) for indexed in page]
    of_comments = any(indexed.comment_seq is not None for indexed in page)
    statement: Any = _OF_COMMENTS if of_comments else _OF_TICKETS
    for row in connection.execute(statement, {"places": places}):
        place = (row.workspace_id, row.comment_seq or row.ticket_no)
        found.setdefault(place, []).append(_normal(row.words))
    return found


def _normal(words: str) -> str:
    """PostgreSQL sorts the words of a tsvector in an order of its own."""
    lexemes = _LEXEME.findall(words)
    return " ".join(f"{word}:{places}" for word, places in sorted(lexemes)) if lexemes else words


def _name(indexed: Indexed) -> str:
    of_ticket = f"ticket {indexed.ticket_no}"
    return of_ticket if indexed.comment_seq is None else f"comment {indexed.comment_seq} of {of_ticket}"
