"""What a subscriber asked for: the filter grammar, and the compiled filter that the hub groups subscribers by.

    type=ticket.*,!ticket.progress & assignee=me & label=urgent,vip

Different names AND together; comma-separated values OR; a leading `!` negates; a trailing `*` is a prefix. Within a
name an event needs one of the positive values (if there are any) and none of the negated ones.
"""

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice
from typing import Final, Literal, Protocol

from broadcaster.errors import BroadcasterError, FieldProblem, InvalidFilter
from broadcaster.event import (
    MAX_SUBJECT_LENGTH,
    MAX_TYPE_LENGTH,
    STATE_FIELDS,
    SYSTEM_TYPES,
    TICKET_TYPES,
    TYPE_PATTERN,
    Event,
    State,
)

Match = Literal["", "enter", "leave", "update"]
"""How an event concerns a filter: "" for a filter without state, else how the ticket moves through that state."""

FILTER_NAMES: Final = ("type", "ticket", "subject", "actor", "origin", "changed", *STATE_FIELDS)
MAX_VALUES: Final = 32

ORIGINS: Final = ("mcp_tool", "rest_api", "dashboard", "system", "import")
TYPE_ALIASES: Final = {"task_updated": ("ticket.updated", "ticket.status_changed", "ticket.assigned")}
CHANGE_FIELDS: Final = (
    "summary", "description", "status", "phase", "assignee", "requestor", "account", "category", "category_detail",
    "channel", "priority", "due", "completion_date", "actual_effort_hours", "reception_at", "response_category",
    "response_details", "has_defect", "external_ticket_id", "remarks", "parent", "waiting_reason", "labels",
    "progress", "lease", "blocked", "relations", "attachments", "deleted",
)  # fmt: skip
"""The names that `changes` of a ticket event can hold."""

NO_VALUE: Final = ""
"""Stands for null among index values: no parameter value is empty, so it cannot be taken for one."""

_KNOWN_TYPES: Final = TICKET_TYPES + SYSTEM_TYPES
# All types under these prefixes are known, so that a misspelt one is a mistake and not a type yet to come.
_CLOSED_PREFIXES: Final = ("ticket.", "reference.", "batch.")
_PEOPLE: Final = ("assignee", "requestor")
_NULLABLE: Final = frozenset({"assignee", "requestor", "account", "category", "channel", "label"})
# Most selective first. The last three hold only without state filters, for a flip is delivered whatever they say.
_INDEX_ORDER: Final = (
    "ticket", "subject", "assignee", "label", "requestor", "account", "category", "status", "channel", "priority",
    "phase",
)  # fmt: skip
_STATELESS_INDEX_ORDER: Final = ("ticket", "subject", "type", "actor", "origin")
# What people who know the ticket model's field names write.
_NAME_HINTS: Final = {"person_in_charge": "assignee", "request_channel": "channel", "ticket_id": "ticket"}
_TICKET_KEY: Final = re.compile(r"[A-Z][A-Z0-9]*-[0-9]+")
_TICKET_KEY_PREFIX: Final = re.compile(r"([A-Z][A-Z0-9]*(-[0-9]*)?)?")
_TYPE_PREFIX: Final = re.compile(r"[a-z0-9_.]*")
# Suggestions are a courtesy: comparing with every one of thousands of users would not be.
_MAX_COMPARED: Final = 2000


class UnknownValue(BroadcasterError):
    """A resolver knows no such value; `allowed` are the ones it knows (possibly the first of many)."""

    def __init__(self, allowed: Sequence[str]) -> None:
        super().__init__("unknown value")
        self.allowed = allowed


class Resolver(Protocol):
    """Turns what people write into the ids that events carry."""

    def resolve(self, field: str, value: str) -> str:
        """The id of a state field's value (`In Progress` → `in_progress`, `me` → the caller's id; a label as it is
        stored), or for field `actor` and value `me` the caller's full actor. Raises UnknownValue."""


@dataclass(frozen=True, slots=True)
class Clause:
    """The values of one name, normalised: equal clauses accept the same values. None stands for null."""

    exact: frozenset[str | None] = frozenset()
    prefixes: tuple[str, ...] = ()
    not_exact: frozenset[str | None] = frozenset()
    not_prefixes: tuple[str, ...] = ()
    _any: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_any", not self.exact and not self.prefixes)

    def accepts(self, value: str | None) -> bool:
        """Whether a field with this one value passes."""
        if value is None:
            return None not in self.not_exact and (self._any or None in self.exact)
        if value in self.not_exact or value.startswith(self.not_prefixes):
            return False
        return self._any or value in self.exact or value.startswith(self.prefixes)

    def accepts_any(self, values: Iterable[str]) -> bool:
        """Whether a field with these values passes: one of them is wanted (if anything is), none is unwanted."""
        wanted = self._any
        for value in values:
            if value in self.not_exact or value.startswith(self.not_prefixes):
                return False
            wanted = wanted or value in self.exact or value.startswith(self.prefixes)
        return wanted

    def describe(self) -> list[str]:
        """The values as one would write them, sorted."""
        texts = [*("none" if v is None else v for v in self.exact), *(f"{p}*" for p in self.prefixes)]
        refused = [*("none" if v is None else v for v in self.not_exact), *(f"{p}*" for p in self.not_prefixes)]
        return sorted(texts) + sorted(f"!{text}" for text in refused)


