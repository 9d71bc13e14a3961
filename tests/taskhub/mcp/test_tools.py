"""What the tools answer, over the real ticket service."""

import orjson
import pytest

from taskhub.auth.principal import Caller, Principal
from taskhub.tickets.model import ReferenceKind
from taskhub.tickets.reference_inputs import CHANGE
from taskhub.tickets.service import TicketService
from tests.taskhub.mcp.calling import Tools
from tests.taskhub.mcp.world import ALICE, data_of, text_of


@pytest.fixture
def tools(tickets: TicketService) -> Tools:
    return Tools(tickets)


async def test_a_write_answers_key_version_event_and_position(tools: Tools) -> None:
    created = await tools("create_ticket", summary="x")

    assert created.keys() == {"key", "version", "event_id", "position"}
    assert (created["key"], created["version"]) == ("TH-1", 1)
    assert created["event_id"] == created["position"]


async def test_a_write_that_changes_nothing_says_so(tools: Tools) -> None:
    await tools.create(priority="high")

    answer = await tools("update_ticket", ticket_id="TH-1", priority="high")

    assert answer["noop"] is True
    assert (answer["version"], answer["event_id"]) == (1, None)
    assert "nothing changed" in await tools.text("update_ticket", ticket_id="TH-1", priority="high")


async def test_null_clears_a_field_and_an_absent_one_stays(tools: Tools) -> None:
    await tools.create(remarks="keep", description="drop")

    await tools("update_ticket", ticket_id="TH-1", description=None)

    ticket = await tools.ticket("TH-1")
    assert (ticket["remarks"], ticket["description"]) == ("keep", None)


async def test_a_comment_answers_its_id(tools: Tools) -> None:
    await tools.create()

    answer = await tools("add_ticket_history", ticket_id="TH-1", comment="hello")

    (comment,) = (await tools("get_ticket_detail", ticket_id="TH-1", include="comments"))["comments"]
    assert answer["comment_id"] == comment["id"]


@pytest.mark.parametrize(
    "spelling", ["in_progress", "In Progress", "IN-PROGRESS", "inprogress", "Ｉｎ　Ｐｒｏｇｒｅｓｓ"]
)
async def test_a_status_may_be_spelled_in_many_ways(tools: Tools, spelling: str) -> None:
    await tools.create()

    await tools("update_task_status", task_id="th-1", status=spelling)

    assert (await tools.ticket("TH-1"))["status"]["id"] == "in_progress"


async def test_a_waiting_status_takes_its_reason_from_the_comment_and_needs_one(tools: Tools) -> None:
    await tools.create()

    refused = await tools.error("update_task_status", task_id="TH-1", status="waiting")
    await tools("update_task_status", task_id="TH-1", status="waiting", comment="for the customer")

    assert refused["problems"][0]["parameter"] == "waiting_reason"
    assert "say in comment or waiting_reason what" in refused["message"]
    assert (await tools.ticket("TH-1"))["waiting_reason"] == "for the customer"


async def test_an_unknown_status_is_answered_with_those_there_are(tools: Tools) -> None:
    await tools.create()

    error = await tools.error("update_task_status", task_id="TH-1", status="finito")

    assert (error["code"], error["retryable"]) == ("invalid_input", False)
    assert {"Received", "In Progress", "Completed"} <= set(error["allowed"])


@pytest.mark.parametrize(
    ("phase", "status"),
    [("todo", "Received"), ("active", "In Progress"), ("review", "Verifying"), ("done", "Completed")],
)
async def test_who_names_a_phase_is_told_its_status(tools: Tools, phase: str, status: str) -> None:
    await tools.create()

    for error in (
        await tools.error("update_task_status", task_id="TH-1", status=phase),
        await tools.error("get_ticket_list", status=phase),
    ):
        assert error["problems"][0]["did_you_mean"] == status
        assert f"did you mean {status}?" in error["message"]
    assert (await tools.ticket("TH-1"))["version"] == 1


