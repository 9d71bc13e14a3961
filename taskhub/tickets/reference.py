"""Reference data of a workspace: users, accounts, categories, statuses, channels, as one value that looks things up."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Final

from sqlalchemy import Connection, select

from broadcaster.filters import UnknownValue, nearest
from taskhub.auth.principal import Principal
from taskhub.storage import schema
from taskhub.storage.names import normalise, slug
from taskhub.storage.transaction import WorkspaceState
from taskhub.tickets.errors import InputProblem
from taskhub.tickets.fields import PRIORITIES
from taskhub.tickets.model import CategoryDetail, Phase, Ref, Reference, ReferenceKind, Status, User

PHASES: Final[tuple[Phase, ...]] = ("todo", "active", "waiting", "review", "done", "cancelled")
CLOSED_PHASES: Final = ("done", "cancelled")
ROLES: Final = ("requester", "agent", "manager", "viewer", "operator")
MAX_ALLOWED: Final = 50
"""How many values an error lists."""

KIND_OF_FILTER: Final[Mapping[str, ReferenceKind]] = {
    "status": "statuses",
    "assignee": "users",
    "requestor": "users",
    "account": "accounts",
    "category": "categories",
    "channel": "request_channels",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A reference row as lookups need it. `phase`: a status's, for suggestions; nothing is found by it."""

    id: str
    name: str
    active: bool
    phase: str | None = None


class UnknownReference(LookupError):
    """No row, or no row that may be used now, goes by this id or name."""

    def __init__(self, reason: str, allowed: tuple[str, ...], did_you_mean: str | None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.allowed = allowed
        self.did_you_mean = did_you_mean

    def problem(self, pointer: str) -> InputProblem:
        return InputProblem(pointer, self.reason, self.allowed, self.did_you_mean)


class UnknownFilterValue(UnknownValue):
    """What a filter names does not exist. `allowed` and `did_you_mean` are names, as people write them."""

    def __init__(self, allowed: Sequence[str], did_you_mean: str | None) -> None:
        super().__init__(allowed)
        self.did_you_mean = did_you_mean


class Entries:
    """The rows of one kind. An id or a name finds one; case, spaces, `_` and `-` make no difference."""

    def __init__(self, entries: Iterable[Entry]) -> None:
        self.by_id = {entry.id: entry for entry in entries}
        self._by_spelling: dict[str, list[Entry]] = {}
        for entry in self.by_id.values():
            for spelling in {normalise(entry.id), normalise(entry.name)}:
                self._by_spelling.setdefault(spelling, []).append(entry)

    def find(self, text: str, *, keeping: str | None = None) -> str:
        """The id of the row that `text` means. Raises UnknownReference.

        An inactive row is refused unless it is `keeping`, the one that the field holds already.
        """
        if (exact := self.by_id.get(text)) is not None and (exact.active or exact.id == keeping):
            return exact.id
        found = self._by_spelling.get(normalise(text), [])
        usable = [entry for entry in found if entry.active or entry.id == keeping]
        if len(usable) == 1:
            return usable[0].id
        if usable:
            ids = tuple(sorted(entry.id for entry in usable))
            raise UnknownReference(f"{text[:80]!r} means several; use one of the ids {', '.join(ids)}", ids, None)
        reason = f"{found[0].name} is no longer in use" if found else f"there is no {text[:80]!r}"
        raise self.unknown(text, reason)

    def known(self, text: str) -> str:
        """Like `find`, for asking and not for setting: inactive rows are found too."""
        if text in self.by_id:
            return text
        found = self._by_spelling.get(normalise(text), [])
        if len(found) == 1:
            return found[0].id
        raise self.unknown(text, f"{text[:80]!r} means several" if found else f"there is no {text[:80]!r}")

    def unknown(self, text: str, reason: str) -> UnknownReference:
        """The error that lists what is allowed."""
        active = [entry for entry in self.by_id.values() if entry.active]
        if not active:
            return UnknownReference(f"{reason}, and none is defined yet", (), None)
        spelled = normalise(text)
        # Who names a phase means a status of it, the first one. What is only close to one is not: `opne` is not `done`.
        instead = next((entry.name for entry in active if entry.phase == spelled), None)
        if instead is None:
            spellings = {normalise(spelling): entry.name for entry in active for spelling in (entry.id, entry.name)}
            close = get_close_matches(spelled, list(spellings)[:2000], n=1, cutoff=0.6)
            instead = spellings[close[0]] if close else None
        return UnknownReference(reason, tuple(entry.name for entry in active[:MAX_ALLOWED]), instead)


@dataclass(frozen=True, slots=True)
class References:
    """All reference data of a workspace at one version of it, each kind in its order."""

    version: int
    users: Sequence[User]
    accounts: Sequence[Reference]
    categories: Sequence[Reference]
    category_details: Sequence[CategoryDetail]
    statuses: Sequence[Status]
    request_channels: Sequence[Reference]
    response_categories: Sequence[Reference]
    entries: Mapping[ReferenceKind, Entries]
    status_by_id: Mapping[str, Status] = field(init=False)
    detail_by_id: Mapping[str, CategoryDetail] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "status_by_id", {status.id: status for status in self.statuses})
        object.__setattr__(self, "detail_by_id", {detail.id: detail for detail in self.category_details})

    def ref(self, kind: ReferenceKind, id: str | None) -> Ref | None:
        """The id with its present name, or alone when the row was removed: that happens to what a ticket once was."""
        if id is None:
            return None
        entry = self.entries[kind].by_id.get(id)
        return Ref(id, id if entry is None else entry.name)

    def phase(self, status_id: str) -> Phase:
        return self.status_by_id[status_id].phase

    def statuses_in(self, phases: Iterable[str]) -> list[str]:
        """The ids of the statuses of these phases."""
        wanted = set(phases)
        return [status.id for status in self.statuses if status.phase in wanted]

    def first_status(self, phase: Phase) -> str | None:
        """The id of the status that stands for a phase: the default one, else the first in use; None without any."""
        found = [s for s in self.statuses if s.phase == phase and s.active]
        return next((s.id for s in found if s.is_default), found[0].id if found else None)

    def default_status(self) -> str:
        """The id of the status that a new ticket gets: the default one, else the first to do."""
        active = [status for status in self.statuses if status.active]
        candidates = [status for status in active if status.is_default] or [s for s in active if s.phase == "todo"]
        return (candidates or active)[0].id

    def me(self, principal: Principal) -> str | None:
        """The id of the principal's row among the users, if it has one."""
        if (user_id := slug(principal.user_id)) in self.entries["users"].by_id:
            return user_id
        try:
            return self.entries["users"].known(principal.user_id)
        except UnknownReference:
            return None


