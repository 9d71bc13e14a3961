"""Answers of the ticket service as tool results: short rows, short texts, and a hard cap on the size of both."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson

from taskhub.fitting import MAX_CHARACTERS, clip, cut, fitted
from taskhub.mcp.arguments import DEFAULT_COLUMNS, Column
from taskhub.mcp.registry import ToolResult
from taskhub.tickets.model import Claimed, Reported, TicketDetail, TicketPage, TicketState, Written

_MAX_TEXT: Final = 4_000
_SHORT: Final[Mapping[str, str]] = {"status": "name", "progress": "percent", "lease": "holder"}
"""What a compact row has of a column that is an object; of any other its id."""
_ALL_COMMENTS: Final = 8_000
"""Characters that all comments of one report have together, at least 400 each."""
_REST: Final = "GET /api/v1"


def plain(value: Any) -> Any:
    """A dataclass, or a list of them, as JSON values."""
    return orjson.loads(orjson.dumps(value))


def written(answer: Written, what: str) -> ToolResult:
    """`what` says what was done, such as `created`."""
    data: dict[str, Any] = {
        "key": answer.key,
        "version": answer.version,
        "event_id": answer.event_id,
        "position": answer.position,
    }
    if answer.comment_id is not None:
        data["comment_id"] = answer.comment_id
    if answer.noop:
        data["noop"] = True
    if answer.replayed:
        data["replayed"] = True
    text = f"{answer.key} was that way already; nothing changed" if answer.noop else f"{answer.key} {what}"
    again = "; this repeats the answer of the earlier call with the same idempotency key" if answer.replayed else ""
    return ToolResult(data, f"{text} (version {answer.version}){again}.")


def claimed(answer: Claimed) -> ToolResult:
    data = {"lease_token": answer.lease_token, "lease_expires_at": answer.lease_expires_at}
    result = written(answer, "is yours")
    told = f"Your lease_token is {answer.lease_token}; the lease ends at {answer.lease_expires_at} unless renewed."
    return ToolResult({**result.data, **data}, f"{result.text} {told}")


def reported(answer: Reported) -> ToolResult:
    """With something of every comment: none of them will be told again."""
    result = written(answer, "has its progress reported")
    length = _ALL_COMMENTS // max(1, len(answer.comments))
    data = {**result.data, "comments": [cut(plain(comment), length) for comment in answer.comments]}
    hint = f"long comments were cut: read {_REST}/tickets/{answer.key}/comments"
    if any(len(comment.body) > length for comment in answer.comments):
        data |= {"truncated": True, "hint": hint}
    lines = [result.text]
    if answer.lease_expires_at is not None:
        data["lease_expires_at"] = answer.lease_expires_at
        lines.append(f"The lease ends at {answer.lease_expires_at} unless renewed.")
    lines += [f"{comment.author} ({comment.kind}): {clip(comment.body, 300)}" for comment in answer.comments]
    if answer.more:
        data["more"] = True
        lines.append("There are more comments: call report_progress again for the next ones.")
    text = "\n".join(lines)
    return ToolResult(fitted(data, MAX_CHARACTERS - len(text), hint), text)


def row(ticket: TicketState, columns: Sequence[Column], *, full: bool) -> dict[str, Any]:
    """A ticket in a list. Compact: the status by name, other references by id."""
    values: dict[str, Any] = plain(ticket)
    values["updated"] = values.pop("updated_at")
    found: dict[str, Any] = {}
    for column in columns:
        value = values[column]
        if not full and isinstance(value, dict):
            value = value[_SHORT.get(column, "id")]
        found[column] = value
    return found


def page(page: TicketPage, columns: Sequence[Column] | None, form: str) -> ToolResult:
    """A page of tickets, however long. `columns` None: those of the format; the key is always one of them."""
    full = form == "full"
    if columns is None:
        columns = list(Column.__args__) if full else DEFAULT_COLUMNS  # type: ignore[attr-defined]  # a Literal has them
    columns = list(dict.fromkeys(("key", *columns)))
    rows = [row(ticket, columns, full=full) for ticket in page.tickets]
    data = {"tickets": rows, "next_cursor": page.next_cursor, "position": page.position}
    more = f"There are more: cursor {page.next_cursor}" if page.next_cursor else ""
    if form == "markdown":
        return ToolResult(data, "\n\n".join(part for part in (_table(rows, columns), more) if part))
    count = f"{len(rows)} ticket{'' if len(rows) == 1 else 's'}"
    lines = [_line(ticket) for ticket in page.tickets]
    return ToolResult(data, "\n".join(part for part in (f"{count}.", _clipped_lines(lines), more) if part))


def _line(ticket: TicketState) -> str:
    parts = [ticket.status.name, ticket.assignee.id if ticket.assignee else "unassigned"]
    if ticket.priority != "none":
        parts.append(ticket.priority)
    if ticket.due:
        parts.append(f"due {ticket.due}")
    return f"{ticket.key} [{', '.join(parts)}] {ticket.summary}"


def _clipped_lines(lines: Sequence[str]) -> str:
    taken: list[str] = []
    size = 0
    for line in lines:
        size += len(line) + 1
        if size > _MAX_TEXT:
            taken.append(f"and {len(lines) - len(taken)} more in the structured content")
            break
        taken.append(line)
    return "\n".join(taken)


def _table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += ["| " + " | ".join(_cell(values[column]) for column in columns) + " |" for values in rows]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    text = "" if value is None else ", ".join(value) if isinstance(value, list) else str(value)
    return " ".join(text.replace("\\", "\\\\").replace("|", "\\|").split())


def detail(found: TicketDetail) -> ToolResult:
    """A ticket with the parts that were asked for, within the cap."""
    whole: dict[str, Any] = plain(found)
    data = {name: value for name, value in whole.items() if value is not None}
    ticket = found.ticket
    who = ticket.person_in_charge.name if ticket.person_in_charge else "unassigned"
    state = f"{ticket.status.name}, {who}, priority {ticket.priority}"
    lines = [f"{ticket.key} version {ticket.version} [{state}] {ticket.summary}"]
    if ticket.lease is not None:
        lines.append(f"Claimed by {ticket.lease.holder} until {ticket.lease.expires_at}")
    lines += [clip(ticket.description, 1_500)] if ticket.description else []
    lines += [f"{len(data[part])} {part}" for part in data if isinstance(data[part], list)]
    for comment in (found.comments or [])[-3:]:
        lines.append(f"{comment.author} ({comment.kind}): {clip(comment.body, 300)}")
    text = "\n".join(lines)
    hint = (
        f"long texts or older entries were left out: ask for fewer parts or a smaller history_limit, "
        f"or read {_REST}/tickets/{ticket.key}"
    )
    return ToolResult(fitted(data, MAX_CHARACTERS - len(text), hint), text)


def items(name: str, rows: Sequence[Any], labels: Sequence[str], hint: str) -> ToolResult:
    """Reference data: `{name: [...]}`; the text has one label for each row."""
    more = f"{len(rows)} {name.replace('_', ' ')}"
    text = f"{more}: {', '.join(labels)}" if rows else f"{more}."
    text = clip(text, _MAX_TEXT)
    return ToolResult(fitted({name: plain(rows)}, MAX_CHARACTERS - len(text), hint, keep="first"), text)
