"""/api/v1: tickets and reference data. The rules of tickets are tested with the service; here it is their HTTP."""

from typing import Any

import pytest

from tests.routes.conftest import Hub


def slug(text: str) -> str:
    """A suggestion may be an id or a name: both are accepted."""
    return text.casefold().replace(" ", "_")


async def patch(hub: Hub, key: str, change: dict[str, Any], **headers: str) -> Any:
    return await hub.request("PATCH", f"/api/v1/tickets/{key}", json=change, headers=headers)


async def test_a_created_ticket_says_where_it_is_and_which_version(hub: Hub) -> None:
    answer = await hub.post("/api/v1/tickets", {"summary": "Printer", "labels": ["vip"], "status": "In Progress"})
    read = await hub.get(answer.headers["Location"])

    assert answer.status == 201
    assert answer.headers["Location"] == f"/api/v1/tickets/{answer.json['key']}"
    assert answer.headers["ETag"] == '"1"'
    assert answer.headers["TaskHub-Position"] == answer.json["event_id"]
    assert read.json["ticket"]["summary"] == "Printer"
    assert read.json["ticket"]["status"] == {"id": "in_progress", "name": "In Progress"}
    assert read.headers["ETag"] == '"1"'
    assert read.json["history"] is None


async def test_a_list_has_a_position_from_which_listening_misses_nothing(hub: Hub) -> None:
    await hub.create("One")
    answer = await hub.get("/api/v1/tickets")
    await hub.create("Two")
    async with hub.stream(**{"Last-Event-ID": answer.headers["TaskHub-Position"]}) as stream:
        frames = await stream.caught_up()
        events = [frame.data["data"]["ticket"]["summary"] for frame in frames if frame.event == "message"]

    assert [ticket["summary"] for ticket in answer.json["tickets"]] == ["One"]
    assert answer.json["position"] == answer.headers["TaskHub-Position"]
    assert events == ["Two"]


async def test_lists_are_filtered_by_commas_and_repetition(hub: Hub) -> None:
    for status in ("received", "in_progress", "completed"):
        await hub.create(status, status=status)
    commas = await hub.get("/api/v1/tickets?status=received,completed&show_completed=1&sort_by=key&sort_order=asc")
    repeated = await hub.get(
        "/api/v1/tickets?status=received&status=completed&show_completed=true&sort_by=key&sort_order=asc"
    )

    assert [ticket["summary"] for ticket in commas.json["tickets"]] == ["received", "completed"]
    assert repeated.json["tickets"] == commas.json["tickets"]


async def test_pages_follow_each_other_and_a_cursor_belongs_to_its_filter(hub: Hub) -> None:
    for number in range(3):
        await hub.create(f"{number}")
    first = await hub.get("/api/v1/tickets?limit=2&sort_by=key&sort_order=asc")
    cursor = first.json["next_cursor"]
    second = await hub.get(f"/api/v1/tickets?limit=2&sort_by=key&sort_order=asc&cursor={cursor}")
    foreign = await hub.get(f"/api/v1/tickets?limit=2&sort_by=key&sort_order=asc&status=received&cursor={cursor}")
    tampered = await hub.get(f"/api/v1/tickets?limit=2&sort_by=key&sort_order=asc&cursor={cursor[:-3]}xyz")

    assert [t["summary"] for t in (*first.json["tickets"], *second.json["tickets"])] == ["0", "1", "2"]
    assert second.json["next_cursor"] is None
    for refused in (foreign, tampered):
        assert (refused.status, refused.code, list(refused.named)) == (400, "bad_parameter", ["cursor"])


