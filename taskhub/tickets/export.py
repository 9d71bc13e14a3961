"""Tickets as lines of a file: CSV for spreadsheets, JSON lines for programs; and such lines read back.

A file of either form can be imported again. A row stands for the ticket with its `external_ticket_id`, or, without one,
for the ticket with its `key`: importing a file twice therefore changes nothing the second time.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, BinaryIO, Final, Literal, TextIO

import orjson
from pydantic import ValidationError

from taskhub.tickets.errors import InputProblem, InvalidInput
from taskhub.tickets.fields import FIELDS, suggested_name
from taskhub.tickets.inputs import Input, Key, Summary, TicketFields
from taskhub.tickets.model import Ref, Ticket

Format = Literal["csv", "jsonl"]
MEDIA_TYPES: Final[Mapping[Format, str]] = {"csv": "text/csv", "jsonl": "application/x-ndjson"}

COLUMNS: Final = tuple(field.name for field in fields(Ticket) if field.name not in ("progress", "blocked", "lease"))
"""Of a CSV file: what a ticket is, without what changes while somebody works on it."""
_ACCEPTED: Final = ("key", *(field.name for field in FIELDS))
_IGNORED: Final = frozenset(field.name for field in fields(Ticket)) - set(_ACCEPTED)
# A spreadsheet takes such a cell for a formula, which may send others of the file elsewhere.
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_LABELS: Final = ", "  # no label has a comma
_BOM: Final = "\ufeff"  # by which Excel knows that the file is UTF-8


class ImportRow(TicketFields, Input):
    """One row of a file. A field that is left out stays as it is."""

    key: Key | None = None
    summary: Summary | None = None


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that could not be taken, counted from 1 in the file, and why."""

    line: int
    reason: str


def header(form: Format) -> bytes:
    """What comes before the tickets."""
    return (_BOM + _csv_line(COLUMNS)).encode() if form == "csv" else b""


def line(ticket: Ticket, form: Format) -> bytes:
    """One ticket."""
    if form == "jsonl":
        return orjson.dumps(ticket, option=orjson.OPT_APPEND_NEWLINE)
    return _csv_line(_cell(getattr(ticket, name)) for name in COLUMNS).encode()


def read_rows(file: BinaryIO, form: Format) -> Iterator[tuple[int, ImportRow | BadLine]]:
    """The rows of a file with the numbers of the lines on which they begin; a bad one in place of what cannot be read.

    Raises InvalidInput for a file that is none of that form.
    """
    # What is no UTF-8 becomes halves of surrogate pairs, which no field takes: only its line is refused.
    text = io.TextIOWrapper(file, "utf-8-sig", errors="surrogateescape", newline="")
    try:
        for number, found in _csv_rows(text) if form == "csv" else _json_rows(text):
            yield number, found if isinstance(found, BadLine) else _checked(number, found)
    finally:
        text.detach()


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
    # What looks like one that was guarded already is guarded too, so that reading takes away no more than was added.
    return f"'{text}" if text.lstrip("'").startswith(_FORMULA) else text


def _csv_rows(text: TextIO) -> Iterator[tuple[int, dict[str, Any] | BadLine]]:
    reader = csv.reader(text, strict=True)
    try:
        names = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise InvalidInput([InputProblem("", f"the file is no CSV: {error}")]) from None
    _check_columns(names)
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            yield number, BadLine(number, f"is no CSV: {error}")
            continue
        if cells is None:
            return
        if not any(cells):
            continue
        if len(cells) != len(names):
            yield number, BadLine(number, f"has {len(cells)} cells, and the first line {len(names)}")
            continue
        # An empty cell says nothing: in a spreadsheet it cannot be told from one that was cleared.
        yield number, {name: _value(name, cell) for name, cell in zip(names, cells, strict=True) if cell}


def _value(name: str, cell: str) -> Any:
    if cell.startswith("'") and cell.lstrip("'").startswith(_FORMULA):
        cell = cell[1:]
    return [label.strip() for label in cell.split(",") if label.strip()] if name == "labels" else cell


def _check_columns(names: list[str]) -> None:
    problems = [
        InputProblem(f"/{name[:80]}", "is no column of tickets", _ACCEPTED, suggested_name(name, _ACCEPTED))
        for name in names
        if name not in _ACCEPTED and name not in _IGNORED
    ]
    problems += [
        InputProblem(f"/{name}", "is there twice") for name in sorted({n for n in names if names.count(n) > 1})
    ]
    if not {"key", "external_ticket_id"} & set(names):
        problems.append(InputProblem("", "the first line must name the columns, external_ticket_id or key among them"))
    if problems:
        raise InvalidInput(problems)


def _json_rows(text: TextIO) -> Iterator[tuple[int, dict[str, Any] | BadLine]]:
    for number, found in enumerate(text, start=1):
        if not found.strip():
            continue
        try:
            value = orjson.loads(found)
        except ValueError:  # half a surrogate pair, too
            yield number, BadLine(number, "is no JSON")
            continue
        if not isinstance(value, dict):
            yield number, BadLine(number, "is no JSON object")
            continue
        # As they are exported: references with ids, absent values as null.
        yield number, {name: v.get("id") if isinstance(v, dict) else v for name, v in value.items() if v is not None}


def _checked(number: int, values: dict[str, Any]) -> ImportRow | BadLine:
    try:
        row = ImportRow.model_validate({name: value for name, value in values.items() if name not in _IGNORED})
    except ValidationError as error:
        found = error.errors()[0]
        name = str(found["loc"][0]) if found["loc"] else "row"
        reason = "is no field of tickets" if found["type"] == "extra_forbidden" else found["msg"]
        return BadLine(number, f"{name[:80]}: {reason}")
    if row.key is None and row.external_ticket_id is None:
        return BadLine(number, "has neither external_ticket_id nor key, so importing it again would add it again")
    return row
