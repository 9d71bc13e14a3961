"""The tools as a client sees them: a list within its budget, and no parameter without an effect."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Final

import pytest
from mcp.client.client import Client

from tests.e2e.harness.clients import MODERN, Api, api, call, call_failing, in_a_task_of_its_own, mcp_http
from tests.e2e.harness.process import TaskHubProcess
from tests.e2e.harness.streams import record
from tests.e2e.harness.waiting import until

GIVEN: Final = (
    "get_ticket_list", "get_ticket_detail", "create_ticket", "update_ticket", "update_task_status",
    "add_ticket_history", "get_users", "get_accounts", "get_categories", "get_category_details", "get_statuses",
    "get_request_channels",
)  # fmt: skip
READING: Final = {
    name for name in (*GIVEN, "get_response_categories", "get_board", "get_events") if name.startswith("get_")
}
MAX_LIST_BYTES: Final = 24_000


@pytest.fixture
async def demo(module_hub: TaskHubProcess) -> TaskHubProcess:
    """A server with the example data, which does not change by itself any more."""
    if not module_hub.running:
        first = TaskHubProcess(module_hub.data_dir, "--demo", name="first")
        try:
            await first.start()
            async with api(first.url) as client:
                await until(client.all_tickets, "example tickets")
            await first.stop()
        finally:
            first.dispose()
        await module_hub.start()
    return module_hub


@pytest.fixture
async def client(demo: TaskHubProcess) -> AsyncIterator[Client]:
    async with in_a_task_of_its_own(mcp_http(demo.url)) as client:
        yield client


@dataclass(frozen=True, slots=True)
class References:
    """Ids and names of the example data to refer to: of each kind two that differ."""

    users: list[dict[str, Any]]
    accounts: list[dict[str, Any]]
    categories: list[dict[str, Any]]
    details: list[dict[str, Any]]
    channels: list[dict[str, Any]]
    responses: list[dict[str, Any]]


@pytest.fixture
async def known(demo: TaskHubProcess) -> References:
    async with api(demo.url) as client:

        async def items(path: str) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = (await client.get(f"/api/v1/{path}"))["items"]
            return found

        return References(
            users=await items("users"),
            accounts=await items("accounts"),
            categories=await items("categories"),
            details=await items("category-details"),
            channels=await items("request-channels"),
            responses=await items("response-categories"),
        )


@pytest.mark.parametrize("mode", ["legacy", MODERN])
async def test_the_list_of_tools_is_one_page_within_its_budget_in_a_fixed_order(
    demo: TaskHubProcess, mode: str
) -> None:
    async with mcp_http(demo.url, mode) as client:
        page = await client.list_tools()
        again = await client.list_tools(cache_mode="refresh") if mode == MODERN else await client.list_tools()

    names = [tool.name for tool in page.tools]
    assert page.next_cursor is None
    assert names == [tool.name for tool in again.tools]
    assert set(GIVEN) <= set(names)
    encoded = json.dumps(
        [tool.model_dump(by_alias=True, exclude_none=True) for tool in page.tools],
        separators=(",", ":"),  # as it goes over the wire
        ensure_ascii=False,
    )
    assert len(encoded.encode()) <= MAX_LIST_BYTES, len(encoded)
    for tool in page.tools:
        hints = tool.annotations
        assert hints is not None, tool.name
        given = [hints.read_only_hint, hints.destructive_hint, hints.idempotent_hint, hints.open_world_hint]
        assert None not in given, f"{tool.name}: {given}"
        assert hints.read_only_hint == (tool.name in READING), tool.name
        assert tool.input_schema["additionalProperties"] is False, tool.name
        assert tool.description, tool.name
        assert tool.output_schema is not None, tool.name


# What each field of a ticket is set to, and how the ticket then shows it. A function looks up example data.
def fields(known: References) -> dict[str, tuple[Any, Any]]:
    def ref(row: dict[str, Any]) -> tuple[str, dict[str, str]]:
        return row["name"].upper(), {"id": row["id"], "name": row["name"]}

    detail = known.details[0]
    return {
        "summary": ("Another summary", "Another summary"),
        "description": ("Long\ntext", "Long\ntext"),
        "reception_at": ("2026-01-02T03:04:05+09:00", "2026-01-01T18:04:05.000Z"),
        "requestor": ref(known.users[0]),
        "account": ref(known.accounts[0]),
        "category": ref(known.categories[1]),
        "category_detail": (detail["id"], {"id": detail["id"], "name": detail["name"]}),
        "request_channel": ref(known.channels[0]),
        "person_in_charge": ref(known.users[1]),
        "status": ("IN-PROGRESS", {"id": "in_progress", "name": "In Progress"}),
        "priority": ("urgent", "urgent"),
        "scheduled_completion_date": ("2031-02-03", "2031-02-03"),
        "completion_date": ("2031-02-04", "2031-02-04"),
        "actual_effort_hours": (1.5, 1.5),
        "response_category": ref(known.responses[0]),
        "response_details": ("Answered", "Answered"),
        "has_defect": (True, True),
        "external_ticket_id": ("JIRA-7", "JIRA-7"),
        "remarks": ("Remark", "Remark"),
        "parent": ("TH-1", "TH-1"),
        "waiting_reason": ("for parts", "for parts"),
        "labels": (["one", "two"], ["one", "two"]),
    }


def beside(field: str, known: References) -> dict[str, Any]:
    """What else must be said for a field to be accepted."""
    if field == "category_detail":
        return {"category": known.details[0]["category"]["id"]}
    if field == "completion_date":
        return {"status": "completed"}
    if field == "waiting_reason":
        return {"status": "waiting"}
    return {}


FIELDS: Final = (
    "summary", "description", "reception_at", "requestor", "account", "category", "category_detail",
    "request_channel", "person_in_charge", "status", "priority", "scheduled_completion_date", "completion_date",
    "actual_effort_hours", "response_category", "response_details", "has_defect", "external_ticket_id", "remarks",
    "parent", "waiting_reason", "labels",
)  # fmt: skip
LIST_FILTERS: Final = (
    "person_in_charge", "account", "status", "phase", "category", "label", "priority",
    "scheduled_completion_date_from", "scheduled_completion_date_to", "show_completed", "ready", "unassigned", "query",
    "updated_since",
)  # fmt: skip
CLAIM_FILTERS: Final = tuple(name for name in LIST_FILTERS if name not in ("phase", "show_completed", "ready"))
TESTED: Final = {
    "get_ticket_list": {*LIST_FILTERS, "sort_by", "sort_order", "limit", "cursor", "fields", "format"},
    "get_ticket_detail": {"ticket_id", "include", "history_limit"},
    "create_ticket": {*FIELDS, "attachments", "blocked_by", "idempotency_key"},
    "update_ticket": {*FIELDS, "ticket_id", "comment", "expected_version", "lease_token", "idempotency_key"},
    "update_task_status": {"task_id", "status", "comment", "expected_version", "lease_token", "idempotency_key"},
    "add_ticket_history": {"ticket_id", "comment", "kind", "lease_token", "idempotency_key"},
    "claim_ticket": {*CLAIM_FILTERS, "ticket_id", "lease_seconds", "idempotency_key"},
    "release_ticket": {"ticket_id", "lease_token", "status", "note", "idempotency_key"},
    "report_progress": {"ticket_id", "lease_token", "percent", "note", "idempotency_key"},
    "get_users": {"role"},
    "get_category_details": {"category"},
    "get_accounts": set[str](),
    "get_categories": set[str](),
    "get_statuses": set[str](),
    "get_request_channels": set[str](),
    "get_response_categories": set[str](),
    "get_board": {
        "person_in_charge",
        "account",
        "category",
        "label",
        "priority",
        "scheduled_completion_date_from",
        "scheduled_completion_date_to",
        "as_of",
        "limit",
    },
    "get_events": {"after", "filter", "limit", "wait_seconds"},
    "link_tickets": {"ticket_id", "relation", "other", "lease_token", "idempotency_key"},
    "unlink_tickets": {"ticket_id", "relation", "other", "lease_token", "idempotency_key"},
    "delete_ticket": {"ticket_id", "confirm", "expected_version", "lease_token", "idempotency_key"},
    "restore_ticket": {"ticket_id", "confirm", "expected_version", "idempotency_key"},
    "bulk_update_tickets": {"items", "atomic", "dry_run", "confirm", "idempotency_key"},
    "undo_batch": {"batch_id", "atomic", "lease_tokens", "idempotency_key"},
}
"""Tool → the parameters whose effect the tests below show."""


async def test_every_parameter_that_a_tool_accepts_is_tested_below(client: Client) -> None:
    listed = {tool.name: set(tool.input_schema.get("properties", {})) for tool in (await client.list_tools()).tools}

    assert listed == TESTED


async def ticket_of(client: Client, key: str) -> dict[str, Any]:
    ticket: dict[str, Any] = (await call(client, "get_ticket_detail", ticket_id=key))["ticket"]
    return ticket


@pytest.mark.parametrize("field", FIELDS)
async def test_a_field_given_to_create_or_update_is_what_the_ticket_shows(
    client: Client, known: References, field: str
) -> None:
    given, shown = fields(known)[field]
    arguments = {**beside(field, known), field: given}
    made = await call(client, "create_ticket", **{"summary": f"Created with {field}", **arguments})
    plain = await call(client, "create_ticket", summary=f"Updated with {field}")
    before = await ticket_of(client, plain["key"])
    changed = await call(client, "update_ticket", ticket_id=plain["key"], **arguments)
    repeated = await call(client, "update_ticket", ticket_id=plain["key"], **arguments)

    assert before[field] != shown
    assert (await ticket_of(client, made["key"]))[field] == shown
    assert (await ticket_of(client, plain["key"]))[field] == shown
    assert changed["version"] == 2
    assert (repeated["noop"], repeated["version"], repeated["event_id"]) == (True, 2, None)


async def test_attachments_blockers_and_comments_given_to_a_write_are_kept(client: Client) -> None:
    blocker = await call(client, "create_ticket", summary="First this")
    attachment = {"file_name": "log.txt", "url": "https://example.org/log.txt"}
    made = await call(
        client, "create_ticket", summary="Then that", attachments=[attachment], blocked_by=[blocker["key"]]
    )
    await call(client, "update_ticket", ticket_id=made["key"], priority="low", comment="not so urgent")
    parts = ["history", "comments", "relations", "attachments"]
    detail = await call(client, "get_ticket_detail", ticket_id=made["key"], include=parts)
    bare = await call(client, "get_ticket_detail", ticket_id=made["key"])
    newest = await call(client, "get_ticket_detail", ticket_id=made["key"], include=["history"], history_limit=1)

    assert [(a["file_name"], a["url"]) for a in detail["attachments"]] == [(attachment["file_name"], attachment["url"])]
    assert [(r["relation"], r["ticket"]) for r in detail["relations"]] == [("blocked_by", blocker["key"])]
    assert [c["body"] for c in detail["comments"]] == ["not so urgent"]
    assert [h["type"] for h in detail["history"]] == ["ticket.updated", "ticket.created"]
    assert len(newest["history"]) == 1
    assert not any(bare.get(part) for part in parts)


async def test_a_status_is_set_with_a_comment_and_against_an_expected_version(client: Client) -> None:
    made = await call(client, "create_ticket", summary="Moves")
    key = made["key"]
    moved = await call(client, "update_task_status", task_id=key, status="Verifying", comment="have a look")
    stale = await call_failing(client, "update_task_status", task_id=key, status="done", expected_version=1)
    fresh = await call(client, "update_task_status", task_id=key, status="completed", expected_version=moved["version"])
    stale_update = await call_failing(client, "update_ticket", ticket_id=key, priority="low", expected_version=1)
    detail = await call(client, "get_ticket_detail", ticket_id=key, include=["comments", "history"])

    assert (stale["code"], stale["current"]) == ("version_conflict", 2)
    assert (stale_update["code"], stale_update["current"]) == ("version_conflict", 3)
    assert fresh["version"] == 3
    assert [c["body"] for c in detail["comments"]] == ["have a look"]
    assert detail["ticket"]["completion_date"] is not None


@pytest.mark.parametrize("spelling", ["in_progress", "In Progress", "in-progress", "INPROGRESS", " in progress "])
async def test_every_spelling_of_a_status_is_understood(client: Client, spelling: str) -> None:
    made = await call(client, "create_ticket", summary="Spelt")
    await call(client, "update_task_status", task_id=made["key"], status=spelling)

    assert (await ticket_of(client, made["key"]))["status"]["id"] == "in_progress"


async def test_history_entries_have_the_kind_and_text_given(client: Client) -> None:
    made = await call(client, "create_ticket", summary="Discussed")
    for kind in ("note", "question", "answer", "decision"):
        await call(client, "add_ticket_history", ticket_id=made["key"], comment=f"A {kind}", kind=kind)
    detail = await call(client, "get_ticket_detail", ticket_id=made["key"], include=["comments"])

    kinds = {c["body"]: c["kind"] for c in detail["comments"]}
    assert kinds == {"A note": "note", "A question": "question", "A answer": "answer", "A decision": "decision"}
    assert detail["ticket"]["version"] == 1


async def test_an_idempotency_key_makes_a_repeated_write_take_effect_once(client: Client, demo: TaskHubProcess) -> None:
    async with record(demo.url) as stream:
        await stream.wait_ready()
        made = await call(client, "create_ticket", summary="Once", idempotency_key="create-1")
        key = made["key"]
        writes: list[tuple[str, dict[str, Any]]] = [
            ("create_ticket", {"summary": "Once", "idempotency_key": "create-1"}),
            ("update_ticket", {"ticket_id": key, "remarks": "x", "idempotency_key": "update-1"}),
            ("update_task_status", {"task_id": key, "status": "done", "idempotency_key": "status-1"}),
            ("add_ticket_history", {"ticket_id": key, "comment": "x", "idempotency_key": "history-1"}),
        ]
        writes[1][1]["remarks"] = "only once"
        writes[2][1]["status"] = "completed"
        for tool, arguments in writes:
            first = await call(client, tool, **arguments)
            second = await call(client, tool, **arguments)

            assert second["replayed"] is True, tool
            assert (second["key"], second["version"], second["event_id"]) == (
                first["key"], first["version"], first["event_id"],
            )  # fmt: skip
        end = await call(client, "create_ticket", summary="The end")
        await stream.wait_id(end["event_id"])

        assert [e["type"] for e in stream.events] == [
            "ticket.created", "ticket.updated", "ticket.status_changed", "ticket.commented", "ticket.created",
        ]  # fmt: skip


@pytest.fixture
async def shelf(client: Client, known: References) -> dict[str, str]:
    """Three tickets that differ in everything a list can ask for; name → key."""
    common = await call(client, "get_ticket_list", label="shelf", show_completed=True, sort_by="key", sort_order="asc")
    keys = [row["key"] for row in common["tickets"]]
    if not keys:
        left = await call(
            client, "create_ticket", summary="The left zebra", labels=["shelf", "left"], status="in_progress",
            person_in_charge=known.users[0]["id"], account=known.accounts[0]["id"],
            category=known.categories[0]["id"], priority="urgent", scheduled_completion_date="2030-01-10",
        )  # fmt: skip
        right = await call(
            client, "create_ticket", summary="The right giraffe", labels=["shelf"], priority="low",
            account=known.accounts[1]["id"], category=known.categories[1]["id"],
            scheduled_completion_date="2030-03-10",
        )  # fmt: skip
        closed = await call(client, "create_ticket", summary="Closed", labels=["shelf"], status="completed")
        keys = [left["key"], right["key"], closed["key"]]
    return dict(zip(("left", "right", "closed"), keys, strict=True))


@pytest.mark.parametrize("parameter", LIST_FILTERS)
async def test_each_filter_of_the_list_narrows_or_widens_it_as_it_says(
    client: Client, known: References, shelf: dict[str, str], parameter: str
) -> None:
    right = await ticket_of(client, shelf["right"])
    cases: dict[str, list[tuple[Any, set[str]]]] = {
        "person_in_charge": [(known.users[0]["name"], {"left"}), ("none", {"right"})],
        "account": [([known.accounts[0]["name"]], {"left"})],
        "status": [("In Progress", {"left"}), (["received", "in_progress"], {"left", "right"})],
        "phase": [("todo", {"right"})],
        "category": [(known.categories[1]["id"], {"right"})],
        "label": [("left", {"left"})],
        "priority": [(["urgent", "high"], {"left"})],
        "scheduled_completion_date_from": [("2030-02-01", {"right"})],
        "scheduled_completion_date_to": [("2030-02-01", {"left"})],
        "show_completed": [(True, {"left", "right", "closed"})],
        "ready": [(True, {"right"}), (False, {"left"})],
        "unassigned": [(True, {"right"}), (False, {"left"})],
        "query": [("ZEBRA left", {"left"}), ("the", {"left", "right"})],
        "updated_since": [(right["updated_at"], {"right"})],
    }
    everything = await listed(client, shelf)
    for value, expected in cases[parameter]:
        found = await listed(client, shelf, **{parameter: value})

        assert found == expected, f"{parameter}={value}"
    assert everything == {"left", "right"}


async def listed(client: Client, shelf: dict[str, str], **arguments: Any) -> set[str]:
    """The names of the shelf's tickets that a list with these arguments shows."""
    page = await call(client, "get_ticket_list", **{"label": "shelf", **arguments})
    names = {key: name for name, key in shelf.items()}
    return {names[row["key"]] for row in page["tickets"]}