@pytest.mark.parametrize(
    ("query", "parameter", "instead"),
    [
        ("statuss=received", "statuss", "status"),
        ("status=recieved", "status", "received"),
        ("assignee=alice", "assignee", "person_in_charge"),
        ("due=2026-11-20", "due", "scheduled_completion_date_to"),
        ("labels=vip", "labels", "label"),
        ("search=vip", "search", "query"),
        ("phase=doing", "phase", None),
        ("limit=0", "limit", None),
        ("limit=-1", "limit", None),
        ("limit=101", "limit", None),
        ("limit=1e9", "limit", None),
        ("limit=1000000000", "limit", None),
        ("limit=1&limit=2", "limit", None),
        ("sort_by=colour", "sort_by", None),
        ("priority=hihg", "priority", "high"),
        ("scheduled_completion_date_from=tomorrow", "scheduled_completion_date_from", None),
        ("updated_since=x", "updated_since", None),
        ("show_completed=perhaps", "show_completed", None),
        ("cursor=nonsense", "cursor", None),
        ("cursor=" + "x" * 1001, "cursor", None),
        ("query=" + "x" * 201, "query", None),
        ("query=", "query", None),
    ],
)
async def test_a_wrong_parameter_of_a_list_is_named(hub: Hub, query: str, parameter: str, instead: str | None) -> None:
    answer = await hub.get(f"/api/v1/tickets?{query}")

    assert (answer.status, answer.code) == (400, "bad_parameter")
    assert list(answer.named) == [parameter]
    if instead is not None:
        assert slug(answer.named[parameter]["did_you_mean"]) == instead


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/summary"),
        ({"summary": ""}, "/summary"),
        ({"summary": "x" * 201}, "/summary"),
        ({"summary": None}, "/summary"),
        ({"summary": "x", "statuss": "received"}, "/statuss"),
        ({"summary": "x", "status": "recieved"}, "/status"),
        ({"summary": "x", "status": 7}, "/status"),
        ({"summary": "x", "priority": "hihg"}, "/priority"),
        ({"summary": "x", "actual_effort_hours": -1}, "/actual_effort_hours"),
        ({"summary": "x", "description": "x" * 65_537}, "/description"),
        ({"summary": "x", "labels": ["a", ""]}, "/labels/1"),
        ({"summary": "x", "attachments": [{"file_name": "a", "url": "javascript:alert(1)"}]}, "/attachments/0/url"),
        ({"summary": "x", "attachments": [{"file_name": "a", "url": "http://b", "a/b~": 1}]}, "/attachments/0/a~1b~0"),
        ({"summary": "x", "scheduled_completion_date": "31.12.2026"}, "/scheduled_completion_date"),
        ({"summary": "x", "blocked_by": ["TH-999"]}, "/blocked_by/0"),
    ],
)
async def test_a_wrong_field_of_a_body_is_named_by_a_pointer(hub: Hub, body: dict[str, Any], pointer: str) -> None:
    answer = await hub.post("/api/v1/tickets", body)

    assert (answer.status, answer.code) == (422, "invalid_input")
    assert list(answer.named) == [pointer]
    assert (await hub.get("/api/v1/tickets")).json["tickets"] == []


@pytest.mark.parametrize(
    ("method", "field", "instead"),
    [
        ("POST", "assignee", "person_in_charge"),
        ("PATCH", "assignee", "person_in_charge"),
        ("PATCH", "channel", "request_channel"),
        ("PATCH", "due", "scheduled_completion_date"),
        ("PATCH", "body", "comment"),
        ("POST", "body", "description"),
        ("PATCH", "titel", None),
    ],
)
async def test_a_field_under_the_name_of_another_face_gets_its_own_name(
    hub: Hub, method: str, field: str, instead: str | None
) -> None:
    key = (await hub.create("One"))["key"]
    path = "/api/v1/tickets" if method == "POST" else f"/api/v1/tickets/{key}"
    answer = await hub.request(method, path, json={"summary": "x", field: "alice"})

    assert (answer.status, list(answer.named)) == (422, [f"/{field}"])
    assert answer.named[f"/{field}"].get("did_you_mean") == instead
    assert instead is None or answer.json["detail"].endswith(f"did you mean {instead}?")


