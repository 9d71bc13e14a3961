"""Limits, as those who reach them are told."""

import asyncio
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from routes.access import failure_address, networks
from routes.keys import STREAM_ACCESS, TICKETS
from taskhub.tickets.errors import StorageBusy
from taskhub.tickets.reference_inputs import NewUser
from tests.routes.conftest import Hub, Start
from tests.routes.test_api_keys import ROOT, bearing, make
from tests.taskhub.mcp.wire import Wire
from tests.taskhub.world import ALICE

STRICT: dict[str, Any] = {"api_key": "k-bootstrap", "writes_per_s": 0.01, "write_burst": 3}


async def refused(hub: Hub) -> dict[str, int]:
    found: dict[str, int] = (await hub.get("/events/debug", headers=ROOT)).json["refused"]
    return found


async def test_who_changes_too_much_is_told_when_to_go_on_and_others_are_not_held_up(start: Start) -> None:
    hub = await start(**STRICT)
    await hub.app[TICKETS].create_reference(ALICE, "users", NewUser(name="Carol", role="agent"))
    mine = bearing((await make(hub))["secret"])
    answers = [await hub.post("/api/v1/tickets", {"summary": "x"}, headers=mine) for _ in range(4)]
    over = answers[-1]

    assert [answer.status for answer in answers] == [201, 201, 201, 429]
    assert over.code == "rate_limited"
    assert over.json["setting"] == "TASKHUB_WRITES_PER_S"
    assert 0 < over.json["retry_after_s"] <= int(over.headers["Retry-After"]) <= 100
    assert over.json["retryable"] is True
    assert "nothing was changed" in over.json["detail"]
    assert len((await hub.get("/api/v1/tickets", headers=mine)).json["tickets"]) == 3
    assert (await hub.post("/api/v1/tickets", {"summary": "x"}, headers=ROOT)).status == 201
    assert await refused(hub) == {"writes_per_s": 1}


async def test_a_change_over_the_limit_is_refused_before_its_body_is_read(start: Start) -> None:
    hub = await start(**STRICT)
    for _ in range(3):
        await hub.post("/events", {"type": "build.done", "data": {}}, headers=ROOT)

    status, _, body = await hub.raw(
        b"POST /events HTTP/1.1\r\nHost: localhost\r\nX-API-Key: k-bootstrap\r\n"
        b"Content-Type: application/json\r\nContent-Length: 100000\r\n\r\n{"
    )

    assert status == 429
    assert b'"rate_limited"' in body


async def test_an_agent_that_changes_too_much_is_told_how_long_to_wait(start: Start) -> None:
    hub = await start(**STRICT)
    wire = Wire(hub.session, f"{hub.url}/mcp")

    async def call(tool: str, **arguments: Any) -> Any:
        params = {"name": tool, "arguments": arguments}
        return (await wire.modern("tools/call", params, x_api_key="k-bootstrap")).result

    made = [await call("create_ticket", summary="x") for _ in range(4)]
    told = made[-1]

    assert [result["isError"] for result in made] == [False, False, False, True]
    assert told["structuredContent"]["code"] == "rate_limited"
    assert 0 < told["structuredContent"]["retry_after_s"] <= 100
    assert f"wait {told['structuredContent']['retry_after_s']:g} s" in told["content"][0]["text"]
    assert not (await call("get_ticket_list"))["isError"]
    # One allowance for all that a credential changes.
    assert (await hub.post("/api/v1/tickets", {"summary": "x"}, headers=ROOT)).status == 429


async def test_a_key_may_have_limits_of_its_own_and_others_from_one_moment_to_the_next(start: Start) -> None:
    hub = await start(**STRICT | {"write_burst": 10})
    await hub.app[TICKETS].create_reference(ALICE, "users", NewUser(name="Carol", role="agent"))
    made = await make(hub, limits={"writes_per_s": 0.01, "write_burst": 1})
    mine, key = bearing(made["secret"]), f"/api/v1/keys/{made['key']['id']}"

    async def write() -> Any:
        return await hub.post("/events", {"type": "build.done", "data": {}}, headers=mine)

    async def change(limits: Any) -> Any:
        return await hub.request("PATCH", key, json={"limits": limits}, headers=ROOT)

    assert made["key"]["limits"] == {"streams": None, "writes_per_s": 0.01, "write_burst": 1}
    assert [(await write()).status for _ in range(2)] == [201, 429]
    changed = await change({"writes_per_s": 0})
    assert changed.json["limits"] == {"streams": None, "writes_per_s": 0.0, "write_burst": 1}
    assert [(await write()).status for _ in range(5)] == [201] * 5
    assert (await change(None)).json["limits"] is None
    assert (await hub.get(key, headers=ROOT)).json["limits"] is None
    assert (await write()).status == 201
    for limits, pointer in (({"streams": -1}, "/limits/streams"), ({"stream": 1}, "/limits/stream")):
        refused = await change(limits)
        assert (refused.status, refused.json["errors"][0]["pointer"]) == (422, pointer)


