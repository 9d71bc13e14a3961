"""The rules of a ticket, without I/O: what a request makes of it, what changed, and what is wrong with the request."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any, Final

from taskhub.auth.principal import Principal
from taskhub.storage.names import normalise
from taskhub.storage.times import to_text
from taskhub.tickets.errors import InputProblem, InvalidInput
from taskhub.tickets.fields import FIELDS, Field
from taskhub.tickets.inputs import NewTicket, TicketChange, TicketFields
from taskhub.tickets.keys import key_of
from taskhub.tickets.model import Phase, ReferenceKind, Status
from taskhub.tickets.record import TicketRecord
from taskhub.tickets.reference import References, UnknownReference
from taskhub.tickets.text import UNSTORABLE, has_control, unstorable

MAX_REASON: Final = 1000
_USER_FIELDS: Final = ("person_in_charge", "requestor")


@dataclass(frozen=True, slots=True)
class Situation:
    """What a decision is made in: the reference data, who asks, and when (as stored). `parent_no` is the ticket that
    the field `parent` names, looked up before."""

    references: References
    principal: Principal
    key_prefix: str
    now: str
    parent_no: int | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What a change makes of a ticket: its next version, `changes` as the event carries them, and the event's type."""

    after: TicketRecord
    changes: dict[str, list[Any]]
    event_type: str


def names_me(fields: TicketFields) -> bool:
    """Whether a field of people says `me`, so that the caller must be among the users."""
    return any(getattr(fields, name) == "me" for name in _USER_FIELDS)


def decide_new(new: NewTicket, situation: Situation) -> TicketRecord:
    """The record of a new ticket, with number 0 until one is taken. Raises InvalidInput."""
    asked = _Asked(new, situation, None)
    values = asked.values()
    references = situation.references
    if new.status is None and "status_id" not in values:
        values["status_id"] = references.default_status()
    blank = TicketRecord(
        no=0, version=1, summary=new.summary, description=None, status_id=values.get("status_id") or "",
        priority="none", assignee_id=None, requestor_id=None, account_id=None, category_id=None,
        category_detail_id=None, channel_id=None, reception_at=situation.now, due=None, completion_date=None,
        actual_effort_hours=None, response_category_id=None, response_details=None, has_defect=None,
        external_ticket_id=None, remarks=None, parent_no=None, waiting_reason=None, progress_percent=None,
        progress_note=None, blocked=False, last_attachment=0, created_at=situation.now, updated_at=situation.now,
        deleted_at=None, labels=(),
    )  # fmt: skip
    _follow_status(values, asked, None, references.status_by_id.get(blank.status_id), blank, None)
    asked.raise_problems()
    return replace(blank, **values)


def decide_change(before: TicketRecord, change: TicketChange, situation: Situation) -> Decision | None:
    """What `change` makes of `before`; None when it is so already. Raises InvalidInput."""
    references = situation.references
    asked = _Asked(change, situation, before)
    values = asked.values()
    _keep_category_together(values, before, references)
    old, new = references.status_by_id[before.status_id], references.status_by_id.get(values.get("status_id", ""))
    _follow_status(values, asked, old.phase, new or old, before, comment_of(change))
    asked.raise_problems()

    after = replace(before, **values)
    if after == before:
        return None
    after = replace(after, version=before.version + 1, updated_at=max(situation.now, before.updated_at))
    return Decision(after, changes_between(before, after, situation), type_of_change(before, after))


def comment_of(change: TicketChange) -> str | None:
    """The comment that goes with a change; blank is none."""
    return change.comment.strip() or None if change.comment is not None else None


def changes_between(before: TicketRecord, after: TicketRecord, situation: Situation) -> dict[str, list[Any]]:
    """Field → [before, after], under the names of events; references as ids, parents as keys."""
    changes: dict[str, list[Any]] = {}
    for field in FIELDS:
        pair = [getattr(before, field.column), getattr(after, field.column)]
        if pair[0] == pair[1]:
            continue
        if field.name == "parent":
            pair = [None if no is None else key_of(situation.key_prefix, no) for no in pair]
        changes[field.event] = pair
        if field.name == "status":
            phases = [situation.references.phase(status_id) for status_id in pair]
            if phases[0] != phases[1]:
                changes["phase"] = list(phases)
    return changes


def values_of(record: TicketRecord, names: Collection[str], situation: Situation) -> dict[str, Any]:
    """Those of the fields `names` that a record has, as events tell their values."""
    values = {field.event: getattr(record, field.column) for field in FIELDS if field.event in names}
    if values.get("parent") is not None:
        values["parent"] = key_of(situation.key_prefix, values["parent"])
    if "labels" in values:
        values["labels"] = list(values["labels"])
    if "phase" in names:
        values["phase"] = situation.references.phase(record.status_id)
    return values


def type_of_change(before: TicketRecord, after: TicketRecord) -> str:
    """The type of the event that carries a change of fields."""
    if before.status_id != after.status_id:
        return "ticket.status_changed"
    return "ticket.assigned" if before.assignee_id != after.assignee_id else "ticket.updated"


def _keep_category_together(values: dict[str, Any], before: TicketRecord, references: References) -> None:
    """A detail of another category does not outlive a change of category."""
    if "category_id" in values and "category_detail_id" not in values and before.category_detail_id is not None:
        detail = references.detail_by_id[before.category_detail_id]
        if detail.category.id != values["category_id"]:
            values["category_detail_id"] = None


