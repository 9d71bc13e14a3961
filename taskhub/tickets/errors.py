"""Errors of the ticket service, named by the condition.

TicketError                 carries `code` (stable, documented), `hint`, `retryable`, and `details()`, its data
├── InvalidInput            one or more fields are wrong; `problems` names each            422 / 400
├── TicketNotFound          no such ticket in this workspace                               404
├── TicketGone              it was deleted                                                 410
├── VersionConflict         changed since the expected version; `current`, `changed`       412
├── LeaseHeld               somebody else has claimed it; `holder`, `expires_at`            409
├── LeaseLost               the lease of this token is over, or another has begun          409
├── NotClaimable            there is nothing left to do on it                              409
├── Blocked                 tickets that must be done first are open; `blockers`           409
├── NothingReady            no ticket that could be claimed next passes the filter         409
├── TakeOverRefused         only a person takes a ticket from its holder                   403
├── TicketCycle             a ticket would block itself, over the tickets of `path`        409
├── BatchNotFound           no such batch in this workspace                                404
├── BatchFailed             nothing of the batch was stored; `result` says why             409
├── AlreadyUndone           the batch was taken back before, by the batch `undone_by`      409
├── UndoConflict            changed since the batch; `conflicts` says by whom              409
├── ReferenceNotFound       no such row of reference data                                  404
├── InUse                   tickets refer to the row; `count`                              409
├── StatusNeeded            without this status tickets could not be worked on             409
├── PositionGone            events after a position cannot be read any more                410
├── Draining                this process is about to end, and gives nobody new work         503
├── RateLimited             more than the caller may do in so short a time; `retry_after_s`  429
├── IdempotencyMismatch     this key was used with another body                            422
└── StorageBusy             the database is locked or away; the same call may work later   503
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

from pydantic import validate_call
from pydantic_core import to_jsonable_python

from taskhub.tickets.model import BatchResult

MAX_LISTED: Final = 20
"""How many allowed values a sentence names; the data beside it names more."""
MAX_CONFLICTS: Final = 5
"""How many reasons a sentence gives; the data beside it gives all."""
_MAX_ECHO: Final = 80
"""Characters of a name that was asked for and is not there."""


def in_words(reason: str, did_you_mean: str | None = None, allowed: Sequence[str] = ()) -> str:
    """What is wrong with a value and what would be right: `there is no 'opne'; did you mean Open? Allowed are …`."""
    text = f"{reason}; did you mean {did_you_mean}?" if did_you_mean else reason
    if not allowed:
        return text
    listed = ", ".join(allowed[:MAX_LISTED]) + (", …" if len(allowed) > MAX_LISTED else "")
    return f"{text} Allowed are {listed}" if did_you_mean else f"{text}; allowed are {listed}"


@dataclass(frozen=True, slots=True)
class InputProblem:
    """What is wrong with one field. `pointer` is a JSON pointer into the input; `allowed` lists the right values."""

    pointer: str
    reason: str
    allowed: tuple[str, ...] = ()
    did_you_mean: str | None = None


class TicketError(Exception):
    """Base of this tree. `str()` is one sentence that may be shown to a caller.

    `data` names what every face tells beside the sentence: attributes, whose names are those of the constructor too.
    """

    code: str = "ticket_error"
    retryable: bool = False
    hint: str | None = None
    data: ClassVar[tuple[str, ...]] = ()

    def details(self) -> dict[str, Any]:
        """The data as JSON values, by name."""
        values: dict[str, Any] = to_jsonable_python({name: getattr(self, name) for name in self.data})
        return values

    @classmethod
    def from_details(cls, sentence: str, details: Mapping[str, Any]) -> Self:
        """The error that was told as `sentence` and `details`. Raises pydantic.ValidationError for what is not that."""
        error = cls.__new__(cls)
        validate_call(cls.__init__)(error, **{name: details[name] for name in cls.data if name in details})
        error.args = (sentence,)
        return error

    def told(self, *, writing: bool) -> tuple[str, str | None]:
        """The sentence and the hint for a caller who wanted to change something, or only to read."""
        return str(self), self.hint


class InvalidInput(TicketError):
    """One or more fields are wrong."""

    code = "invalid_input"

    def __init__(self, problems: Sequence[InputProblem]) -> None:
        super().__init__(
            "; ".join(
                f"{p.pointer.lstrip('/') or 'input'}: {in_words(p.reason, p.did_you_mean, p.allowed)}" for p in problems
            )
        )
        self.problems = list(problems)


class TicketNotFound(TicketError):
    code = "not_found"
    data = ("key",)

    def __init__(self, key: str) -> None:
        self.key = key[:_MAX_ECHO]
        super().__init__(f"there is no ticket {self.key}")


class TicketGone(TicketError):
    """`summary`: of the deleted ticket, so that a person can be asked whether to restore it."""

    code = "deleted"
    data = ("key", "summary")

    def __init__(self, key: str, summary: str = "") -> None:
        super().__init__(f"ticket {key} was deleted")
        self.key = key
        self.summary = summary
        self.hint = "it can be restored"


class VersionConflict(TicketError):
    """`changed`: field → [before, after] since `expected`; `actors` who did it. `more`: both are not all."""

    code = "version_conflict"
    data = ("key", "expected", "current", "changed", "actors")

    def __init__(
        self,
        key: str,
        expected: int,
        current: int,
        changed: Mapping[str, Sequence[Any]],
        actors: Sequence[str],
        *,
        more: bool = False,
    ) -> None:
        by = f"by {', '.join(actors)}" if actors else ""
        what = ", ".join(changed) or ("there and back" if actors and not more else "")
        told = " ".join(filter(None, (what, by))) + (", and more" if more else "")
        why = f"it changed since you read it{f' ({told})' if told else ''}"
        if expected > current:
            why = "it has had no such version yet"
        super().__init__(f"{key} is at version {current}, not {expected}: {why}")
        self.key = key
        self.expected = expected
        self.current = current
        self.changed = dict(changed)
        self.actors = list(actors)
        self.hint = "read the ticket again, then repeat the write with its version"


class LeaseHeld(TicketError):
    """`changing`: what only the holder may change now; empty where the ticket itself was wanted."""

    code = "lease_held"
    data = ("key", "holder", "expires_at", "changing")

    def __init__(self, key: str, holder: str, expires_at: str, changing: Sequence[str] = ()) -> None:
        to_do = "delete it" if "deleted" in changing else f"change {', '.join(changing)}"
        what = f": to {to_do} takes its lease_token" if changing else ""
        super().__init__(f"{key} is claimed by {holder} until {expires_at}{what}")
        self.key = key
        self.holder = holder
        self.expires_at = expires_at
        self.changing = list(changing)
        yours = "if the claim is yours, pass its lease_token; else " if changing else ""
        self.hint = f"{yours}work on another ticket, or tell the holder in a comment; a person may take the ticket over"


class LeaseLost(TicketError):
    """`holder`: who has the ticket now, if anybody."""

    code = "lease_lost"
    data = ("key", "holder")

    def __init__(self, key: str, holder: str | None) -> None:
        now = "nobody holds it" if holder is None else f"it is claimed by {holder} under another one"
        super().__init__(f"this lease_token of {key} counts no more: {now}")
        self.key = key
        self.holder = holder
        self.hint = "stop working on it, or claim it again and read it before you go on"


class NotClaimable(TicketError):
    code = "not_claimable"
    data = ("key", "ticket_status")

    def __init__(self, key: str, ticket_status: str) -> None:
        super().__init__(f"{key} is {ticket_status}: there is nothing left to claim")
        self.key = key
        self.ticket_status = ticket_status
        self.hint = "move it to another status first if there is work to be done on it"


class Blocked(TicketError):
    """`blockers`: the keys of the open tickets that block it."""

    code = "blocked"
    data = ("key", "blockers")

    def __init__(self, key: str, blockers: Sequence[str]) -> None:
        named = ", ".join(blockers[:MAX_LISTED]) + (", …" if len(blockers) > MAX_LISTED else "")
        super().__init__(f"{key} waits for {named}")
        self.key = key
        self.blockers = list(blockers)
        self.hint = "finish what blocks it first, or claim another ticket"


class NothingReady(TicketError):
    code = "nothing_ready"
    retryable = True

    def __init__(self) -> None:
        super().__init__("no ticket that passes the filter is ready to be claimed")
        self.hint = "ask with a wider filter, or again when a ticket was created, released or unblocked"


class TakeOverRefused(TicketError):
    code = "take_over_refused"
    data = ("actor",)

    def __init__(self, actor: str) -> None:
        super().__init__(f"only a person may take a ticket over from its holder, and {actor} is none")
        self.actor = actor
        self.hint = "claim without take_over, or ask the holder in a comment to release the ticket"


class TicketCycle(TicketError):
    """`path`: keys, each blocking the next; it ends where it begins."""

    code = "cycle"
    data = ("path",)

    def __init__(self, path: Sequence[str]) -> None:
        super().__init__(f"{path[0]} cannot block {path[1]}, which blocks it already: {' → '.join(path)}")
        self.path = list(path)
        self.hint = "unlink one of these first, or link them the other way round"


class BatchNotFound(TicketError):
    code = "no_such_batch"
    data = ("batch_id",)

    def __init__(self, batch_id: str) -> None:
        self.batch_id = batch_id[:_MAX_ECHO]
        super().__init__(f"there is no batch {self.batch_id}")
        self.hint = "the answer to a bulk update names its batch_id, such as b-k7q2m4xaw3ud"


class BatchFailed(TicketError):
    """`result`: what became of each item, though nothing of it was stored."""

    code = "batch_failed"
    data = ("result",)

    def __init__(self, result: BatchResult) -> None:
        failed = [f"{item.key}: {item.error.message}" for item in result.results if item.error is not None]
        listed = "; ".join(failed[:MAX_CONFLICTS])
        more = f"; and {len(failed) - MAX_CONFLICTS} more" if len(failed) > MAX_CONFLICTS else ""
        super().__init__(f"nothing was changed, since {len(failed)} of {len(result.results)} failed: {listed}{more}")
        self.result = result
        self.hint = "correct or leave out what failed" + (", or repeat with atomic: false" if result.atomic else "")


class AlreadyUndone(TicketError):
    code = "already_undone"
    data = ("batch_id", "undone_by")

    def __init__(self, batch_id: str, undone_by: str) -> None:
        super().__init__(f"batch {batch_id} was undone already, by {undone_by}")
        self.batch_id = batch_id
        self.undone_by = undone_by
        self.hint = f"undo {undone_by} to have the changes back"


@dataclass(frozen=True, slots=True)
class Conflict:
    """Why a batch cannot be undone for a ticket: what was done to `field` since then, in words, by whom and when."""

    ticket: str
    field: str
    actor: str | None
    time: str | None
    reason: str


class UndoConflict(TicketError):
    code = "undo_conflict"
    data = ("batch_id", "conflicts")

    def __init__(self, batch_id: str, conflicts: Sequence[Conflict]) -> None:
        listed = "; ".join(conflict.reason for conflict in conflicts[:MAX_CONFLICTS])
        more = f"; and {len(conflicts) - MAX_CONFLICTS} more" if len(conflicts) > MAX_CONFLICTS else ""
        super().__init__(f"batch {batch_id} was not undone: {listed}{more}")
        self.batch_id = batch_id
        self.conflicts = list(conflicts)
        self.hint = "look at these tickets; atomic: false undoes the others"


class ReferenceNotFound(TicketError):
    code = "not_found"
    data = ("kind", "id")

    def __init__(self, kind: str, id: str) -> None:
        self.kind = kind
        self.id = id[:_MAX_ECHO]
        super().__init__(f"there is no {self.id!r} among the {kind.replace('_', ' ')}")
        self.hint = "rows are named by their ids here"


class InUse(TicketError):
    """`count` of what refers to the row."""

    code = "in_use"
    data = ("id", "count")

    def __init__(self, kind: str, id: str, count: int, why: str, *, users: str = "tickets") -> None:
        one = users[:-1] if count == 1 else users
        super().__init__(f"{id} is used by {count} {one}, so {why}")
        self.kind = kind
        self.id = id
        self.count = count
        self.hint = "set active to false, and it is offered no more"


class StatusNeeded(TicketError):
    """There would be no status left for one of the phases that work goes through."""

    code = "status_needed"


class PositionGone(TicketError):
    """Events after `requested` cannot be read (see broadcaster.errors.CannotContinue); `position` is where to go on."""

    code = "position_expired"
    data = ("position",)

    def __init__(self, position: str, sentence: str = "events after this position cannot be read any more") -> None:
        super().__init__(sentence)
        self.position = position
        self.hint = f"read the tickets again, then go on with after={position}"


class Draining(TicketError):
    """Whoever claims a ticket goes on to work with a server that stays."""

    code = "draining"
    retryable = True

    def __init__(self) -> None:
        super().__init__("this server is shutting down and lets nobody claim a ticket; nothing was changed")
        self.hint = "try again in a few seconds: another instance, or this one's successor, will answer"


class IdempotencyMismatch(TicketError):
    code = "idempotency_mismatch"

    def __init__(self) -> None:
        super().__init__("this idempotency key was used before with other arguments")
        self.hint = "use a new key for a new request, and the same key only to repeat the same one"


class RateLimited(TicketError):
    """More than the caller may do in so short a time. `setting` names the limit, for whoever operates the server."""

    code = "rate_limited"
    retryable = True
    data = ("limit", "setting", "retry_after_s")

    def __init__(self, limit: str, setting: str, retry_after_s: float) -> None:
        super().__init__(f"{limit} ({setting})")
        self.limit = limit
        self.setting = setting
        self.retry_after_s = retry_after_s
        self.hint = f"wait {retry_after_s:g} s, then do the same again"

    def told(self, *, writing: bool) -> tuple[str, str | None]:
        return (f"{self}; nothing was changed" if writing else str(self)), self.hint


class StorageBusy(TicketError):
    """`uncertain`: the connection broke while committing, so the change may have been made.

    It does not know whether anything was to be changed; `told` does.
    """

    code = "storage_busy"
    retryable = True

    def __init__(self, reason: str = "the database is busy or away", *, uncertain: bool = False) -> None:
        super().__init__(f"{reason}; the change may have been made" if uncertain else reason)
        self.uncertain = uncertain
        self.hint = "try again in a few seconds"

    def told(self, *, writing: bool) -> tuple[str, str | None]:
        if not writing:
            return str(self), self.hint
        sentence = str(self) if self.uncertain else f"{self}; nothing was changed"
        return sentence, f"{self.hint}, with the same idempotency key"