@dataclass(frozen=True, slots=True)
class Filter:
    """A normalised filter: equal filters pass the same events, whatever the order and repetition they were written in.

    Make one with `parse_filter`. `index` is (field, values): an event can only concern this filter when one of its
    `index_values` for that field is among the values; None when only matching tells.
    """

    clauses: tuple[tuple[str, Clause], ...] = ()
    index: tuple[str, tuple[str, ...]] | None = field(init=False, compare=False)
    _ticket: Clause | None = field(init=False, repr=False, compare=False)
    _subject: Clause | None = field(init=False, repr=False, compare=False)
    _type: Clause | None = field(init=False, repr=False, compare=False)
    _actor: Clause | None = field(init=False, repr=False, compare=False)
    _origin: Clause | None = field(init=False, repr=False, compare=False)
    _changed: Clause | None = field(init=False, repr=False, compare=False)
    _label: Clause | None = field(init=False, repr=False, compare=False)
    _state: tuple[tuple[str, Clause], ...] = field(init=False, repr=False, compare=False)
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        clauses = dict(self.clauses)
        for name in ("ticket", "subject", "type", "actor", "origin", "changed", "label"):
            object.__setattr__(self, f"_{name}", clauses.get(name))
        state = tuple((name, clause) for name, clause in self.clauses if name in STATE_FIELDS and name != "label")
        object.__setattr__(self, "_state", state)
        object.__setattr__(self, "_hash", hash(self.clauses))
        object.__setattr__(self, "index", self._most_selective(clauses))

    def __hash__(self) -> int:
        return self._hash

    @property
    def has_state(self) -> bool:
        """Whether a ticket's state is asked for: then events carry `match`."""
        return bool(self._state) or self._label is not None

    def match(self, event: Event) -> Match | None:
        """How the event concerns this filter; None when it does not."""
        if not self.clauses:
            return ""
        if self._ticket is not None and not self._ticket.accepts(
            event.subject if event.type.startswith("ticket.") else None
        ):
            return None
        if self._subject is not None and not self._subject.accepts(event.subject):
            return None
        if not self.has_state:
            return "" if self._shows(event) else None
        found = self.transition(event.before, event.after)
        # A flip is delivered even where the other names would hide it: a filtered view is never stale.
        return None if found == "update" and not self._shows(event) else found

    def transition(self, before: State | None, after: State | None) -> Match | None:
        """How a ticket moves through the state asked for: enter, leave, update, or None when it is outside before and
        after. None as a state is no ticket. Without state filters the answer is ""."""
        if not self.has_state:
            return ""
        was = before is not None and self._holds(before)
        if after is not None and self._holds(after):
            return "update" if was else "enter"
        return "leave" if was else None

    def matches_ticket(self, key: str, state: State) -> bool:
        """Whether a ticket as it stands belongs to this filter's snapshot: only its key and state count."""
        if self._ticket is not None and not self._ticket.accepts(key):
            return False
        if self._subject is not None and not self._subject.accepts(key):
            return False
        return self._holds(state)

    def describe(self) -> dict[str, list[str]]:
        """Name → values with everything resolved, for `hello` and the operators' page; empty for no filter."""
        return {name: clause.describe() for name, clause in self.clauses}

    def _shows(self, event: Event) -> bool:
        return (
            (self._type is None or self._type.accepts(event.type))
            and (self._actor is None or self._actor.accepts(event.actor))
            and (self._origin is None or self._origin.accepts(event.origin))
            and (self._changed is None or self._changed.accepts_any(event.changes))
        )

    def _holds(self, state: State) -> bool:
        for name, clause in self._state:
            if not clause.accepts(state.get(name)):
                return False
        if self._label is None:
            return True
        labels = state.get("label")
        return self._label.accepts_any(labels) if labels else self._label.accepts(None)

    def _most_selective(self, clauses: Mapping[str, Clause]) -> tuple[str, tuple[str, ...]] | None:
        for name in _INDEX_ORDER if self.has_state else _STATELESS_INDEX_ORDER:
            clause = clauses.get(name)
            if clause is not None and clause.exact and not clause.prefixes:
                values = sorted(NO_VALUE if value is None else value for value in clause.exact)
                return ("subject" if name == "ticket" else name), tuple(values)
        return None