@pytest.mark.parametrize(
    ("tool", "argument", "instead"),
    [
        ("get_ticket_list", "assignee", "person_in_charge"),
        ("create_ticket", "assignee", "person_in_charge"),
        ("update_ticket", "channel", "request_channel"),
        ("update_ticket", "due", "scheduled_completion_date"),
        ("update_ticket", "body", "comment"),
        ("add_ticket_history", "body", "comment"),
        ("update_task_status", "ticket_id", "task_id"),
        ("get_ticket_detail", "key", "ticket_id"),
    ],
)
async def test_an_argument_under_the_name_of_another_face_gets_its_own_name(
    tools: Tools, tool: str, argument: str, instead: str
) -> None:
    problems = (await tools.error(tool, **{argument: "x"}))["problems"]

    assert next(one for one in problems if one["parameter"] == argument)["did_you_mean"] == instead


async def test_a_ticket_that_is_not_there_hints_at_the_tool_that_lists_them(tools: Tools) -> None:
    assert "get_ticket_list" in (await tools.error("get_ticket_detail", ticket_id="TH-9"))["hint"]


async def test_a_new_ticket_that_waits_needs_a_reason_of_its_own_field(tools: Tools) -> None:
    error = await tools.error("create_ticket", summary="x", status="waiting")

    assert "say in waiting_reason what" in error["message"]


@pytest.mark.parametrize("version", [2, 2**31, 2**70])
async def test_a_version_that_is_still_to_come_is_a_conflict(tools: Tools, version: int) -> None:
    await tools.create()

    error = await tools.error(
        "update_ticket", ticket_id="TH-1", summary="y", expected_version=version, idempotency_key="k"
    )

    assert (error["code"], error["current"]) == ("version_conflict", 1)
    assert "no such version yet" in error["message"]


@pytest.mark.parametrize("name", ["person_in_charge", "account", "status", "phase", "category", "label", "priority"])
async def test_an_empty_list_filters_nothing(tools: Tools, name: str) -> None:
    await tools.create()

    assert await tools.keys(**{name: []}) == ["TH-1"]


async def test_a_label_with_a_comma_is_refused_where_it_is_given_and_where_it_is_asked_for(tools: Tools) -> None:
    for error in (
        await tools.error("create_ticket", summary="x", labels=["a,b"]),
        await tools.error("get_ticket_list", label="a,b"),
    ):
        assert "send several labels as a list" in error["message"]


async def test_a_ticket_that_is_not_there_is_an_error_with_a_hint(tools: Tools) -> None:
    for name, arguments in (
        ("get_ticket_detail", {"ticket_id": "TH-99"}),
        ("update_ticket", {"ticket_id": "TH-99", "remarks": "x"}),
        ("update_task_status", {"task_id": "nonsense", "status": "done"}),
        ("add_ticket_history", {"ticket_id": "TH-0", "comment": "x"}),
    ):
        error = await tools.error(name, **arguments)
        assert error["code"] == "not_found"
        assert "get_ticket_list" in error["hint"]


async def test_text_that_looks_like_json_stays_text(tools: Tools) -> None:
    await tools.create(description='{"a": 1}', remarks="null")

    ticket = await tools.ticket("TH-1")

    assert (ticket["description"], ticket["remarks"]) == ('{"a": 1}', "null")


async def test_a_viewer_reads_and_does_not_write(tickets: TicketService) -> None:
    await Tools(tickets).create()
    viewer = Tools(
        tickets, Caller(Principal("user:vera", "default", frozenset({"tickets:read"}), authenticated=True), "mcp_tool")
    )

    assert await viewer.keys() == ["TH-1"]
    assert (await viewer.error("update_ticket", ticket_id="TH-1", remarks="x"))["code"] == "forbidden"


async def test_a_list_answers_the_position_from_which_the_stream_goes_on(tools: Tools) -> None:
    created = await tools("create_ticket", summary="x")

    assert (await tools("get_ticket_list"))["position"] == created["position"]


async def test_the_text_of_a_list_names_each_ticket_and_the_next_page(tools: Tools) -> None:
    await tools.create("first", person_in_charge="bob", priority="high", scheduled_completion_date="2026-03-04")
    await tools.create("second")

    text = await tools.text("get_ticket_list", sort_by="key", sort_order="asc", limit=1)

    lines = text.splitlines()
    assert lines[:2] == ["1 ticket.", "TH-1 [Received, bob, high, due 2026-03-04] first"]
    assert lines[2].startswith("There are more: cursor ")


async def test_a_table_survives_what_tickets_say(tools: Tools) -> None:
    await tools.create("a | b \\| c\\")

    table = await tools.text("get_ticket_list", format="markdown", fields="summary")

    assert table.splitlines()[2] == "| TH-1 | a \\| b \\\\\\| c\\\\ |"


