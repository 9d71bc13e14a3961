"""Bad input gets the documented answer that names what is wrong, changes nothing, and never an error of the server."""

import io
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from mcp.shared.exceptions import MCPError

from tests.e2e.harness.clients import MODERN, Answer, Api, call, call_failing, mcp_http
from tests.e2e.harness.process import TaskHubProcess
from tests.e2e.harness.streams import record


@dataclass(frozen=True, slots=True)
class Bad:
    """A bad request, and the problem it gets: status, code, the part that is named, and the suggestion."""

    request: str
    status: int
    code: str
    names: str | None = None
    suggests: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.request[:60]} {str(self.options)[:60]}"


def bad_stream(query: str, names: str, suggests: str | None = None) -> Bad:
    return Bad(f"GET /events/stream?{query}", 400, "bad_parameter", names, suggests)


def bad_list(query: str, names: str, suggests: str | None = None) -> Bad:
    return Bad(f"GET /api/v1/tickets?{query}", 400, "bad_parameter", names, suggests)


def bad_event(names: str, **event: Any) -> Bad:
    body = {"type": "build.finished", "data": {}, **event}
    return Bad("POST /events", 422, "invalid_input", f"/{names}", options={"json": body})


def bad_ticket(names: str, **fields: Any) -> Bad:
    body = {"summary": "Not to be made", **fields}
    return Bad("POST /api/v1/tickets", 422, "invalid_input", f"/{names}", options={"json": body})


def raw(body: bytes, content_type: str = "application/json") -> dict[str, Any]:
    return {"body": body, "headers": {"Content-Type": content_type}}


STREAM = [
    bad_stream("statuss=done", "statuss", "status"),
    bad_stream("status=in_progres", "status", "In Progress"),
    bad_stream("status=", "status"),
    bad_stream("phase=doing", "phase"),
    bad_stream("type=ticket.updatedd", "type", "ticket.updated"),
    bad_stream("origin=mcp", "origin"),
    bad_stream("changed=statuss", "changed", "status"),
    bad_stream("type=" + ",".join(f"build.n{n}" for n in range(33)), "type"),
    bad_stream("since=yesterday", "since"),
    bad_stream("heartbeat=4", "heartbeat"),
    bad_stream("heartbeat=61", "heartbeat"),
    bad_stream("heartbeat=often", "heartbeat"),
    bad_stream("batch=-1", "batch"),
    bad_stream("batch=2001", "batch"),
    bad_stream("batch_max=501", "batch_max"),
    bad_stream("batch_max=0", "batch_max"),
    bad_stream("coalesce=user", "coalesce"),
    bad_stream("snapshot=maybe", "snapshot"),
    bad_stream("names=maybe", "names"),
    bad_stream("errors=loud", "errors"),
    bad_stream("limit=0", "limit"),
    bad_stream("limit=-1", "limit"),
    bad_stream("limit=1e9", "limit"),
    bad_stream("timeout=-1", "timeout"),
    Bad("GET /events/stream?type=build." + "x" * 5000, 414, "query_too_long"),
    Bad("GET /events/stream", 406, "not_acceptable", options={"headers": {"Accept": "image/png"}}),
    Bad("GET /api/v1/events?wait=51", 400, "bad_parameter", "wait"),
    Bad("GET /api/v1/events?limit=0", 400, "bad_parameter", "limit"),
    Bad("GET /api/v1/events?after=nonsense", 400, "bad_parameter", "after"),
]