EVERYTHING: Final = Filter()
"""The filter of those who asked for nothing in particular: every event passes."""


def index_values(event: Event, field: str) -> tuple[str, ...]:
    """The values under which filters indexed by `field` are to be looked up for an event: of a state field those before
    and after the change, null as NO_VALUE. Empty when no filter with that index can concern the event."""
    if field == "subject":
        return () if event.subject is None else (event.subject,)
    if field == "type":
        return (event.type,)
    if field == "actor":
        return (event.actor,)
    if field == "origin":
        return (event.origin,)
    found: dict[str, None] = {}
    for state in (event.before, event.after):
        if state is not None:
            value = state.get(field)
            values = (value or (None,)) if field == "label" else (value,)
            found.update(dict.fromkeys(NO_VALUE if v is None else v for v in values))
    return tuple(found)


def nearest(text: str, allowed: Iterable[str]) -> str | None:
    """The allowed value that `text` was most likely meant to be, for `did_you_mean`."""
    by_folded = {value.casefold(): value for value in islice(allowed, _MAX_COMPARED)}
    wanted = text[:MAX_TYPE_LENGTH].casefold()
    close = get_close_matches(wanted, by_folded, n=1)
    if close:
        return by_folded[close[0]]
    # `creat` or `created` for `ticket.created`: too short to be close, but part of it.
    return next((value for folded, value in by_folded.items() if len(wanted) > 2 and wanted in folded), None)


def parse_filter(params: Iterable[tuple[str, str]], resolver: Resolver) -> Filter:
    """Read filter parameters, (name, text) in any order with repeated names appended. Raises InvalidFilter with every
    problem found; a name that is no filter name is one."""
    reader = _Reader(resolver)
    for name, text in params:
        reader.add(name, text)
    if reader.problems:
        raise InvalidFilter(reader.problems)
    return Filter(tuple((name, reader.clause(name)) for name in FILTER_NAMES if name in reader.terms))


@dataclass(frozen=True, slots=True)
class _Term:
    """One value as written: `!TH-4*` is negated, a prefix, with text `TH-4`."""

    text: str
    prefix: bool
    negated: bool

    @classmethod
    def read(cls, written: str) -> "_Term":
        text = written.removeprefix("!")
        return cls(text.removesuffix("*"), text.endswith("*"), text != written)


