"""The rows of a file that is imported: CSV or JSON lines, as an export writes them, or as they come from elsewhere.

A row stands for the ticket with its `external_ticket_id`, or, without one, for the ticket with its `key`: importing a
file twice therefore changes nothing the second time.
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Annotated, Any, BinaryIO, Final, TextIO

import orjson
from pydantic import Field, ValidationError

from taskhub.numbers import WHOLE
from taskhub.tickets.errors import InputProblem, InvalidInput
from taskhub.tickets.export import Format, is_formula
from taskhub.tickets.fields import FIELDS, suggested_name
from taskhub.tickets.inputs import Input, Key, Summary, TicketFields
from taskhub.tickets.model import Ticket
from taskhub.tickets.text import UNSTORABLE, unstorable

MAX_LINE: Final = 1024 * 1024
"""Characters of a line, which has room for every text of a ticket."""
MAX_FIELDS: Final = 100
"""Of a row: far more than a ticket has."""
_ACCEPTED: Final = ("key", "version", *(field.name for field in FIELDS))
_IGNORED: Final = frozenset(field.name for field in fields(Ticket)) - set(_ACCEPTED)


class ImportRow(TicketFields, Input):
    """One row of a file. A field that is left out stays as it is. `version`: the one that its ticket, known by `key`,
    must still have to be changed."""

    key: Key | None = None
    version: Annotated[int, Field(ge=1), WHOLE] | None = None
    summary: Summary | None = None


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that could not be taken, counted from 1 in the file, and why."""

    line: int
    reason: str


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


def _lines(text: TextIO) -> Iterator[str | None]:
    """The lines with their ends; None for one that is too long to be looked at."""
    while line := text.readline(MAX_LINE + 1):
        if len(line) <= MAX_LINE:
            yield line
            continue
        while line and not line.endswith("\n"):
            line = text.readline(MAX_LINE)
        yield None


def _without_too_long(text: TextIO, too_long: list[int]) -> Iterator[str]:
    """The lines, an empty one in place of each that is too long; its number is added to `too_long`."""
    for number, found in enumerate(_lines(text), start=1):
        if found is None:
            too_long.append(number)
        yield found or "\n"


def _too_long(number: int) -> tuple[int, BadLine]:
    return number, BadLine(number, f"has more than {MAX_LINE} characters")


def _csv_rows(text: TextIO) -> Iterator[tuple[int, dict[str, Any] | BadLine]]:
    too_long: list[int] = []
    reader = csv.reader(_without_too_long(text, too_long), strict=True)
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
            if "field limit" in str(error):
                # The rest of the file is one cell, or looks so: where it ends, nobody knows.
                reason = "a quote that is opened here is not closed; nothing from here on was taken"
                yield number, BadLine(number, reason)
                return
            yield number, BadLine(number, f"is no CSV: {error}")
            continue
        while too_long:
            yield _too_long(too_long.pop())
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
    if cell.startswith("'") and is_formula(cell):
        cell = cell[1:]
    return [label.strip() for label in cell.split(",") if label.strip()] if name == "labels" else cell


def _check_columns(names: list[str]) -> None:
    if len(names) > MAX_FIELDS:  # each would be compared with every other, and with those that there are
        raise InvalidInput([InputProblem("", f"the first line names more than {MAX_FIELDS} columns")])
    if any(unstorable(name) for name in names):
        raise InvalidInput([InputProblem("", "the file is not UTF-8: save it as UTF-8, or as CSV UTF-8")])
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
    for number, found in enumerate(_lines(text), start=1):
        if found is None:
            yield _too_long(number)
            continue
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
        if len(value) > MAX_FIELDS:
            yield number, BadLine(number, f"has more than {MAX_FIELDS} fields")
            continue
        # As they are exported: references with ids, absent values as null.
        yield number, {name: v.get("id") if isinstance(v, dict) else v for name, v in value.items() if v is not None}


def _checked(number: int, values: dict[str, Any]) -> ImportRow | BadLine:
    if (unknown := next((name for name in values if name not in _ACCEPTED and name not in _IGNORED), None)) is not None:
        return BadLine(number, f"{unknown[:80]}: is no field of tickets")
    try:
        row = ImportRow.model_validate({name: value for name, value in values.items() if name not in _IGNORED})
    except ValidationError as error:
        found = error.errors()[0]
        name = str(found["loc"][0]) if found["loc"] else "row"
        reason = found["msg"].removeprefix("Value error, ")
        return BadLine(number, f"{name}: {reason}")
    if unstorable(row.external_ticket_id or ""):  # by which it is looked for
        return BadLine(number, f"external_ticket_id: {UNSTORABLE}")
    if row.key is None and row.external_ticket_id is None:
        return BadLine(number, "has neither external_ticket_id nor key, so importing it again would add it again")
    return row