async def test_order_limit_cursor_columns_and_format_of_the_list_are_as_asked(
    client: Client, shelf: dict[str, str]
) -> None:
    async def order(**arguments: Any) -> list[str]:
        page = await call(client, "get_ticket_list", label="shelf", **arguments)
        return [row["key"] for row in page["tickets"]]

    left, right = shelf["left"], shelf["right"]
    assert await order(sort_by="priority", sort_order="desc") == [left, right]
    assert await order(sort_by="priority", sort_order="asc") == [right, left]
    assert await order(sort_by="due", sort_order="asc") == [left, right]
    assert await order(sort_by="key", sort_order="desc") == [right, left]
    first = await call(client, "get_ticket_list", label="shelf", sort_by="key", sort_order="asc", limit=1)
    rest = await call(
        client, "get_ticket_list", label="shelf", sort_by="key", sort_order="asc", limit=1, cursor=first["next_cursor"]
    )
    assert [row["key"] for page in (first, rest) for row in page["tickets"]] == [left, right]
    assert rest["next_cursor"] is None

    narrow = await call(client, "get_ticket_list", label="shelf", fields=["summary", "phase"])
    full = await call(client, "get_ticket_list", label="shelf", format="full")
    table = await client.call_tool("get_ticket_list", {"label": "shelf", "format": "markdown"})
    assert [set(row) for row in narrow["tickets"]] == [{"key", "summary", "phase"}] * 2
    assert all(isinstance(row["status"], dict) for row in full["tickets"])
    assert "|" in table.content[0].text  # type: ignore[union-attr]  # a text block, or it fails
    assert left in table.content[0].text  # type: ignore[union-attr]  # as above