async def test_a_comment_under_another_name_gets_its_own_name(hub: Hub) -> None:
    key = (await hub.create("One"))["key"]
    answer = await hub.post(f"/api/v1/tickets/{key}/comments", {"body": "hello"})

    assert answer.named["/body"]["did_you_mean"] == "comment"


async def test_a_ticket_that_is_not_there_hints_at_the_address_of_the_list(hub: Hub) -> None:
    hint = (await hub.get("/api/v1/tickets/TH-9")).json["hint"]

    assert "GET /api/v1/tickets " in hint
    assert "get_ticket_list" not in hint


async def test_an_unknown_status_lists_those_there_are(hub: Hub) -> None:
    fault = (await hub.post("/api/v1/tickets", {"summary": "x", "status": "recieved"})).named["/status"]

    assert slug(fault["did_you_mean"]) == "received"
    assert {"received", "in_progress", "completed"} <= {slug(allowed) for allowed in fault["allowed"]}


async def test_the_detail_of_a_problem_says_what_would_be_right(hub: Hub) -> None:
    named = (await hub.get("/api/v1/tickets?statsu=received")).json["detail"]
    listed = (await hub.get("/api/v1/tickets?status=opne")).json["detail"]
    both = (await hub.get("/api/v1/tickets?priority=hihg")).json["detail"]

    assert named == "statsu: there is no such parameter; did you mean status?"
    assert listed.startswith("status: there is no 'opne'; allowed are Received, In Progress, ")
    assert both.endswith("; did you mean high? Allowed are none, low, medium, high, urgent")


async def test_if_match_guards_a_change_and_says_what_changed_meanwhile(hub: Hub) -> None:
    key = (await hub.create("One"))["key"]
    first = await patch(hub, key, {"priority": "high"}, **{"If-Match": '"1"'})
    late = await patch(hub, key, {"priority": "low"}, **{"If-Match": '"1"'})

    assert (first.status, first.headers["ETag"], first.json["version"]) == (200, '"2"', 2)
    assert (late.status, late.code, late.headers["ETag"]) == (412, "version_conflict", '"2"')
    assert (late.json["current"], late.json["expected"]) == (2, 1)
    assert late.json["changed"] == {"priority": ["none", "high"]}
    assert (await hub.get(f"/api/v1/tickets/{key}")).json["ticket"]["priority"] == "high"


async def test_without_if_match_or_with_a_star_any_version_is_changed(hub: Hub) -> None:
    key = (await hub.create("One"))["key"]

    assert (await patch(hub, key, {"priority": "high"})).status == 200
    assert (await patch(hub, key, {"priority": "low"}, **{"If-Match": "*"})).status == 200


@pytest.mark.parametrize(
    ("given", "instead"),
    [('W/"1"', '"1"'), ("1", '"1"'), ('"1", "2"', None), ('"x"', None), ("", None), ('"-1"', None), ('"1e3"', None),
     ("'1'", None), ('"99999999999"', None)],
)  # fmt: skip
async def test_a_malformed_if_match_is_refused(hub: Hub, given: str, instead: str | None) -> None:
    key = (await hub.create("One"))["key"]
    answer = await patch(hub, key, {"priority": "high"}, **{"If-Match": given})

    assert (answer.status, answer.code) == (400, "bad_header")
    assert answer.named["If-Match"].get("did_you_mean") == instead
    assert (await hub.get(f"/api/v1/tickets/{key}")).json["ticket"]["version"] == 1


async def test_the_same_idempotency_key_creates_once(hub: Hub) -> None:
    headers = {"Idempotency-Key": "k-1"}
    first = await hub.post("/api/v1/tickets", {"summary": "One"}, headers=headers)
    again = await hub.post("/api/v1/tickets", {"summary": "One"}, headers=headers)
    other = await hub.post("/api/v1/tickets", {"summary": "Two"}, headers=headers)

    assert again.json == {**first.json, "replayed": True}
    assert (again.status, again.headers["Location"]) == (201, first.headers["Location"])
    assert (other.status, other.code) == (422, "idempotency_mismatch")
    assert len((await hub.get("/api/v1/tickets")).json["tickets"]) == 1


