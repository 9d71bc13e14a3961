"""Changing reference data: users, accounts, categories, statuses and the like.

Ids stay when rows are renamed. Names are unique within their kind, case and separators aside. There is always a default
status to begin with, and one that is active, one that waits and one that is done.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from sqlalchemy import Column, Table, and_, delete, func, insert, or_, select, update

from taskhub.audit.record import Action, Entry, record
from taskhub.auth.errors import Forbidden
from taskhub.auth.roles import SCOPES_OF_ROLE
from taskhub.storage import schema
from taskhub.storage.names import normalise, slug
from taskhub.tickets.errors import InputProblem, InUse, InvalidInput, ReferenceNotFound, StatusNeeded
from taskhub.tickets.model import ReferenceKind, ReferenceWritten, Status
from taskhub.tickets.reference import UnknownReference
from taskhub.tickets.reference_inputs import NewDetail, ReferenceChange, ReferenceInput
from taskhub.tickets.text import has_control
from taskhub.tickets.unit import TicketUnit, check_texts

NEEDED_PHASES: Final = ("todo", "active", "waiting", "done")
_RESERVED: Final = ("me", "none")
"""What filters mean something else by."""

_T: Final = schema.tickets.c
_KEYS: Final = schema.api_keys.c
_USED_IN: Final[Mapping[ReferenceKind, tuple[Column[Any], ...]]] = {
    "users": (_T.assignee_id, _T.requestor_id),
    "accounts": (_T.account_id,),
    "categories": (_T.category_id,),
    "category_details": (_T.category_detail_id,),
    "statuses": (_T.status_id,),
    "request_channels": (_T.channel_id,),
    "response_categories": (_T.response_category_id,),
}


def create(unit: TicketUnit, kind: ReferenceKind, new: ReferenceInput) -> ReferenceWritten:
    """Add a row, the last of its kind unless `order_no` says otherwise. Raises InvalidInput and Forbidden."""
    values = new.model_dump()
    _check_role(unit, values)
    if isinstance(new, NewDetail):
        values["category_id"] = _category(unit, values.pop("category"))
    _check_name(unit, kind, new.name, values.get("category_id"))
    row_id = slug(new.name, unit.references.entries[kind].by_id)
    if "order_no" in values and values["order_no"] is None:
        values["order_no"] = _last_order(unit, kind) + 1
    transaction = unit.transaction
    common = {
        "workspace_id": transaction.workspace, "id": row_id, "created_at": transaction.now,
        "updated_at": transaction.now,
    }  # fmt: skip
    transaction.execute(insert(_table(kind)).values({**common, **values}))
    event = unit.references_changed(kind, "created", row_id, new.name)
    _record(unit, kind, "user.added", row_id, values)
    if values.get("is_default"):
        _make_default(unit, row_id)
    _check_statuses(unit, kind)
    return ReferenceWritten(row_id, new.name, event.id, event.position)


def change(unit: TicketUnit, kind: ReferenceKind, row_id: str, asked: ReferenceChange) -> ReferenceWritten:
    """Change a row. Raises ReferenceNotFound, InvalidInput, InUse, StatusNeeded and Forbidden."""
    before = _row(unit, kind, row_id)
    given = asked.model_dump(exclude_unset=True)
    _check_cleared(given)
    values = {name: value for name, value in given.items() if value != before[name]}
    if kind == "users" and values:
        _check_role(unit, before)
        _check_role(unit, values)
    if not values:
        return ReferenceWritten(row_id, before["name"], None, unit.transaction.state.position, noop=True)
    if "name" in values:
        _check_name(unit, kind, values["name"], before.get("category_id"), except_id=row_id)
    if "phase" in values and (count := _tickets_with(unit, kind, row_id)):
        # Each event about a ticket says which phase it left and which it entered; this would happen without one.
        raise InUse(kind, row_id, count, "its phase cannot change")
    if values.get("is_default") is False:
        raise StatusNeeded("another status must be made the default one instead: set its is_default")
    _store(unit, kind, row_id, values)
    name = values.get("name", before["name"])
    event = unit.references_changed(kind, "updated", row_id, name)
    _record(unit, kind, "user.changed", row_id, {field: [before[field], value] for field, value in values.items()})
    if values.get("is_default"):
        _make_default(unit, row_id)
    _check_statuses(unit, kind)
    return ReferenceWritten(row_id, name, event.id, event.position)


def remove(unit: TicketUnit, kind: ReferenceKind, row_id: str) -> ReferenceWritten:
    """Remove a row that nothing refers to. Raises ReferenceNotFound, InUse, StatusNeeded and Forbidden."""
    row = _row(unit, kind, row_id)
    name = row["name"]
    _check_role(unit, row)
    if count := _tickets_with(unit, kind, row_id):
        raise InUse(kind, row_id, count, "it cannot be removed")
    if kind == "categories" and (details := [d for d in unit.references.category_details if d.category.id == row_id]):
        raise InUse(kind, row_id, len(details), "it cannot be removed", users="category details")
    if kind == "users" and (count := _keys_of(unit, row_id)):
        # Whoever got the id later would get the keys with it.
        raise InUse(kind, row_id, count, "it cannot be removed", users="API keys")
    if kind == "users":
        for table in schema.OF_USERS:
            unit.transaction.execute(
                delete(table).where(table.c.workspace_id == unit.transaction.workspace, table.c.user_id == row_id)
            )
    table = _table(kind)
    unit.transaction.execute(
        delete(table).where(table.c.workspace_id == unit.transaction.workspace, table.c.id == row_id)
    )
    event = unit.references_changed(kind, "deleted", row_id, name)
    _record(unit, kind, "user.removed", row_id, {"name": name, "role": row.get("role")})
    _check_statuses(unit, kind)
    return ReferenceWritten(row_id, name, event.id, event.position)


def _record(unit: TicketUnit, kind: ReferenceKind, action: Action, row_id: str, told: Mapping[str, Any]) -> None:
    """Who may do what is told by users alone."""
    if kind == "users":
        record(unit.transaction, Entry.by(unit.caller, action, row_id, **told))


def _table(kind: ReferenceKind) -> Table:
    return schema.METADATA.tables[kind]


def _row(unit: TicketUnit, kind: ReferenceKind, row_id: str) -> dict[str, Any]:
    table = _table(kind)
    statement = select(table).where(table.c.workspace_id == unit.transaction.workspace, table.c.id == row_id)
    row = unit.transaction.connection.execute(statement).first()
    if row is None:
        raise ReferenceNotFound(kind, row_id)
    return dict(row._mapping)


def _store(unit: TicketUnit, kind: ReferenceKind, row_id: str, values: Mapping[str, Any]) -> None:
    table = _table(kind)
    statement = update(table).where(table.c.workspace_id == unit.transaction.workspace, table.c.id == row_id)
    unit.transaction.execute(statement.values({**values, "updated_at": unit.transaction.now}))


def _category(unit: TicketUnit, given: str) -> str:
    try:
        return unit.references.entries["categories"].find(given)
    except UnknownReference as error:
        raise InvalidInput([error.problem("/category")]) from None


def _last_order(unit: TicketUnit, kind: ReferenceKind) -> int:
    table = _table(kind)
    statement = select(func.max(table.c.order_no)).where(table.c.workspace_id == unit.transaction.workspace)
    return unit.transaction.connection.execute(statement).scalar_one() or 0


def _check_cleared(given: Mapping[str, Any]) -> None:
    problems = [
        InputProblem(f"/{name}", "cannot be cleared")
        for name, value in given.items()
        if value is None and name != "email"
    ]
    if problems:
        raise InvalidInput(problems)


def _check_name(
    unit: TicketUnit, kind: ReferenceKind, name: str, category_id: str | None, *, except_id: str | None = None
) -> None:
    """Raise InvalidInput for a name by which the row could not be told from another, or not be written."""
    check_texts([("/name", name)])
    spelled = normalise(name)
    if has_control(name):
        raise _wrong_name("must not contain control characters")
    if not any(c.isalnum() for c in spelled):
        raise _wrong_name("must have a letter or a digit")
    if spelled in _RESERVED:
        raise _wrong_name(f"is a word that filters use: {', '.join(_RESERVED)}")
    for entry_id, entry_name in _others(unit, kind, category_id):
        if entry_id != except_id and spelled in (normalise(entry_id), normalise(entry_name)):
            raise _wrong_name(f"is taken by {entry_name} ({entry_id}); case, spaces, _ and - make no difference")


def _others(unit: TicketUnit, kind: ReferenceKind, category_id: str | None) -> Iterable[tuple[str, str]]:
    """Id and name of the rows among which a name must be unique: of category details those of one category."""
    if kind == "category_details":
        return [(d.id, d.name) for d in unit.references.category_details if d.category.id == category_id]
    return [(entry.id, entry.name) for entry in unit.references.entries[kind].by_id.values()]


def _wrong_name(reason: str) -> InvalidInput:
    return InvalidInput([InputProblem("/name", reason)])


def _tickets_with(unit: TicketUnit, kind: ReferenceKind, row_id: str) -> int:
    """How many tickets refer to a row; those that were deleted do, for they can be restored."""
    statement = select(func.count()).where(
        and_(_T.workspace_id == unit.transaction.workspace, or_(*(column == row_id for column in _USED_IN[kind])))
    )
    return int(unit.transaction.connection.execute(statement).scalar_one())


def _keys_of(unit: TicketUnit, user_id: str) -> int:
    """How many keys of a user are not revoked."""
    statement = select(func.count()).where(
        _KEYS.workspace_id == unit.transaction.workspace, _KEYS.user_id == user_id, _KEYS.revoked_at.is_(None)
    )
    return int(unit.transaction.connection.execute(statement).scalar_one())


def _check_role(unit: TicketUnit, user: Mapping[str, Any]) -> None:
    """Raise Forbidden for a role that may more than the caller: who manages users does not rise by it, nor touch those
    above."""
    role = user.get("role")
    if role is not None and not SCOPES_OF_ROLE[role] <= unit.caller.principal.scopes:
        raise Forbidden("admin")


def _make_default(unit: TicketUnit, row_id: str) -> None:
    """Let no other status be the default one."""
    for status in unit.references.statuses:
        if status.is_default and status.id != row_id:
            _store(unit, "statuses", status.id, {"is_default": False})
            unit.references_changed("statuses", "updated", status.id, status.name)


def _check_statuses(unit: TicketUnit, kind: ReferenceKind) -> None:
    """Raise StatusNeeded when tickets could no longer be begun, worked on, put off or finished."""
    if kind != "statuses":
        return
    usable: list[Status] = [status for status in unit.references.statuses if status.active]
    for phase in NEEDED_PHASES:
        if not any(status.phase == phase for status in usable):
            raise StatusNeeded(f"there must be a status in use whose phase is {phase}")
    if not any(status.is_default and status.phase == "todo" for status in usable):
        raise StatusNeeded("the default status must be in use, and its phase todo: make another one the default first")
