"""`/static/stream.js` by itself: how it goes on after whatever a server may answer."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import hdrs, web

from tests.e2e.harness.tools import E2E, node
from tests.e2e.harness.waiting import until

pytestmark = pytest.mark.needs("node")

Answer = Callable[[web.Request, "Script"], Awaitable[web.StreamResponse]]


@dataclass
class Script:
    """A server that answers each request as the next of `answers` says, and the last one for ever."""

    answers: list[Answer]
    positions: list[str | None] = field(default_factory=list)
    """The Last-Event-ID of each request."""
    told: list[dict[str, Any]] = field(default_factory=list)
    """What the module told so far."""
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.positions.append(request.headers.get("Last-Event-ID"))
        return await self.answers[min(len(self.positions), len(self.answers)) - 1](request, self)

    def states(self) -> list[str]:
        return [told["state"]["name"] for told in self.told if told["kind"] == "state"]

    async def asks(self, times: int) -> None:
        await until(lambda: len(self.positions) >= times, f"request {times}", explain=lambda: str(self.told))

    async def enters(self, state: str) -> dict[str, Any]:
        await until(lambda: state in self.states(), state, explain=lambda: str(self.told))
        found: dict[str, Any] = next(t["state"] for t in self.told if t.get("state", {}).get("name") == state)
        return found


def frames(*parts: tuple[str, dict[str, Any]], last: str | None = None, stay: bool = False) -> Answer:
    """A stream of these frames, the last of which has the id `last`; it ends, or stays open without a word."""

    async def answer(request: web.Request, script: Script) -> web.StreamResponse:
        response = web.StreamResponse(headers={hdrs.CONTENT_TYPE: "text/event-stream"})
        await response.prepare(request)
        text = "retry: 20\n" + "".join(f"event: {event}\ndata: {json.dumps(data)}\n\n" for event, data in parts)
        if last is not None:
            text = text.removesuffix("\n") + f"id: {last}\n\n"
        await response.write(text.encode())
        if stay:
            await script.over.wait()
        return response

    return answer


def status(code: int, **headers: str) -> Answer:
    async def answer(request: web.Request, script: Script) -> web.StreamResponse:
        body = None if code == 204 else json.dumps({"detail": f"it is {code}"})
        return web.Response(status=code, text=body, headers={k.replace("_", "-"): v for k, v in headers.items()})

    return answer


def hello(resume: str = "none", heartbeat_s: float = 15) -> tuple[str, dict[str, Any]]:
    return "hello", {"resume": resume, "heartbeat_s": heartbeat_s, "stream": "st_1"}


READY = ("ready", {"position": "p"})
LIVE = frames(hello(), READY, stay=True)


@contextlib.asynccontextmanager
async def reading(*answers: Answer) -> AsyncIterator[Script]:
    script = Script(list(answers))
    app = web.Application()
    app.router.add_get("/events/stream", script.answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    process = await asyncio.create_subprocess_exec(
        node(), str(E2E / "stream_reader.mjs"), f"http://127.0.0.1:{port}/events/stream?type=a",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip

    async def listen() -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            script.told.append(json.loads(line))

    listening = asyncio.create_task(listen())
    try:
        yield script
    finally:
        script.over.set()
        assert process.stdin is not None
        process.stdin.close()
        await listening
        await process.wait()
        await runner.cleanup()


async def test_a_stream_that_ends_goes_on_after_its_last_event() -> None:
    event = {"id": "e-7", "type": "a.b", "data": {}}
    first = frames(hello(), READY, ("a.b", event), last="e-7")
    async with reading(first, frames(hello("complete"), READY, stay=True)) as script:
        await script.asks(2)
        await until(lambda: script.states()[-1:] == ["live"], "live again")

    assert script.positions == [None, "e-7"]
    assert [told["events"] for told in script.told if told["kind"] == "events"] == [[event]]
    assert [told["reason"] for told in script.told if told["kind"] == "begin"] == ["opened"]


async def test_a_server_that_says_nothing_for_more_than_two_heartbeats_is_asked_again() -> None:
    async with reading(frames(hello(heartbeat_s=0.1), READY, stay=True), LIVE) as script:
        await script.asks(2)

        assert "reconnecting" in script.states()


async def test_after_a_reset_the_page_is_to_begin_anew() -> None:
    gone = frames(hello("reset"), ("reset", {"reason": "expired", "position": "p9"}), READY, stay=True)
    async with reading(frames(hello(), READY, ("a", {"id": "e-1"}), last="e-1"), gone) as script:
        await script.asks(2)
        await until(lambda: len(script.told) and script.states()[-1] == "live", "live")

    assert [told["reason"] for told in script.told if told["kind"] == "begin"] == ["opened", "expired"]


@pytest.mark.parametrize(
    ("code", "state"), [(204, "ended"), (400, "refused"), (401, "signed_out"), (403, "refused"), (404, "refused")]
)
async def test_what_another_attempt_would_not_change_is_said_and_ends_it(code: int, state: str) -> None:
    async with reading(status(code), LIVE) as script:
        said = await script.enters(state)
        if code >= 400:
            assert said["detail"] == f"it is {code}"

    assert len(script.positions) == 1
    assert script.states()[-1] == state


@pytest.mark.parametrize("code", [429, 500, 503])
async def test_what_may_pass_is_waited_for_as_long_as_the_server_says(code: int) -> None:
    async with reading(status(code, Retry_After="1"), LIVE) as script:
        waiting = await script.enters("reconnecting")
        told_at = next(told["now"] for told in script.told if told.get("state") == waiting)
        # As asked, and not all who were asked at the same moment.
        assert 400 <= waiting["at"] - told_at <= 1600
        await script.enters("live")


async def test_attempts_become_rarer_and_are_not_in_step() -> None:
    async with reading(frames(hello()), *[status(503)] * 7, LIVE) as script:
        await script.enters("live")

    told = [each for each in script.told if each["kind"] == "state" and each["state"]["name"] == "reconnecting"]
    # The last word may be of the server that ends with the test.
    waits = [each["state"]["at"] - each["now"] for each in told][:8]
    usual = [20 * 1.7**attempt for attempt in range(len(waits))]
    assert len({round(wait / expected, 1) for wait, expected in zip(waits[1:], usual[1:], strict=True)}) > 1
    assert max(waits) > waits[0]


async def test_a_goodbye_says_whether_and_when_to_come_back() -> None:
    moving = frames(hello(), READY, ("goodbye", {"reason": "draining", "reconnect": True, "retry_ms": 30}))
    revoked = frames(hello(), ("goodbye", {"reason": "revoked", "reconnect": False, "retry_ms": 0}))
    async with reading(moving, revoked, LIVE) as script:
        said = await script.enters("signed_out")

    assert said["detail"] == "revoked"
    assert len(script.positions) == 2