async def test_reference_tools_narrow_by_role_and_category(client: Client, known: References) -> None:
    roles = {user["role"] for user in known.users}
    assert len(roles) > 1, "the examples have users of one role only"
    for role in sorted(roles):
        found = await call(client, "get_users", role=role)
        assert {u["id"] for u in found["users"]} == {u["id"] for u in known.users if u["role"] == role}
    category = known.categories[0]
    details = await call(client, "get_category_details", category=category["name"])
    everything = await call(client, "get_category_details")

    wanted = {d["id"] for d in known.details if d["category"]["id"] == category["id"]}
    assert {d["id"] for d in details["category_details"]} == wanted
    assert len(everything["category_details"]) == len(known.details) > len(wanted)


@pytest.mark.parametrize("kind", ["accounts", "categories", "statuses", "request_channels", "response_categories"])
async def test_reference_tools_without_parameters_give_what_rest_gives(
    client: Client, demo: TaskHubProcess, kind: str
) -> None:
    async with api(demo.url) as rest:
        items = await reference_ids(rest, kind)
    found = await call(client, f"get_{kind}")

    assert [row["id"] for row in found[kind]] == items
    assert items


async def reference_ids(rest: Api, kind: str) -> list[str]:
    return [row["id"] for row in (await rest.get(f"/api/v1/{kind.replace('_', '-')}"))["items"]]