class _BadValue(Exception):
    """A value that cannot be; `instead` is the whole text of the nearest one that can."""

    def __init__(self, reason: str, instead: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.instead = instead


class _Reader:
    """Collects the terms of each name and everything that is wrong with them."""

    def __init__(self, resolver: Resolver) -> None:
        self.problems: list[FieldProblem] = []
        self.terms: dict[str, list[tuple[_Term, tuple[str | None, ...]]]] = {}
        self._resolver = resolver
        self._count = 0

    def add(self, name: str, text: str) -> None:
        if name not in FILTER_NAMES:
            instead = _NAME_HINTS.get(name) or nearest(name, FILTER_NAMES)
            self.problems.append(FieldProblem(name, "there is no such filter", instead))
            return
        for written in text.split(","):
            self._count += 1
            if self._count > MAX_VALUES:
                if self._count == MAX_VALUES + 1:
                    self.problems.append(FieldProblem(name, f"a filter has at most {MAX_VALUES} values in all"))
                return
            try:
                term = _Term.read(written.strip(" "))
                self.terms.setdefault(name, []).append((term, self._values(name, term)))
            except _BadValue as bad:
                sign = "!" if written.strip(" ").startswith("!") else ""
                instead = None if bad.instead is None else sign + bad.instead
                self.problems.append(FieldProblem(name, bad.reason, instead))

    def clause(self, name: str) -> Clause:
        exact: dict[bool, set[str | None]] = {False: set(), True: set()}
        prefixes: dict[bool, set[str]] = {False: set(), True: set()}
        for term, values in self.terms[name]:
            if term.prefix:
                prefixes[term.negated].update(value for value in values if value is not None)
            else:
                exact[term.negated].update(values)
        return Clause(
            *_without_redundancy(exact[False], prefixes[False]), *_without_redundancy(exact[True], prefixes[True])
        )

    def _values(self, name: str, term: _Term) -> tuple[str | None, ...]:
        """The values or prefixes that a term stands for. Raises _BadValue."""
        if any(character in "\r\n\0" for character in term.text):
            raise _BadValue("must not contain line breaks or NUL")
        if not term.text and not term.prefix:
            raise _BadValue("a value is empty")
        if "*" in term.text:
            raise _BadValue(f"{_shown(term)}: * stands only at the end", term.text.partition("*")[0] + "*")
        if len(term.text) > MAX_SUBJECT_LENGTH:
            raise _BadValue(f"a value has at most {MAX_SUBJECT_LENGTH} characters")
        read = _READERS.get(name)
        return self._state_values(name, term) if read is None else read(term, self._resolver)

    def _state_values(self, name: str, term: _Term) -> tuple[str | None, ...]:
        if term.prefix:
            # Ids are folded when they are made; labels are kept as people write them.
            folded = unicodedata.normalize("NFKC", term.text).casefold()
            return (term.text if name == "label" else folded,)
        if name in _NULLABLE and term.text.casefold() == "none":
            return (None,)
        me = name in _PEOPLE and term.text.casefold() == "me"
        try:
            return (self._resolver.resolve(name, "me" if me else term.text),)
        except UnknownValue as unknown:
            raise _BadValue(f"there is no {name} {_shown(term)}", nearest(term.text, unknown.allowed)) from None


def _without_redundancy(exact: set[str | None], prefixes: set[str]) -> tuple[frozenset[str | None], tuple[str, ...]]:
    """Values and prefixes without those that a prefix covers, so that filters that pass the same events are equal."""
    kept = tuple(sorted(p for p in prefixes if not any(p != other and p.startswith(other) for other in prefixes)))
    return frozenset(value for value in exact if value is None or not value.startswith(kept)), kept


def _shown(term: _Term) -> str:
    """The term's text for a message: printable and short."""
    text = term.text + "*" * term.prefix
    return repr(text if len(text) <= 80 else text[:77] + "...")


def _types(term: _Term, _: Resolver) -> tuple[str, ...]:
    text = term.text
    if term.prefix:
        if not _TYPE_PREFIX.fullmatch(text):
            raise _BadValue(f"{_shown(term)}: types are dotted lower case", "ticket.*")
        if text.startswith(_CLOSED_PREFIXES) and not any(known.startswith(text) for known in _KNOWN_TYPES):
            raise _BadValue(f"no event type begins with {text!r}", nearest(text, _KNOWN_TYPES))
        return (text,)
    if text in TYPE_ALIASES:
        return TYPE_ALIASES[text]
    if text in _KNOWN_TYPES:
        return (text,)
    if not TYPE_PATTERN.fullmatch(text) or len(text) > MAX_TYPE_LENGTH:
        instead = f"{text}.*" if f"{text}." in _CLOSED_PREFIXES else nearest(text, (*_KNOWN_TYPES, *TYPE_ALIASES))
        raise _BadValue(f"{_shown(term)} is no event type: types are dotted lower case", instead)
    if text.startswith(_CLOSED_PREFIXES):
        raise _BadValue(f"there is no event type {_shown(term)}", nearest(text, _KNOWN_TYPES))
    return (text,)


def _tickets(term: _Term, _: Resolver) -> tuple[str, ...]:
    key = term.text.upper()
    if not (_TICKET_KEY_PREFIX if term.prefix else _TICKET_KEY).fullmatch(key):
        number = re.fullmatch(r"([A-Z][A-Z0-9]*?)[ _#]*([0-9]+)", key)
        instead = f"{number[1]}-{number[2]}" if number else None
        raise _BadValue(f"{_shown(term)} is no ticket key; one looks like TH-123", instead)
    return (key,)


def _subjects(term: _Term, _: Resolver) -> tuple[str, ...]:
    return (term.text,)


def _actors(term: _Term, resolver: Resolver) -> tuple[str, ...]:
    if term.prefix:
        return (term.text,)
    if term.text.casefold() == "me":
        return (resolver.resolve("actor", "me"),)
    if ":" not in term.text and term.text != "system":
        raise _BadValue(f"{_shown(term)} is no actor; one looks like user:alice", f"user:{term.text}")
    return (term.text,)


def _one_of(allowed: tuple[str, ...], what: str) -> Callable[[_Term, Resolver], tuple[str, ...]]:
    def read(term: _Term, _: Resolver) -> tuple[str, ...]:
        text = term.text
        if text in allowed or (term.prefix and any(value.startswith(text) for value in allowed)):
            return (text,)
        raise _BadValue(f"there is no {what} {_shown(term)}", nearest(_NAME_HINTS.get(text, text), allowed))

    return read


_READERS: Final[Mapping[str, Callable[[_Term, Resolver], tuple[str | None, ...]]]] = {
    "type": _types,
    "ticket": _tickets,
    "subject": _subjects,
    "actor": _actors,
    "origin": _one_of(ORIGINS, "origin"),
    "changed": _one_of(CHANGE_FIELDS, "field"),
}
"""How the values of each name are read; the names not here are state fields."""

RESOLVED_NAMES: Final = frozenset(FILTER_NAMES) - (_READERS.keys() - {"actor"})
"""Names of which a value can mean something that only a resolver knows."""