class CallerResolver:
    """Implements broadcaster.filters.Resolver for one caller."""

    def __init__(self, references: References, principal: Principal) -> None:
        self._references = references
        self._principal = principal

    def resolve(self, field: str, value: str) -> str:
        """The id that events carry for `value`. Raises UnknownFilterValue."""
        if field == "actor":
            return self._principal.actor if value == "me" else value
        if (kind := KIND_OF_FILTER.get(field)) is not None:
            return self._resolve_reference(kind, value)
        known: Sequence[str] = {"phase": PHASES, "priority": PRIORITIES}.get(field, ())
        spelled = normalise(value)
        if known and spelled not in known:
            raise UnknownFilterValue(known, nearest(value, known))
        return spelled if known else value

    def _resolve_reference(self, kind: ReferenceKind, value: str) -> str:
        entries = self._references.entries[kind]
        if kind == "users" and value == "me":
            # A caller without a row among the users has no tickets yet; when it gets one, this will be its id.
            return self._references.me(self._principal) or slug(self._principal.user_id)
        try:
            return entries.known(value)
        except UnknownReference as unknown:
            raise UnknownFilterValue(unknown.allowed, unknown.did_you_mean) from None


class ReferenceCache:
    """Reference data of the workspaces in use, read again when its version in the workspace's row has changed."""

    def __init__(self) -> None:
        self._known: dict[str, References] = {}

    def get(self, connection: Connection, workspace: str, state: WorkspaceState) -> References:
        """The reference data that belongs to `state`, which was read in the same transaction and is committed."""
        known = self._known.get(workspace)
        if known is None or known.version != state.references_version:
            known = load(connection, workspace, state.references_version)
            self._known[workspace] = known
        return known


def load(connection: Connection, workspace: str, version: int) -> References:
    """Read all reference data of a workspace."""
    entries: dict[ReferenceKind, Entries] = {}

    def rows(kind: ReferenceKind, order: Callable[[Any], Any], make: Callable[[Any], Any]) -> list[Any]:
        table = schema.METADATA.tables[kind]
        found = connection.execute(select(table).where(table.c.workspace_id == workspace))
        # Sorted here and not by the database, whose collation decides how names compare.
        all_rows = sorted(found.all(), key=lambda row: (order(row), row.id))
        entries[kind] = Entries(Entry(row.id, row.name, row.active, row._mapping.get("phase")) for row in all_rows)
        return [make(row) for row in all_rows]

    def in_order(row: Any) -> int:
        return int(row.order_no)

    def by_name(row: Any) -> str:
        return str(row.name).casefold()

    def plain(row: Any) -> Reference:
        return Reference(row.id, row.name, row.order_no, row.active)

    categories = rows("categories", in_order, plain)
    names = {category.id: category.name for category in categories}
    return References(
        version=version,
        users=rows("users", by_name, lambda r: User(r.id, r.name, r.email, r.kind, r.role, r.active)),
        accounts=rows("accounts", in_order, plain),
        categories=categories,
        category_details=rows(
            "category_details",
            in_order,
            lambda r: CategoryDetail(r.id, Ref(r.category_id, names[r.category_id]), r.name, r.order_no, r.active),
        ),
        statuses=rows(
            "statuses", in_order, lambda r: Status(r.id, r.name, r.order_no, r.phase, r.is_default, r.active)
        ),
        request_channels=rows("request_channels", in_order, plain),
        response_categories=rows("response_categories", in_order, plain),
        entries=entries,
    )