@pytest.mark.parametrize("parameter", CLAIM_FILTERS)
async def test_each_filter_of_a_claim_narrows_what_is_next(client: Client, known: References, parameter: str) -> None:
    # The value → what the ticket that passes has; the other one has none of it, or what is said.
    user, account, category = known.users[0], known.accounts[0], known.categories[0]
    cases: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
        "person_in_charge": (user["name"], {"person_in_charge": user["id"]}, {}),
        "account": ([account["name"]], {"account": account["id"]}, {}),
        "status": ("received", {}, {"status": "in_progress"}),
        "category": (category["id"], {"category": category["id"]}, {}),
        "label": ("wanted", {"labels": ["claim label", "wanted"]}, {}),
        "priority": (["low"], {"priority": "low"}, {"priority": "urgent"}),
        "scheduled_completion_date_from": ("2030-02-01", {"scheduled_completion_date": "2030-02-01"}, {}),
        "scheduled_completion_date_to": ("2030-02-01", {"scheduled_completion_date": "2030-02-01"}, {}),
        "unassigned": (True, {}, {"person_in_charge": user["id"]}),
        "query": ("okapi", {"summary": "An okapi"}, {}),
        "updated_since": ("2026-01-01T00:00:00Z", {}, {"status": "in_progress"}),
    }
    value, passing, other = cases[parameter]
    common = {"summary": "Claim me", "labels": [f"claim {parameter}"]}
    await call(client, "create_ticket", **{**common, **other})
    made = await call(client, "create_ticket", **{**common, **passing})
    asked = {"label": f"claim {parameter}", parameter: value}
    claimed = await call(client, "claim_ticket", **asked)
    nothing = await call_failing(client, "claim_ticket", **asked)

    assert claimed["key"] == made["key"]
    assert nothing["code"] == "nothing_ready"
    if parameter == "updated_since":
        await call(client, "create_ticket", **common)
        assert (await call_failing(client, "claim_ticket", **{**asked, parameter: "2100-01-01T00:00:00Z"}))["code"]