PUBLISH = [
    bad_event("type", type="build.finished\r\nid: 7"),
    bad_event("type", type="build.finished\n"),
    bad_event("type", type="build\0.finished"),
    bad_event("type", type="Build.Finished"),
    bad_event("type", type="finished"),
    bad_event("type", type="hello"),
    bad_event("type", type="build." + "x" * 64),
    *[
        bad_event("type", type=f"{reserved}.made")
        for reserved in ("ticket", "reference", "batch", "taskhub", "registry", "connection", "execution")
    ],
    bad_event("subject", subject="two\nlines"),
    bad_event("subject", subject="two\rlines"),
    bad_event("subject", subject="nul\0"),
    bad_event("data", data={"text": "x" * 65_536}),
    bad_event("data", data="not an object"),
    bad_event("actor", actor="user:somebody_else"),
    bad_event("transient", transient="perhaps"),
    Bad("POST /events", 422, "invalid_input", "/type", options={"json": {"data": {}}}),
    Bad("POST /events", 422, "invalid_input", options={"json": []}),
    Bad("POST /events", 400, "malformed_json", options=raw(b'{"type": "build.finished"')),
    Bad("POST /events", 400, "malformed_json", options=raw(b'{"type":"build.finished","data":{"n":NaN}}')),
    Bad("POST /events", 400, "malformed_json", options=raw(b'{"type":"a.b","type":"c.d","data":{}}')),
    Bad("POST /events", 400, "malformed_json", options=raw(b'{"type":"a.b","data":{"text":"\\ud800"}}')),
    Bad("POST /events", 400, "malformed_json", options=raw(b'{"type":"a.b","data":{"text":"\xff"}}')),
    Bad("POST /events", 400, "malformed_json", options=raw(b'{"data":' + b'{"a":' * 5000 + b"1" + b"}" * 5001)),
    Bad("POST /events", 415, "unsupported_media_type", options=raw(b"type=build.finished", "text/plain")),
    Bad("POST /events", 413, "body_too_large", options=raw(b'{"a":"' + b"x" * 1_100_000 + b'"}')),
    Bad("POST /events/batch", 422, "invalid_input", "/events",
        options={"json": {"events": [{"type": "build.finished", "data": {}}] * 501}}),
    Bad("POST /events/batch", 422, "invalid_input", "/events/1/type",
        options={"json": {"events": [{"type": "build.finished", "data": {}}, {"type": "ticket.created", "data": {}}]}}),
    Bad("POST /events/batch", 422, "invalid_input", "/events", options={"json": {"events": []}}),
]  # fmt: skip

TICKETS = [
    bad_list("statuss=received", "statuss", "status"),
    bad_list("status=recieved", "status", "Received"),
    bad_list("person_in_charge=nobody_of_this_name", "person_in_charge"),
    bad_list("limit=0", "limit"),
    bad_list("limit=101", "limit"),
    bad_list("limit=many", "limit"),
    bad_list("sort_by=beauty", "sort_by"),
    bad_list("updated_since=yesterday", "updated_since"),
    bad_list("cursor=bm90IGEgY3Vyc29y", "cursor"),
    bad_list("show_completed=perhaps", "show_completed"),
    Bad("GET /api/v1/tickets/TH-999999", 404, "not_found"),
    Bad("GET /api/v1/tickets/TH-999999999999999999999", 404, "not_found"),
    Bad("GET /api/v1/tickets/TH-1?include=everything", 400, "bad_parameter", "include"),
    bad_ticket("summary", summary=""),
    bad_ticket("summary", summary="x" * 201),
    bad_ticket("summary", summary=None),
    bad_ticket("sumary", sumary="misspelt"),
    bad_ticket("status", status="unheard of"),
    bad_ticket("person_in_charge", person_in_charge="nobody of this name"),
    bad_ticket("category_detail", category="Inquiry", category_detail="no such detail"),
    bad_ticket("category_detail", category_detail="no category was given"),
    bad_ticket("waiting_reason", status="waiting"),
    bad_ticket("priority", priority="highest"),
    bad_ticket("scheduled_completion_date", scheduled_completion_date="tomorrow"),
    bad_ticket("actual_effort_hours", actual_effort_hours=-1),
    bad_ticket("description", description="x" * 65_537),
    bad_ticket("attachments/0/url", attachments=[{"file_name": "a", "url": "javascript:alert(1)"}]),
    bad_ticket("blocked_by/0", blocked_by=["TH-999999"]),
    bad_ticket("parent", parent="TH-999999"),
    Bad("POST /api/v1/tickets", 400, "malformed_json", options=raw(b"{'summary': 'python'}")),
    Bad("POST /api/v1/tickets", 400, "bad_header", "Idempotency-Key",
        options={"json": {"summary": "No"}, "headers": {"Idempotency-Key": "two words"}}),
    Bad("PATCH /api/v1/tickets/TH-1", 422, "invalid_input", "/status", options={"json": {"status": None}}),
    Bad("PATCH /api/v1/tickets/TH-1", 422, "invalid_input", "/version", options={"json": {"version": 7}}),
    Bad("PATCH /api/v1/tickets/TH-1", 412, "version_conflict",
        options={"json": {"priority": "low"}, "headers": {"If-Match": '"7"'}}),
    Bad("PATCH /api/v1/tickets/TH-1", 400, "bad_header", "If-Match",
        options={"json": {"priority": "low"}, "headers": {"If-Match": "seven"}}),
    Bad("POST /api/v1/tickets/TH-1/comments", 422, "invalid_input", "/comment", options={"json": {"comment": " "}}),
    Bad("POST /api/v1/tickets/TH-1/comments", 422, "invalid_input", "/kind",
        options={"json": {"comment": "a", "kind": "poem"}}),
    Bad("DELETE /api/v1/statuses", 405, "method_not_allowed"),
    Bad("GET /api/v1/ticket", 404, "no_such_resource"),
    Bad("GET /api/v1/tickets", 421, "misdirected_request", options={"headers": {"Host": "127.0.0.1.evil.example"}}),
    Bad("GET /api/v1/tickets", 403, "forbidden_origin", options={"headers": {"Origin": "https://evil.example"}}),
    Bad("GET /api/v1/tickets", 403, "forbidden_origin", options={"headers": {"Origin": "null"}}),
]  # fmt: skip