async def test_a_caller_has_so_many_streams_of_any_kind_and_each_end_makes_room(start: Start) -> None:
    hub = await start(api_key="k-bootstrap", sse_max_streams_per_principal=2)
    listen = {**ROOT, "Accept": "text/event-stream"}
    async with hub.stream(**ROOT) as first, hub.session.get(f"{hub.url}/sse", headers=listen) as mcp:
        await first.caught_up()
        assert mcp.status == 200
        over = await hub.get("/events/stream?errors=status", headers=ROOT)
        async with hub.stream(**ROOT) as refused_stream:
            (goodbye,) = await refused_stream.rest()
        other = await hub.get("/sse", headers=listen)
        assert (await hub.get("/events/stream?errors=status&type=nonsense", headers=ROOT)).status == 429

    assert (over.code, other.status) == ("too_many_streams", 429)
    assert over.json["setting"] == "TASKHUB_SSE_MAX_STREAMS_PER_PRINCIPAL"
    assert over.headers["Retry-After"]
    assert other.headers["Retry-After"]
    assert (goodbye.data["reason"], goodbye.data["reconnect"]) == ("limit", True)
    assert goodbye.retry == goodbye.data["retry_ms"] > 0
    await until_two_streams_are_open(hub)


async def until_two_streams_are_open(hub: Hub) -> None:
    async with asyncio.timeout(20):
        while True:
            async with hub.stream(**ROOT) as one, hub.stream(**ROOT) as other:
                if [(await stream.frame()).event for stream in (one, other)] == ["hello", "hello"]:
                    return


async def test_streams_that_fail_to_open_leave_no_trace(start: Start) -> None:
    hub = await start(api_key="k-bootstrap", sse_max_streams_per_principal=1)
    for _ in range(3):
        assert (await hub.get("/events/stream?type=%20&status=nonsense", headers=ROOT)).status == 400
        assert (await hub.request("HEAD", "/events/stream", headers=ROOT)).status == 200

    async with hub.stream(**ROOT) as stream:
        assert (await stream.frame()).event == "hello"


async def test_new_streams_beyond_the_rate_are_told_moments_to_come(start: Start) -> None:
    hub = await start(api_key="k-bootstrap", sse_new_streams_per_s=1)
    retries: list[int] = []
    async with asyncio.timeout(30):
        while len(retries) < 3:
            async with hub.stream(**ROOT) as stream:
                frame = await stream.frame()
                if frame.event == "goodbye":
                    assert "TASKHUB_SSE_NEW_STREAMS_PER_S" in frame.data["detail"]
                    retries.append(frame.data["retry_ms"])

    assert all(retry > 0 for retry in retries)
    assert (await refused(hub))["sse_new_streams_per_s"] >= 3


async def test_wrong_keys_are_looked_at_so_often_and_good_ones_always(start: Start) -> None:
    hub = await start(api_key="k-bootstrap", auth_failures_per_min=3)
    assert (await hub.get("/api/v1/me", headers=ROOT)).status == 200
    guesses = [await hub.get("/api/v1/me", headers={"x-api-key": f"guess-{n}"}) for n in range(5)]

    assert [guess.status for guess in guesses] == [401, 401, 401, 429, 429]
    assert guesses[-1].json["setting"] == "TASKHUB_AUTH_FAILURES_PER_MIN"
    assert int(guesses[-1].headers["Retry-After"]) > 0
    assert (await hub.get("/api/v1/me", headers=ROOT)).status == 200
    assert (await hub.get("/api/v1/me")).status == 401
    assert (await hub.get("/events/stream?token=guess&errors=status")).status == 429
    async with hub.stream("token=guess") as stream:
        assert (await stream.frame()).data["reason"] == "limit"
    assert (await refused(hub))["auth_failures_per_min"] >= 2


async def test_behind_a_proxy_nobody_is_kept_out_for_what_another_did(start: Start) -> None:
    for trusted in ((), ("127.0.0.1",)):
        hub = await start(api_key="k-bootstrap", auth_failures_per_min=2, trusted_proxies=trusted)
        for number in range(4):
            headers = {"x-api-key": f"guess-{number}", "X-Forwarded-For": "192.0.2.1"}
            last = await hub.get("/api/v1/me", headers=headers)

        assert last.status == 429
        for sender in ({"X-Forwarded-For": "192.0.2.2"}, {"X-Forwarded-For": "192.0.2.1, 192.0.2.2"}, {}):
            assert (await hub.get("/api/v1/me", headers={"x-api-key": "first-guess", **sender})).status == 401


async def test_a_database_that_is_away_is_told_in_the_stream(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = await start(api_key="k-bootstrap")
    made = (await hub.post("/events/tokens", {}, headers=ROOT)).json["token"]

    async def away(secret: str) -> None:
        raise StorageBusy

    monkeypatch.setattr(hub.app[STREAM_ACCESS].store, "find", away)
    async with hub.stream(f"token={made}") as stream:
        (goodbye,) = await stream.rest()

    assert (goodbye.data["reason"], goodbye.data["reconnect"]) == ("overloaded", True)
    assert (await hub.get(f"/events/stream?token={made}&errors=status")).code == "storage_busy"


async def test_headers_together_have_a_limit(start: Start) -> None:
    hub = await start(header_bytes=4096)
    many = {f"X-Filler-{number}": "x" * 100 for number in range(50)}
    answer = await hub.get("/version", headers=many)

    assert answer.code == "headers_too_large"
    assert "4096" in answer.json["detail"]


def test_the_address_that_counts_is_the_one_nobody_else_can_have() -> None:
    def address(*trusted: str, **headers: str) -> str:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        request = make_mocked_request("GET", "/", headers=named).clone(remote="10.0.0.1")
        return failure_address(request, networks(trusted))

    assert address() == "10.0.0.1"
    assert address("10.0.0.1", X_Forwarded_For="192.0.2.1") == "192.0.2.1"
    assert address(X_Forwarded_For="forged, 192.0.2.1") == "10.0.0.1 192.0.2.1"
    assert address(Forwarded="for=192.0.2.1") == "10.0.0.1 for=192.0.2.1"