async def test_comments_and_history_are_resources_of_a_ticket(hub: Hub) -> None:
    key = (await hub.create("One"))["key"]
    added = await hub.post(f"/api/v1/tickets/{key}/comments", {"comment": "Why?", "kind": "question"})
    await patch(hub, key, {"status": "in_progress"})
    comments = (await hub.get(f"/api/v1/tickets/{key}/comments")).json["items"]
    history = (await hub.get(f"/api/v1/tickets/{key}/history")).json["items"]
    detail = (await hub.get(f"/api/v1/tickets/{key}?include=history,comments&history_limit=1")).json

    assert (added.status, added.json["comment_id"]) == (201, comments[0]["id"])
    assert [(comment["body"], comment["kind"]) for comment in comments] == [("Why?", "question")]
    assert [entry["type"] for entry in history] == ["ticket.status_changed", "ticket.commented", "ticket.created"]
    assert [entry["type"] for entry in detail["history"]] == ["ticket.status_changed"]
    assert detail["comments"] == comments


async def test_comments_are_read_from_the_newest_back_a_page_at_a_time(hub: Hub) -> None:
    key = (await hub.create("One"))["key"]
    for number in range(5):
        await hub.post(f"/api/v1/tickets/{key}/comments", {"comment": str(number)})

    newest = (await hub.get(f"/api/v1/tickets/{key}/comments?limit=2")).json["items"]
    before = (await hub.get(f"/api/v1/tickets/{key}/comments?limit=4&before={newest[0]['id']}")).json["items"]
    wrong = await hub.get(f"/api/v1/tickets/{key}/comments?limit=101&before=x")

    assert [comment["body"] for comment in newest] == ["3", "4"]
    assert [comment["body"] for comment in before] == ["0", "1", "2"]
    assert (wrong.code, set(wrong.named)) == ("bad_parameter", {"limit", "before"})


@pytest.mark.parametrize("path", ["", "/comments", "/history"])
@pytest.mark.parametrize("key", ["TH-999", "TH-999999999999999999999", "nonsense", "x" * 300, "%F0%9F%98%80"])
async def test_a_ticket_that_is_not_there_is_not_found(hub: Hub, key: str, path: str) -> None:
    answer = await hub.get(f"/api/v1/tickets/{key}{path}")

    assert (answer.status, answer.code) == (404, "not_found")


@pytest.mark.parametrize("query", ["include=everything", "history_limit=0", "history_limit=501", "includ=history"])
async def test_a_wrong_parameter_of_a_detail_is_named(hub: Hub, query: str) -> None:
    key = (await hub.create("One"))["key"]
    answer = await hub.get(f"/api/v1/tickets/{key}?{query}")

    assert (answer.status, answer.code) == (400, "bad_parameter")
    assert [name.partition("=")[0] for name in (query,)] == list(answer.named)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("statuses", "received"),
        ("categories", "incident"),
        ("category-details?category=Incident", None),
        ("request-channels", "email"),
        ("users", None),
        ("users?role=agent", None),
        ("accounts", None),
        ("response-categories", None),
    ],
)
async def test_reference_data_are_lists_of_items(hub: Hub, path: str, expected: str | None) -> None:
    answer = await hub.get(f"/api/v1/{path}")
    ids = [item["id"] for item in answer.json["items"]]

    assert answer.status == 200
    assert expected is None or expected in ids


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("statuses?active=1", "active"),
        ("users?role=boss", "role"),
        ("users?rol=agent", "rol"),
        ("category-details?category=nonsense", "category"),
    ],
)
async def test_a_wrong_parameter_of_reference_data_is_named(hub: Hub, path: str, parameter: str) -> None:
    answer = await hub.get(f"/api/v1/{path}")

    assert (answer.status, answer.code, list(answer.named)) == (400, "bad_parameter", [parameter])