async def test_a_ticket_is_claimed_worked_on_and_given_back(client: Client) -> None:
    key = (await call(client, "create_ticket", summary="Work on me"))["key"]
    claim = {"ticket_id": key, "lease_seconds": 3600, "idempotency_key": "claim-1"}
    claimed = await call(client, "claim_ticket", **claim)
    again = await call(client, "claim_ticket", **claim)
    held = await call_failing(client, "claim_ticket", ticket_id=key)
    token = claimed["lease_token"]
    mine = {"ticket_id": key, "lease_token": token}
    report = {**mine, "percent": 40, "note": "half", "idempotency_key": "report-1"}
    release = {**mine, "status": "waiting", "note": "for parts", "idempotency_key": "release-1"}
    for tool, arguments in (
        ("update_ticket", {**mine, "has_defect": True}),
        ("update_task_status", {"task_id": key, "lease_token": token, "status": "in progress"}),
        ("add_ticket_history", {**mine, "comment": "started"}),
        ("report_progress", report),
        ("release_ticket", release),
    ):
        zombie = {**arguments, "lease_token": token + 1, "idempotency_key": f"zombie-{tool}"}
        assert (await call_failing(client, tool, **zombie))["code"] == "lease_lost", tool
        await call(client, tool, **arguments)
    repeated = [await call(client, "report_progress", **report), await call(client, "release_ticket", **release)]
    detail = await call(client, "get_ticket_detail", ticket_id=key, include=["lease", "comments"])

    assert (again["lease_token"], again["replayed"]) == (token, True)
    assert held["code"] == "lease_held"
    assert held["expires_at"] == claimed["lease_expires_at"]
    assert [answer["replayed"] for answer in repeated] == [True, True]
    assert detail["lease"] == {"holder": None, "acquired_at": None, "expires_at": None, "expiries": 0}
    assert detail["ticket"]["progress"] == {"percent": 40, "note": "half"}
    assert detail["ticket"]["waiting_reason"] == "for parts"
    assert [comment["body"] for comment in detail["comments"]] == ["started", "for parts"]