async def test_columns_that_are_not_there_are_named_with_those_that_are(tools: Tools) -> None:
    error = await tools.error("get_ticket_list", fields=["statis"])

    assert error["problems"][0]["did_you_mean"] == "status"


@pytest.mark.parametrize(
    ("name", "key", "first"),
    [
        ("get_statuses", "statuses", {"id": "received", "name": "Received", "phase": "todo", "is_default": True}),
        ("get_categories", "categories", {"id": "inquiry", "name": "Inquiry"}),
        ("get_request_channels", "request_channels", {"id": "email", "name": "Email"}),
        ("get_accounts", "accounts", {"id": "acme", "name": "Acme"}),
        ("get_response_categories", "response_categories", {"id": "answered", "name": "Answered"}),
        ("get_users", "users", {"id": "alice", "name": "Alice", "role": "manager"}),
        (
            "get_category_details",
            "category_details",
            {"id": "how_to_use", "category": {"id": "inquiry", "name": "Inquiry"}},
        ),
    ],
)
async def test_reference_data_comes_with_ids_and_names(
    tools: Tools, name: str, key: str, first: dict[str, object]
) -> None:
    data = await tools(name)

    assert data.keys() == {key}
    assert first.items() <= data[key][0].items()
    assert data[key][0]["id"] in await tools.text(name)


# ── the cap ──


async def size_of_call(tools: Tools, name: str, **arguments: object) -> int:
    result = await tools.registry.call(ALICE, name, arguments)
    return len(orjson.dumps(data_of(result)).decode()) + len(text_of(result))


async def test_a_long_list_is_cut_and_goes_on_where_it_was_cut(tools: Tools) -> None:
    for number in range(90):
        await tools.create(f"{number:03} " + "長" * 190)

    seen: list[str] = []
    query: dict[str, object] = {"limit": 100, "sort_by": "key", "sort_order": "asc", "format": "full"}
    page = await tools("get_ticket_list", **query)
    assert page["truncated"] is True
    assert "cursor=next_cursor" in page["hint"]
    while True:
        seen += [row["key"] for row in page["tickets"]]
        if page["next_cursor"] is None:
            break
        assert await size_of_call(tools, "get_ticket_list", **query, cursor=page["next_cursor"]) <= 20_000
        page = await tools("get_ticket_list", **query, cursor=page["next_cursor"])

    assert seen == [f"TH-{number}" for number in range(1, 91)]


async def test_a_long_table_is_cut_too(tools: Tools) -> None:
    for _ in range(60):
        await tools.create("長" * 200)

    assert await size_of_call(tools, "get_ticket_list", limit=60, format="markdown") <= 20_000


async def test_a_long_ticket_is_cut_and_says_how_to_get_the_rest(tools: Tools) -> None:
    await tools.create(description="d" * 65_000, remarks="r" * 65_000)
    for number in range(30):
        await tools("update_ticket", ticket_id="TH-1", remarks=f"{number}" * 10_000, comment="c" * 10_000)

    parts = ["history", "comments", "relations", "attachments"]
    found = await tools("get_ticket_detail", ticket_id="TH-1", include=parts, history_limit=100)

    assert await size_of_call(tools, "get_ticket_detail", ticket_id="TH-1", include=parts, history_limit=100) <= 20_000
    assert found["truncated"] is True
    assert "history_limit" in found["hint"]
    assert "/api/v1/tickets/TH-1" in found["hint"]
    assert found["ticket"]["description"].endswith("more characters]")
    assert found["history"][0]["version"] == 31
    assert found["comments"][-1]["body"].startswith("ccc")


async def test_the_newest_comments_and_history_entries_are_the_ones_that_stay(tools: Tools) -> None:
    await tools.create()
    for number in range(120):
        await tools("add_ticket_history", ticket_id="TH-1", comment=f"comment {number} " + "x" * 300)

    found = await tools("get_ticket_detail", ticket_id="TH-1", include=["comments"])

    assert found["truncated"] is True
    assert found["comments"][-1]["body"].startswith("comment 119 ")
    assert 20 < len(found["comments"]) < 120