def sendable(options: dict[str, Any]) -> dict[str, Any]:
    """The options with a body as a file: aiohttp warns of large ones given as bytes."""
    options = dict(options)
    if "json" in options:
        options["body"] = json.dumps(options.pop("json")).encode()
        options["headers"] = {"Content-Type": "application/json", **options.get("headers", {})}
    if "body" in options:
        options["data"] = io.BytesIO(options.pop("body"))
    return options


@pytest.fixture
async def unchanged(hub: TaskHubProcess, rest: Api) -> AsyncIterator[Api]:
    """The client of a server with one ticket, checked afterwards to be as it was, without a fault in its log."""
    if not await rest.all_tickets():
        await rest.create("The only one")
    before = await rest.log(), await rest.all_tickets()
    logged = len(hub.log)
    yield rest
    assert (await rest.log(), await rest.all_tickets()) == before
    assert "Traceback" not in hub.log[logged:]


def check(answer: Answer, bad: Bad) -> None:
    assert answer.headers["Content-Type"].startswith("application/problem+json"), answer
    problem = answer.json
    assert (answer.status, problem["status"], problem["code"]) == (bad.status, bad.status, bad.code), answer
    assert problem["type"]
    assert problem["title"]
    assert problem["detail"]
    assert problem["request_id"]
    if bad.names is not None:
        named = [e.get("parameter") or e.get("pointer") or e.get("header") for e in problem["errors"]]
        assert bad.names in named, answer
    if bad.suggests is not None:
        assert bad.suggests in [e.get("did_you_mean") for e in problem["errors"]], answer


@pytest.mark.parametrize("table", [STREAM, PUBLISH, TICKETS], ids=["stream", "publish", "tickets"])
async def test_bad_requests_get_the_documented_problem_and_change_nothing(unchanged: Api, table: list[Bad]) -> None:
    wrong: list[str] = []
    for bad in table:
        method, path = bad.request.split(" ", 1)
        try:
            check(await unchanged.request(method, path, **sendable(bad.options)), bad)
        except (AssertionError, KeyError) as error:
            wrong.append(f"{bad}\n    {error!s:.700}")

    assert not wrong, "\n".join([f"{len(wrong)} of {len(table)}:", *wrong])


async def test_a_cursor_of_another_filter_is_refused(rest: Api, hub: TaskHubProcess) -> None:
    for number in range(2):
        await rest.create(f"For two pages {number}")
    page = await rest.get("/api/v1/tickets?limit=1")
    foreign = f"/api/v1/tickets?limit=1&priority=high&cursor={page['next_cursor']}"
    answer = await rest.request("GET", foreign)
    async with mcp_http(hub.url) as client:
        error = await call_failing(client, "get_ticket_list", limit=1, priority="high", cursor=page["next_cursor"])

    check(answer, Bad(foreign, 400, "bad_parameter", "cursor"))
    assert error["code"] == "invalid_input"
    assert error["problems"][0]["parameter"] == "cursor"