async def test_tickets_are_linked_deleted_and_had_back(client: Client) -> None:
    first, second = [(await call(client, "create_ticket", summary=summary))["key"] for summary in ("First", "Second")]
    token = (await call(client, "claim_ticket", ticket_id=first))["lease_token"]
    stale = {"lease_token": token + 1}
    link = {"ticket_id": first, "relation": "blocks", "other": second}
    refused = [await call_failing(client, tool, **link, **stale) for tool in ("link_tickets", "unlink_tickets")]
    linked = [await call(client, "link_tickets", **link, lease_token=token, idempotency_key="l") for _ in range(2)]
    blocked = (await ticket_of(client, second))["blocked"]
    freed = [await call(client, "unlink_tickets", **link, lease_token=token, idempotency_key="u") for _ in range(2)]
    gone = {"ticket_id": first, "confirm": True}
    asked = [await call_failing(client, "delete_ticket", ticket_id=first, lease_token=token)]
    refused.append(await call_failing(client, "delete_ticket", **gone, **stale))
    conflict = await call_failing(client, "delete_ticket", **gone, lease_token=token, expected_version=1)
    deleted = [await call(client, "delete_ticket", **gone, lease_token=token, idempotency_key="d") for _ in range(2)]
    missing = await call_failing(client, "get_ticket_detail", ticket_id=first)
    asked.append(await call_failing(client, "restore_ticket", ticket_id=first))
    restored = [await call(client, "restore_ticket", **gone, idempotency_key="r") for _ in range(2)]

    assert {answer["code"] for answer in refused} == {"lease_lost"}
    assert {answer["code"] for answer in asked} == {"confirmation_required"}
    assert (conflict["code"], missing["code"]) == ("version_conflict", "deleted")
    for answers in (linked, freed, deleted, restored):
        assert [answer.get("replayed", False) for answer in answers] == [False, True]
    assert (blocked, (await ticket_of(client, second))["blocked"]) == (True, False)
    assert (await ticket_of(client, first))["summary"] == "First"