def _follow_status(
    values: dict[str, Any], asked: "_Asked", phase_before: Phase | None, status: Status | None, before: TicketRecord,
    comment: str | None,
) -> None:  # fmt: skip
    """What a phase brings with it: the completion date when done, a reason while waiting."""
    if status is None:  # an unknown one, reported already
        return
    phase: Phase = status.phase
    if phase == "done" and phase_before != "done" and values.get("completion_date") is None:
        if "completion_date" in values and not asked.is_new:
            cleared = f"cannot be cleared while the ticket becomes {status.name}: name it, or leave it out for today"
            asked.problem("completion_date", cleared)
        values["completion_date"] = asked.situation.now[:10]
    elif phase != "done" and phase_before == "done" and "completion_date" not in values:
        values["completion_date"] = None
    if phase == "waiting":
        reason = values.get("waiting_reason", before.waiting_reason)
        if not (reason or "").strip() and phase_before != "waiting" and comment:
            values["waiting_reason"] = reason = comment[:MAX_REASON]
        if not (reason or "").strip():
            takes = "waiting_reason" if asked.is_new or phase_before == "waiting" else "comment or waiting_reason"
            reason = f"the status {status.name} needs a reason: say in {takes} what the ticket is waiting for"
            asked.problem("waiting_reason", reason)
    elif phase_before == "waiting" and "waiting_reason" not in values:
        values["waiting_reason"] = None


class _Asked:
    """The fields that a request names, checked and turned into what is stored; problems are collected."""

    def __init__(self, fields: TicketFields, situation: Situation, before: TicketRecord | None) -> None:
        self.situation = situation
        self._fields = fields
        self._before = before
        self._problems: list[InputProblem] = []

    @property
    def is_new(self) -> bool:
        """The fields are those of a ticket to be created."""
        return self._before is None

    def problem(self, name: str, reason: str, allowed: tuple[str, ...] = ()) -> None:
        self._problems.append(InputProblem(f"/{name}", reason, allowed))

    def raise_problems(self) -> None:
        """Raise InvalidInput when there are any."""
        if self._problems:
            raise InvalidInput(self._problems)

    def values(self) -> dict[str, Any]:
        """Column → value for each field named. Of a new ticket null means absent."""
        values: dict[str, Any] = {}
        for field in FIELDS:
            if field.name not in self._fields.model_fields_set:
                continue
            given = getattr(self._fields, field.name)
            if given is None:
                self._clear(field, values)
            elif field.name == "parent":
                values[field.column] = self.situation.parent_no
            elif field.name == "category_detail":
                self._category_detail(given, values)
            elif field.kind is not None:
                self._reference(field, field.kind, given, values)
            else:
                self._plain(field, given, values)
        return values

    def _clear(self, field: Field, values: dict[str, Any]) -> None:
        if self._before is None and field.required:
            return
        if field.required:
            self.problem(field.name, "cannot be cleared")
        elif field.name == "priority":
            values[field.column] = "none"
        else:
            values[field.column] = () if field.name == "labels" else None

    def _plain(self, field: Field, given: Any, values: dict[str, Any]) -> None:
        if isinstance(given, str) and unstorable(given):
            self.problem(field.name, UNSTORABLE)
        elif field.one_line and has_control(given):
            self.problem(field.name, "must be one line, without control characters")
        elif isinstance(given, datetime):
            try:
                values[field.column] = to_text(given)
            except OverflowError:
                self.problem(field.name, "is out of range")
        elif isinstance(given, date):
            values[field.column] = given.isoformat()
        elif field.name == "labels":
            if any(has_control(label) or unstorable(label) for label in given):
                self.problem(field.name, "must not contain control characters")
            values[field.column] = tuple(sorted(set(given)))
        else:
            values[field.column] = given

    def _reference(self, field: Field, kind: ReferenceKind, given: str, values: dict[str, Any]) -> None:
        references = self.situation.references
        if given == "me" and field.name in _USER_FIELDS:
            values[field.column] = references.me(self.situation.principal)
            return
        keeping = None if self._before is None else getattr(self._before, field.column)
        try:
            values[field.column] = references.entries[kind].find(given, keeping=keeping)
        except UnknownReference as error:
            self._problems.append(error.problem(f"/{field.name}"))

    def _category_detail(self, given: str, values: dict[str, Any]) -> None:
        """A detail belongs to the ticket's category; where there is none yet, the detail brings its own."""
        references = self.situation.references
        category = values.get("category_id", self._before.category_id if self._before else None)
        if not self.is_new and "category_id" in values and category is None:
            self.problem(
                "category_detail", "cannot be set while the category is cleared: name its category, or leave that out"
            )
            return
        wanted = normalise(given)
        spelled = [d for d in references.category_details if wanted in (normalise(d.id), normalise(d.name))]
        usable = [d for d in spelled if d.active or (self._before and d.id == self._before.category_detail_id)]
        # An id means its row alone, wherever a name is spelled like it: as of Entries.find.
        exact = [d for d in usable if d.id == given]
        matching = [d for d in exact or usable if category in (None, d.category.id)]
        if len(matching) == 1:
            values["category_detail_id"] = matching[0].id
            if category is None:
                values["category_id"] = matching[0].category.id
            return
        allowed = tuple(
            d.name if category else f"{d.category.name}: {d.name}"
            for d in references.category_details
            if d.active and category in (None, d.category.id)
        )
        if matching:
            reason = f"{given[:80]!r} is a detail of several categories: name the category too"
        elif category is not None:
            name = references.entries["categories"].by_id[category].name
            reason = f"{given[:80]!r} is not a detail of the category {name}"
        else:
            reason = f"there is no category detail {given[:80]!r}"
        self.problem("category_detail", reason, allowed)