async def test_an_idempotency_key_used_for_something_else_is_refused(rest: Api) -> None:
    headers = {"Idempotency-Key": "k-1"}
    first = await rest.request("POST", "/api/v1/tickets", json={"summary": "One"}, headers=headers)
    again = await rest.request("POST", "/api/v1/tickets", json={"summary": "One"}, headers=headers)
    other = await rest.request("POST", "/api/v1/tickets", json={"summary": "Two"}, headers=headers)

    assert again.json == {**first.json, "replayed": True}
    check(other, Bad("POST /api/v1/tickets", 422, "idempotency_mismatch"))


async def test_hostile_heads_and_paths_are_refused_before_anything_happens(unchanged: Api, hub: TaskHubProcess) -> None:
    for path in ("/api/v1/tickets/%00", "/api/v1/tickets/TH-1%2Fhistory", "/api/v1/tickets/..%2F..%2Fetc"):
        answer = await unchanged.request("GET", path)
        assert 400 <= answer.status < 500, (path, answer)
    answer = await unchanged.request("GET", "/events/stream", headers={"Last-Event-ID": "x" * 2**20})
    assert 400 <= answer.status < 500, answer
    async with record(hub.url, headers={"Last-Event-ID": "a\x00b"}, expect=400) as refused:
        await refused.wait_end()


async def test_bad_tool_arguments_are_tool_errors_that_say_what_would_be_right(
    unchanged: Api, hub: TaskHubProcess
) -> None:
    async with mcp_http(hub.url) as client:
        unknown_status = await call_failing(client, "update_task_status", task_id="TH-1", status="doing")
        unknown_argument = await call_failing(client, "update_ticket", ticket_id="TH-1", summery="x")
        missing = await call_failing(client, "create_ticket")
        wrong_type = await call_failing(client, "get_ticket_list", limit="many")
        no_ticket = await call_failing(client, "get_ticket_detail", ticket_id="TH-4711")
        no_reason = await call_failing(client, "update_task_status", task_id="TH-1", status="waiting")
        conflict = await call_failing(client, "update_ticket", ticket_id="TH-1", priority="low", expected_version=9)
        no_cursor = await call_failing(client, "get_ticket_list", cursor="made up")

    assert {"Received", "In Progress", "Completed"} <= set(unknown_status["allowed"])
    assert unknown_status["problems"][0]["parameter"] == "status"
    assert (unknown_argument["code"], unknown_argument["problems"][0]["did_you_mean"]) == ("invalid_input", "summary")
    assert missing["problems"][0]["parameter"] == "summary"
    assert wrong_type["problems"][0]["parameter"] == "limit"
    assert (no_ticket["code"], no_ticket["retryable"]) == ("not_found", False)
    assert no_reason["problems"][0]["parameter"] in ("waiting_reason", "comment")
    assert (conflict["code"], conflict["current"]) == ("version_conflict", 1)
    assert no_cursor["problems"][0]["parameter"] == "cursor"
    for error in (unknown_status, unknown_argument, missing, no_ticket, conflict):
        assert error["message"]
        assert "retryable" in error


@pytest.mark.parametrize("mode", ["legacy", MODERN])
async def test_an_unknown_tool_is_a_protocol_error(unchanged: Api, hub: TaskHubProcess, mode: str) -> None:
    async with mcp_http(hub.url, mode) as client:
        with pytest.raises(MCPError) as refused:
            await client.call_tool("close_everything", {})
        await call(client, "get_statuses")

    assert refused.value.error.code == -32602


async def test_malformed_and_huge_mcp_messages_are_refused(unchanged: Api) -> None:
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    malformed = await unchanged.request("POST", "/mcp", data=b"{not json", headers=headers)
    huge = b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"x":"' + b"x" * 5 * 2**20 + b'"}}'
    too_large = await unchanged.request("POST", "/mcp", data=io.BytesIO(huge), headers=headers)

    assert malformed.status == 400
    assert too_large.status == 413