async def test_many_tickets_change_together_and_back(client: Client) -> None:
    keys = [(await call(client, "create_ticket", summary=f"One of three {n}"))["key"] for n in range(3)]
    urgent = [{"ticket_id": key, "priority": "urgent"} for key in keys]
    tried = await call(client, "bulk_update_tickets", items=urgent, dry_run=True)
    spoiled = [*urgent[:2], {"ticket_id": keys[2], "status": "no such status"}]
    failed = await call_failing(client, "bulk_update_tickets", items=spoiled)
    untouched = [(await ticket_of(client, key))["priority"] for key in keys]
    made = [
        await call(client, "bulk_update_tickets", items=spoiled, atomic=False, idempotency_key="b") for _ in range(2)
    ]
    changed = [(await ticket_of(client, key))["priority"] for key in keys]
    await call(client, "update_ticket", ticket_id=keys[0], priority="low")
    conflict = await call_failing(client, "undo_batch", batch_id=made[0]["batch_id"])
    undone = [
        await call(client, "undo_batch", batch_id=made[0]["batch_id"], atomic=False, idempotency_key="x")
        for _ in range(2)
    ]

    assert (tried["applied"], failed["code"], conflict["code"]) == (False, "batch_failed", "undo_conflict")
    assert untouched == ["none"] * 3
    assert changed == ["urgent", "urgent", "none"]
    assert [(await ticket_of(client, key))["priority"] for key in keys] == ["low", "none", "none"]
    for answers in (made, undone):
        assert [answer.get("replayed", False) for answer in answers] == [False, True]
