"""Tickets as lines of a file: CSV for spreadsheets, JSON lines for programs. Such a file can be imported again."""

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, Final, Literal

import orjson

from taskhub.tickets.model import Ref, Ticket

Format = Literal["csv", "jsonl"]
MEDIA_TYPES: Final[Mapping[Format, str]] = {"csv": "text/csv", "jsonl": "application/x-ndjson"}

COLUMNS: Final = tuple(field.name for field in fields(Ticket) if field.name not in ("progress", "blocked", "lease"))
"""Of a CSV file: what a ticket is, without what changes while somebody works on it."""
BOM: Final = "\ufeff"  # by which Excel knows that the file is UTF-8
_LABELS: Final = ", "  # no label has a comma
# A spreadsheet takes such a cell for a formula, which may send others of the file elsewhere; where people write full
# width, those marks as well (OWASP, CSV injection).
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def is_formula(cell: str) -> bool:
    """Whether a cell is written with `'` before it. One that looks guarded already is guarded too, so that reading
    takes away no more than was added."""
    return cell.lstrip("'").startswith(_FORMULA)


def header(form: Format) -> bytes:
    """What comes before the tickets."""
    return (BOM + _csv_line(COLUMNS)).encode() if form == "csv" else b""


def line(ticket: Ticket, form: Format) -> bytes:
    """One ticket."""
    if form == "jsonl":
        return orjson.dumps(ticket, option=orjson.OPT_APPEND_NEWLINE)
    return _csv_line(_cell(getattr(ticket, name)) for name in COLUMNS).encode()


def _csv_line(cells: Iterable[str]) -> str:
    out = io.StringIO()
    csv.writer(out).writerow(cells)
    return out.getvalue()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Ref):
        value = value.name
    text = _LABELS.join(value) if isinstance(value, tuple) else str(value)
    return f"'{text}" if is_formula(text) else text
