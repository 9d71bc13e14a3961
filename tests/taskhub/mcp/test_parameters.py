"""Every parameter that a tool accepts has an effect: one case for each, found by walking the schemas."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

import pytest

from taskhub.tickets.service import TicketService
from tests.taskhub.mcp.calling import Tools

Case = Callable[[Tools], Awaitable[None]]
CASES: Final[dict[tuple[str, str], Case]] = {}


def proves(tool: str, *parameters: str) -> Callable[[Case], Case]:
    """Mark a case as the proof that these parameters of this tool have an effect."""

    def mark(case: Case) -> Case:
        for parameter in parameters:
            CASES[tool, parameter] = case
        return case

    return mark


def parameters_of(schema: dict[str, Any], prefix: str = "") -> list[str]:
    """The names of all parameters, those inside of lists of objects as `outer.inner`."""
    found = []
    for name, node in schema["properties"].items():
        found.append(prefix + name)
        inner = node.get("items", {})
        if "properties" in inner:
            found += parameters_of(inner, f"{prefix}{name}.")
    return found


def test_there_is_a_case_for_every_parameter_of_every_tool(tickets: TicketService) -> None:
    registry = Tools(tickets).registry
    accepted = {
        (tool.name, parameter)
        for tool in registry.tools
        for parameter in parameters_of(dict(registry.input_schema(tool.name) or {}))
    }

    assert CASES.keys() == accepted


def _once() -> list[Any]:
    """Each case once, under the names of all that it proves."""
    names: dict[int, list[str]] = {}
    for (tool, parameter), case in CASES.items():
        names.setdefault(id(case), []).append(f"{tool}.{parameter}")
    return [
        pytest.param(case, id=",".join(names[id(case)]))
        for case in {id(case): case for case in CASES.values()}.values()
    ]


# ── fields of create and update ──

# Field → what is given, and what a ticket then shows under the same name.
FIELDS: Final[dict[str, tuple[Any, Any]]] = {
    "summary": ("another summary", "another summary"),
    "description": ("long story", "long story"),
    "reception_at": ("2026-01-02T03:04:05+09:00", "2026-01-01T18:04:05.000Z"),
    "requestor": ("Alice", {"id": "alice", "name": "Alice"}),
    "account": ("ACME", {"id": "acme", "name": "Acme"}),
    "category": ("incident", {"id": "incident", "name": "Incident"}),
    "category_detail": ("Slow Response", {"id": "slow_response", "name": "Slow Response"}),
    "request_channel": ("e-mail", {"id": "email", "name": "Email"}),
    "person_in_charge": ("triage bot", {"id": "triage_bot", "name": "Triage Bot"}),
    "status": ("in-progress", {"id": "in_progress", "name": "In Progress"}),
    "priority": ("urgent", "urgent"),
    "scheduled_completion_date": ("2026-03-04", "2026-03-04"),
    "completion_date": ("2026-03-03", "2026-03-03"),
    "actual_effort_hours": (1.5, 1.5),
    "response_category": ("answered", {"id": "answered", "name": "Answered"}),
    "response_details": ("told them", "told them"),
    "has_defect": (True, True),
    "external_ticket_id": ("EXT-9", "EXT-9"),
    "remarks": ("fragile", "fragile"),
    "waiting_reason": ("the customer", "the customer"),
    "labels": (["b", "a"], ["a", "b"]),
}


def _field_case(tool: str, field: str) -> None:
    given, shown = FIELDS[field]
    extra = {"status": "waiting"} if field == "waiting_reason" else {}

    @proves(tool, field)
    async def case(tools: Tools) -> None:
        if tool == "create_ticket":
            key = await tools.create(**{"summary": "a ticket", field: given, **extra})
        else:
            key = await tools.create()
            await tools("update_ticket", ticket_id=key, **{field: given, **extra})

        assert (await tools.ticket(key))[field] == shown


for _field in FIELDS:
    _field_case("create_ticket", _field)
    _field_case("update_ticket", _field)


@proves("create_ticket", "parent")
async def a_new_ticket_has_its_parent(tools: Tools) -> None:
    parent = await tools.create()

    child = await tools.create(parent=parent.lower())

    assert (await tools.ticket(child))["parent"] == parent


@proves("update_ticket", "parent", "ticket_id")
async def the_named_ticket_gets_a_parent(tools: Tools) -> None:
    parent, child = await tools.create(), await tools.create()

    await tools("update_ticket", ticket_id=child, parent=parent)

    assert (await tools.ticket(child))["parent"] == parent
    assert (await tools.ticket(parent))["parent"] is None


@proves("create_ticket", "attachments", "attachments.file_name", "attachments.url")
async def a_new_ticket_has_its_attachments(tools: Tools) -> None:
    attachment = {"file_name": "log.txt", "url": "https://example.org/log.txt"}

    key = await tools.create(attachments=[attachment])

    (found,) = (await tools("get_ticket_detail", ticket_id=key, include=["attachments"]))["attachments"]
    assert attachment.items() <= found.items()


@proves("create_ticket", "blocked_by")
async def a_new_ticket_is_blocked(tools: Tools) -> None:
    blocker = await tools.create()

    key = await tools.create(blocked_by=[blocker])

    (relation,) = (await tools("get_ticket_detail", ticket_id=key, include=["relations"]))["relations"]
    assert (relation["relation"], relation["ticket"]) == ("blocked_by", blocker)


# ── what writes have in common ──


@proves("update_ticket", "comment")
async def a_change_carries_its_comment(tools: Tools) -> None:
    key = await tools.create()

    await tools("update_ticket", ticket_id=key, remarks="x", comment="because")

    assert await bodies(tools, key) == ["because"]


@proves("update_task_status", "task_id", "status", "comment")
async def a_ticket_moves_to_a_status_with_a_comment(tools: Tools) -> None:
    key = await tools.create()

    await tools("update_task_status", task_id=key, status="In Progress", comment="started")

    assert (await tools.ticket(key))["status"]["id"] == "in_progress"
    assert await bodies(tools, key) == ["started"]


@proves("add_ticket_history", "ticket_id", "comment", "kind")
async def a_comment_has_its_kind(tools: Tools) -> None:
    key = await tools.create()

    await tools("add_ticket_history", ticket_id=key, comment="why?", kind="question")

    (comment,) = (await tools("get_ticket_detail", ticket_id=key, include=["comments"]))["comments"]
    assert (comment["body"], comment["kind"]) == ("why?", "question")


async def bodies(tools: Tools, key: str) -> list[str]:
    found = (await tools("get_ticket_detail", ticket_id=key, include=["comments"]))["comments"]
    return [comment["body"] for comment in found]


WRITES: Final[dict[str, dict[str, Any]]] = {
    "update_ticket": {"ticket_id": "TH-1", "remarks": "x"},
    "update_task_status": {"task_id": "TH-1", "status": "waiting", "comment": "the customer"},
    "add_ticket_history": {"ticket_id": "TH-1", "comment": "hello"},
    "create_ticket": {"summary": "once"},
    "claim_ticket": {"ticket_id": "TH-1"},
}


def _write_cases(tool: str, arguments: dict[str, Any]) -> None:
    @proves(tool, "idempotency_key")
    async def repeated(tools: Tools) -> None:
        await tools.create()

        first = await tools(tool, **arguments, idempotency_key="key-1")
        second = await tools(tool, **arguments, idempotency_key="key-1")

        assert second == {**first, "replayed": True}
        other = {"lease_seconds": 60} if tool == "claim_ticket" else {"remarks": "other"}
        other = {"comment": "other"} if "comment" in arguments else other
        refused = await tools.error(tool, **{**arguments, **other}, idempotency_key="key-1")
        assert refused["code"] == "idempotency_mismatch"

    if tool in ("update_ticket", "update_task_status"):

        @proves(tool, "expected_version")
        async def conflicting(tools: Tools) -> None:
            await tools.create()
            await tools("update_ticket", ticket_id="TH-1", priority="high")

            refused = await tools.error(tool, **arguments, expected_version=1)
            accepted = await tools(tool, **arguments, expected_version=2)

            assert (refused["code"], refused["current"]) == ("version_conflict", 2)
            assert refused["changed"] == {"priority": ["none", "high"]}
            assert accepted["version"] == 3


for _tool, _arguments in WRITES.items():
    _write_cases(_tool, _arguments)


# ── the list ──

# Filter → value → which of the two tickets made below it finds: the rich one, the plain one, or both.
FILTERS: Final[dict[str, list[tuple[Any, set[str]]]]] = {
    "person_in_charge": [("bob", {"rich"}), (["Bob", "none"], {"rich", "plain"}), ("me", set())],
    "account": [("Acme", {"rich"}), (["globex"], set())],
    "status": [("in progress", {"rich"}), (["received", "in_progress"], {"rich", "plain"})],
    "phase": [("active", {"rich"}), (["todo", "active"], {"rich", "plain"})],
    "category": [("incident", {"rich"}), (["inquiry"], set())],
    "label": [("auth", {"rich"}), (["nothing", "auth"], {"rich"})],
    "priority": [("high", {"rich"}), (["high", "none"], {"rich", "plain"})],
    "scheduled_completion_date_from": [("2026-02-01", {"rich"}), ("2026-02-02", set())],
    "scheduled_completion_date_to": [("2026-02-01", {"rich"}), ("2026-01-31", set())],
    "ready": [(True, {"plain"}), (False, {"rich"})],
    "unassigned": [(True, {"plain"}), (False, {"rich"})],
    "query": [("ログイン fails", {"rich"}), ("TH-2", {"plain"})],
    "updated_since": [("2020-01-01T00:00:00Z", {"rich", "plain"}), ("2100-01-01T00:00:00Z", set())],
}


async def two_tickets(tools: Tools) -> dict[str, str]:
    rich = await tools.create(
        "ログイン fails", person_in_charge="bob", account="acme", status="in_progress", category="incident",
        labels=["auth"], priority="high", scheduled_completion_date="2026-02-01",
    )  # fmt: skip
    return {"rich": rich, "plain": await tools.create("a plain one")}


def _filter_case(name: str) -> None:
    @proves("get_ticket_list", name)
    async def filtered(tools: Tools) -> None:
        made = await two_tickets(tools)
        for value, expected in FILTERS[name]:
            assert set(await tools.keys(**{name: value})) == {made[which] for which in expected}, value


for _name in FILTERS:
    _filter_case(_name)


@proves("get_ticket_list", "show_completed")
async def completed_tickets_are_shown_when_asked_for(tools: Tools) -> None:
    await tools.create(status="completed")

    assert await tools.keys() == []
    assert await tools.keys(show_completed=True) == ["TH-1"]


@proves("get_ticket_list", "sort_by", "sort_order")
async def the_order_is_as_asked(tools: Tools) -> None:
    await tools.create(priority="low")
    await tools.create(priority="urgent")
    await tools.create(priority="medium")

    assert await tools.keys(sort_by="priority") == ["TH-2", "TH-3", "TH-1"]
    assert await tools.keys(sort_by="priority", sort_order="asc") == ["TH-1", "TH-3", "TH-2"]


@proves("get_ticket_list", "limit", "cursor")
async def pages_follow_each_other(tools: Tools) -> None:
    for _ in range(3):
        await tools.create()

    first = await tools("get_ticket_list", limit=2, sort_by="key")
    second = await tools("get_ticket_list", limit=2, sort_by="key", cursor=first["next_cursor"])

    assert [row["key"] for row in first["tickets"]] == ["TH-3", "TH-2"]
    assert [row["key"] for row in second["tickets"]] == ["TH-1"]
    assert second["next_cursor"] is None


@proves("get_ticket_list", "fields")
async def the_columns_are_those_asked_for(tools: Tools) -> None:
    await two_tickets(tools)

    data = await tools("get_ticket_list", fields=["person_in_charge", "labels"], label="auth")

    assert data["tickets"] == [{"key": "TH-1", "assignee": "bob", "labels": ["auth"]}]


@proves("get_ticket_list", "format")
async def the_format_is_the_one_asked_for(tools: Tools) -> None:
    await two_tickets(tools)

    (compact,) = (await tools("get_ticket_list", label="auth"))["tickets"]
    (full,) = (await tools("get_ticket_list", label="auth", format="full"))["tickets"]
    table = await tools.text("get_ticket_list", label="auth", format="markdown", fields=["status", "due"])

    assert (compact["status"], compact["assignee"], "account" in compact) == ("In Progress", "bob", False)
    assert full["status"] == {"id": "in_progress", "name": "In Progress"}
    assert full["account"] == {"id": "acme", "name": "Acme"}
    assert table == "| key | status | due |\n|---|---|---|\n| TH-1 | In Progress | 2026-02-01 |"


# ── leases ──

NEXT: Final = sorted(FILTERS.keys() - {"phase", "ready"})
"""The filters by which the next ticket is claimed; what is next is ready, so nobody asks for that."""


def _next_case(name: str) -> None:
    value, expected = ("received", {"rich", "plain"}) if name == "status" else FILTERS[name][0]

    @proves("claim_ticket", name)
    async def next_one(tools: Tools) -> None:
        made = await two_tickets(tools)
        await tools("update_task_status", task_id=made["rich"], status="received")

        # What others were given is only claimed by who asks for it.
        asked = {"person_in_charge": ["bob", "none"], name: value} if name != "unassigned" else {name: value}
        found = {(await tools("claim_ticket", **asked))["key"] for _ in expected}
        nothing = await tools.error("claim_ticket", **asked)

        assert found == {made[which] for which in expected}
        assert nothing["code"] == "nothing_ready"


for _name in NEXT:
    _next_case(_name)


@proves("claim_ticket", "ticket_id", "lease_seconds")
async def the_ticket_named_is_claimed_for_so_long(tools: Tools) -> None:
    await two_tickets(tools)

    short = await tools("claim_ticket", ticket_id="th-1", lease_seconds=60)
    long = await tools("claim_ticket", ticket_id="TH-2", lease_seconds=86_400)
    both = await tools.error("claim_ticket", ticket_id="TH-1", label="auth")

    assert (short["key"], short["lease_token"], long["key"]) == ("TH-1", 1, "TH-2")
    assert short["lease_expires_at"] < long["lease_expires_at"]
    assert (both["code"], both["problems"][0]["parameter"]) == ("invalid_input", "label")


@proves("release_ticket", "ticket_id", "lease_token", "status", "note", "idempotency_key")
async def a_ticket_is_given_back(tools: Tools) -> None:
    key = await tools.create()
    token = (await tools("claim_ticket", ticket_id=key))["lease_token"]
    given = {"ticket_id": key, "lease_token": token, "status": "waiting", "note": "for parts"}

    stale = await tools.error("release_ticket", **{**given, "lease_token": token + 1})
    first = await tools("release_ticket", **given, idempotency_key="k")
    second = await tools("release_ticket", **given, idempotency_key="k")

    ticket = await tools.ticket(key)
    assert stale["code"] == "lease_lost"
    assert (ticket["status"]["id"], ticket["waiting_reason"], ticket["lease"]) == ("waiting", "for parts", None)
    assert await bodies(tools, key) == ["for parts"]
    assert second == {**first, "replayed": True}


@proves("report_progress", "ticket_id", "percent", "note", "lease_token", "idempotency_key")
async def progress_is_reported(tools: Tools) -> None:
    key = await tools.create()
    token = (await tools("claim_ticket", ticket_id=key))["lease_token"]
    given = {"ticket_id": key, "percent": 40, "note": "half", "lease_token": token}

    without = await tools.error("report_progress", ticket_id=key, percent=40)
    first = await tools("report_progress", **given, idempotency_key="k")
    second = await tools("report_progress", **given, idempotency_key="k")

    assert (without["code"], without["holder"], without["changing"]) == ("lease_held", "user:alice", ["progress"])
    assert (await tools.ticket(key))["progress"] == {"percent": 40, "note": "half"}
    assert second == {**first, "replayed": True}


def _token_case(tool: str, arguments: dict[str, Any]) -> None:
    @proves(tool, "lease_token")
    async def held(tools: Tools) -> None:
        await tools.create()
        token = (await tools("claim_ticket", ticket_id="TH-1"))["lease_token"]

        lost = await tools.error(tool, **arguments, lease_token=token + 1)
        await tools(tool, **arguments, lease_token=token)

        assert (lost["code"], lost["holder"]) == ("lease_lost", "user:alice")


for _tool in ("update_ticket", "update_task_status", "add_ticket_history"):
    _token_case(_tool, WRITES[_tool])


# ── relations, deletion, batches ──


@proves("link_tickets", "ticket_id", "relation", "other", "idempotency_key")
async def two_tickets_are_linked(tools: Tools) -> None:
    await tools.create()
    await tools.create()
    given = {"ticket_id": "th-1", "relation": "duplicated_by", "other": "th-2"}

    first = await tools("link_tickets", **given, idempotency_key="k")
    second = await tools("link_tickets", **given, idempotency_key="k")

    assert second == {**first, "replayed": True}
    assert await relations(tools, "TH-1") == [("duplicated_by", "TH-2")]


@proves("unlink_tickets", "ticket_id", "relation", "other", "idempotency_key")
async def two_tickets_are_linked_no_more(tools: Tools) -> None:
    await tools.create()
    await tools.create(blocked_by=["TH-1"])
    await tools("link_tickets", ticket_id="TH-1", relation="related", other="TH-2")
    given = {"ticket_id": "th-2", "relation": "blocked_by", "other": "th-1"}

    first = await tools("unlink_tickets", **given, idempotency_key="k")
    second = await tools("unlink_tickets", **given, idempotency_key="k")

    assert second == {**first, "replayed": True}
    assert await relations(tools, "TH-1") == [("related", "TH-2")]


async def relations(tools: Tools, key: str) -> list[tuple[str, str]]:
    found = (await tools("get_ticket_detail", ticket_id=key, include=["relations"]))["relations"]
    return [(relation["relation"], relation["ticket"]) for relation in found]


@proves("delete_ticket", "ticket_id", "confirm", "expected_version", "idempotency_key")
async def a_ticket_is_deleted(tools: Tools) -> None:
    await tools.create()
    await tools.create()
    given = {"ticket_id": "th-1", "confirm": True}

    unasked = await tools.error("delete_ticket", ticket_id="TH-1")
    stale = await tools.error("delete_ticket", **given, expected_version=2)
    first = await tools("delete_ticket", **given, expected_version=1, idempotency_key="k")
    second = await tools("delete_ticket", **given, expected_version=1, idempotency_key="k")

    assert (unasked["code"], stale["code"]) == ("confirmation_required", "version_conflict")
    assert second == {**first, "replayed": True}
    assert await tools.keys() == ["TH-2"]


@proves("restore_ticket", "ticket_id", "confirm", "expected_version", "idempotency_key")
async def a_ticket_is_restored(tools: Tools) -> None:
    await tools.create()
    await tools("delete_ticket", ticket_id="TH-1", confirm=True)
    given = {"ticket_id": "th-1", "confirm": True}

    unasked = await tools.error("restore_ticket", ticket_id="TH-1")
    stale = await tools.error("restore_ticket", **given, expected_version=1)
    first = await tools("restore_ticket", **given, idempotency_key="k")
    second = await tools("restore_ticket", **given, idempotency_key="k")

    assert unasked["code"] == "confirmation_required"
    assert (stale["code"], stale["current"]) == ("version_conflict", 2)
    assert second == {**first, "replayed": True}
    assert await tools.keys() == ["TH-1"]


@proves("bulk_update_tickets", "items", "items.ticket_id", "atomic", "dry_run", "idempotency_key")
async def many_tickets_are_changed(tools: Tools) -> None:
    await tools.create()
    await tools.create()
    items = [{"ticket_id": key, "priority": "high", "expected_version": 1} for key in ("TH-1", "TH-2", "TH-3")]

    failed = await tools.error("bulk_update_tickets", items=items)
    tried = await tools("bulk_update_tickets", items=items, atomic=False, dry_run=True)
    before = [(await tools.ticket(key))["version"] for key in ("TH-1", "TH-2")]
    first = await tools("bulk_update_tickets", items=items, atomic=False, idempotency_key="k")
    second = await tools("bulk_update_tickets", items=items, atomic=False, idempotency_key="k")

    assert (failed["code"], tried["applied"], before) == ("batch_failed", False, [1, 1])
    assert [result["ok"] for result in first["results"]] == [True, True, False]
    assert second == {**first, "replayed": True}
    assert [(await tools.ticket(key))["version"] for key in ("TH-1", "TH-2")] == [2, 2]


@proves("bulk_update_tickets", "confirm")
async def so_many_tickets_are_changed_once_somebody_said_yes(tools: Tools) -> None:
    items = [{"ticket_id": await tools.create(), "priority": "high"} for _ in range(11)]

    unasked = await tools.error("bulk_update_tickets", items=items)
    changed = await tools("bulk_update_tickets", items=items, confirm=True)

    assert unasked["code"] == "confirmation_required"
    assert changed["applied"]


@proves("undo_batch", "batch_id", "atomic", "idempotency_key")
async def a_batch_is_undone(tools: Tools) -> None:
    items = [{"ticket_id": await tools.create(), "priority": "high"} for _ in range(2)]
    batch_id = (await tools("bulk_update_tickets", items=items))["batch_id"]
    await tools("update_ticket", ticket_id="TH-1", priority="low")

    refused = await tools.error("undo_batch", batch_id=batch_id)
    first = await tools("undo_batch", batch_id=batch_id, atomic=False, idempotency_key="k")
    second = await tools("undo_batch", batch_id=batch_id, atomic=False, idempotency_key="k")

    assert refused["code"] == "undo_conflict"
    assert second == {**first, "replayed": True}
    assert [(await tools.ticket(key))["priority"] for key in ("TH-1", "TH-2")] == ["low", "none"]


@proves("undo_batch", "lease_tokens")
async def a_batch_is_undone_beneath_a_claim(tools: Tools) -> None:
    key = await tools.create()
    batch = await tools("bulk_update_tickets", items=[{"ticket_id": key, "actual_effort_hours": 2}])
    token = (await tools("claim_ticket", ticket_id=key))["lease_token"]

    refused = await tools.error("undo_batch", batch_id=batch["batch_id"])
    await tools("undo_batch", batch_id=batch["batch_id"], lease_tokens={key: token})

    assert [(each["ticket"], each["field"]) for each in refused["conflicts"]] == [(key, "lease")]
    assert (await tools.ticket(key))["actual_effort_hours"] is None


def _linking_token_case(tool: str, arguments: dict[str, Any]) -> None:
    @proves(tool, "lease_token")
    async def held(tools: Tools) -> None:
        await tools.create()
        await tools.create()
        token = (await tools("claim_ticket", ticket_id="TH-1"))["lease_token"]

        lost = await tools.error(tool, ticket_id="TH-1", **arguments, lease_token=token + 1)
        await tools(tool, ticket_id="TH-1", **arguments, lease_token=token)

        assert (lost["code"], lost["holder"]) == ("lease_lost", "user:alice")


for _tool in ("link_tickets", "unlink_tickets"):
    _linking_token_case(_tool, {"relation": "blocks", "other": "TH-2"})
_linking_token_case("delete_ticket", {"confirm": True})


# ── one ticket and reference data ──


@proves("get_ticket_detail", "ticket_id", "include", "history_limit")
async def a_ticket_comes_with_the_parts_asked_for(tools: Tools) -> None:
    key = await tools.create()
    await tools("update_ticket", ticket_id=key, priority="low")
    await tools("update_ticket", ticket_id=key, priority="high")

    bare = await tools("get_ticket_detail", ticket_id=key.lower())
    single = await tools("get_ticket_detail", ticket_id=key, include="comments")
    short = await tools("get_ticket_detail", ticket_id=key, include=["history"], history_limit=2)

    assert bare.keys() == {"ticket"}
    assert single["comments"] == []
    assert [entry["version"] for entry in short["history"]] == [3, 2]


BOARD_FILTERS: Final = (
    "person_in_charge", "account", "category", "label", "priority", "scheduled_completion_date_from",
    "scheduled_completion_date_to",
)  # fmt: skip


async def on_board(tools: Tools, **arguments: Any) -> dict[str, list[str]]:
    columns = (await tools("get_board", **arguments))["columns"]
    return {column["status"]: [row["key"] for row in column["tickets"]] for column in columns if column["count"]}


@proves("get_board", *BOARD_FILTERS)
async def the_board_is_narrowed_as_the_list_is(tools: Tools) -> None:
    made = await two_tickets(tools)
    for name in BOARD_FILTERS:
        for value, expected in FILTERS[name]:
            shown = await on_board(tools, **{name: value})
            assert {key for keys in shown.values() for key in keys} == {made[which] for which in expected}, (
                name,
                value,
            )


@proves("get_board", "as_of", "limit")
async def the_board_shows_so_many_as_it_was_then(tools: Tools) -> None:
    await two_tickets(tools)
    then = (await tools("get_board"))["position"]
    await tools("update_ticket", ticket_id="TH-2", status="in_progress")

    assert await on_board(tools) == {"In Progress": ["TH-2", "TH-1"]}
    assert await on_board(tools, limit=1) == {"In Progress": ["TH-2"]}
    assert await on_board(tools, as_of=then) == {"Received": ["TH-2"], "In Progress": ["TH-1"]}


@proves("get_events", "after", "filter", "limit")
async def events_are_those_after_a_position_that_match(tools: Tools) -> None:
    await two_tickets(tools)
    then = (await tools("get_board"))["position"]
    await tools("update_ticket", ticket_id="TH-2", status="in_progress", comment="go")

    async def seen(**arguments: Any) -> list[tuple[str, str]]:
        return [(event["type"], event["ticket"]) for event in (await tools("get_events", **arguments))["events"]]

    created = [("ticket.created", "TH-1"), ("ticket.created", "TH-2")]
    assert await seen() == []
    assert await seen(after="earliest", limit=2) == created
    assert await seen(after=then) == [("ticket.status_changed", "TH-2")]
    assert await seen(after="earliest", filter={"ticket": "TH-1"}) == created[:1]
    assert await seen(after="earliest", filter={"type": "ticket.created", "assignee": "Bob"}) == created[:1]


@proves("get_events", "wait_seconds")
async def a_wait_ends_with_what_happens(tools: Tools) -> None:
    waiting = asyncio.create_task(tools("get_events", wait_seconds=50))
    made = 0
    while not waiting.done():  # "now" is when the call comes to it: a ticket may be too early, so there are more
        made += 1
        await tools.create(f"ticket {made}")
        await asyncio.wait([waiting], timeout=0.05)

    assert (await waiting)["events"][0]["type"] == "ticket.created"


@proves("get_users", "role")
async def users_of_one_role(tools: Tools) -> None:
    assert [user["id"] for user in (await tools("get_users"))["users"]] == ["alice", "bob", "triage_bot"]
    assert [user["id"] for user in (await tools("get_users", role="manager"))["users"]] == ["alice"]


@proves("get_category_details", "category")
async def details_of_one_category(tools: Tools) -> None:
    every = (await tools("get_category_details"))["category_details"]
    some = (await tools("get_category_details", category="UX improvement"))["category_details"]

    assert [detail["id"] for detail in some] == ["screen_layout", "wording", "accessibility"]
    assert len(every) > len(some)


@pytest.mark.parametrize("case", _once())
async def test_the_parameter_has_its_effect(tickets: TicketService, case: Case) -> None:
    await case(Tools(tickets))