async def test_a_short_ticket_is_whole(tools: Tools) -> None:
    await tools.create(description="d" * 10_000)

    found = await tools("get_ticket_detail", ticket_id="TH-1")

    assert "truncated" not in found
    assert found["ticket"]["description"] == "d" * 10_000


async def test_a_board_that_is_too_long_is_cut_and_keeps_its_counts(tools: Tools) -> None:
    for number in range(120):
        await tools.create(f"{number} " + "検" * 190, status="in_progress" if number % 3 else "received")

    result = await tools.registry.call(ALICE, "get_board", {"limit": 100})
    data = data_of(result)

    assert len(orjson.dumps(data).decode()) + len(text_of(result)) <= 20_000
    assert data["truncated"] is True
    assert {column["status"]: column["count"] for column in data["columns"] if column["count"]} == {
        "Received": 40, "In Progress": 80,
    }  # fmt: skip
    assert all(len(column["tickets"]) >= 10 for column in data["columns"] if column["count"])
    assert "In Progress 80" in text_of(result)


async def test_events_tell_what_changed_and_go_on_where_they_ended(tools: Tools) -> None:
    await tools.create("one", person_in_charge="bob")
    await tools("update_ticket", ticket_id="TH-1", priority="high", comment="why")

    page = await tools("get_events", after="earliest", limit=1)
    (event,) = (await tools("get_events", after=page["position"]))["events"]

    assert page["more"] is True
    assert event.keys() == {
        "id", "time", "type", "actor", "ticket", "version", "summary", "status", "assignee", "changes",
        "comment", "comment_id", "kind",
    }  # fmt: skip
    assert (event["changes"], event["comment"], event["assignee"]) == ({"priority": ["none", "high"]}, "why", "bob")


async def test_events_that_are_too_long_together_are_pages_without_a_gap(tools: Tools) -> None:
    for number in range(12):
        await tools.create(f"ticket {number}")
        await tools("add_ticket_history", ticket_id="TH-1", comment="長" * (30_000 if number == 3 else 3_000))
    seen, position, more, pages = [], "earliest", True, 0
    while more:
        result = await tools.registry.call(ALICE, "get_events", {"after": position, "limit": 100})
        data = data_of(result)
        assert len(orjson.dumps(data).decode()) + len(text_of(result)) <= 20_000
        seen += [event["id"] for event in data["events"]]
        position, more, pages = data["position"], data["more"], pages + 1

    assert pages > 1
    assert [int(event_id.rpartition("-")[2]) for event_id in seen] == list(range(1, 25))


async def test_what_is_wrong_with_a_request_for_events_is_named(tools: Tools) -> None:
    key = await tools.create()
    epoch = (await tools("get_board"))["position"].partition("-")[0]

    place = await tools.error("get_events", after="whenever")
    name = await tools.error("get_events", filter={"state": "received"})
    value = await tools.error("get_events", filter={"status": "recieved"})
    ahead = await tools.error("get_events", after=f"{epoch}-99")

    assert [problem["parameter"] for problem in place["problems"]] == ["after"]
    assert [problem["parameter"] for problem in name["problems"]] == ["filter/state"]
    assert "Received" in str(value)
    assert (ahead["code"], ahead["position"]) == ("position_expired", f"{epoch}-1")
    assert key == "TH-1"


async def test_a_column_by_another_trackers_name_is_answered_with_ours(tools: Tools) -> None:
    error = await tools.error("get_ticket_list", fields=["key", "status", "title"])

    (problem,) = error["problems"]
    assert (problem["parameter"], problem["did_you_mean"]) == ("fields/2", "summary")
    assert "'title' is not one of the allowed values; did you mean summary?" in error["message"]
    assert {"key", "summary", "assignee"} <= set(error["allowed"])


async def test_what_is_no_longer_in_use_is_not_offered(tools: Tools, tickets: TicketService) -> None:
    detail = (await tools("get_category_details", category="incident"))["category_details"][0]["id"]
    of_each: list[tuple[ReferenceKind, str]] = [
        ("users", "bob"), ("accounts", "acme"), ("category_details", detail), ("statuses", "verifying"),
    ]  # fmt: skip
    for kind, row in of_each:
        await tickets.change_reference(ALICE, kind, row, CHANGE[kind].model_validate({"active": False}))

        rows = (await tools(f"get_{kind}"))[kind]
        assert rows
        assert row not in [each["id"] for each in rows]
