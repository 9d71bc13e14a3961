"""ASGI applications under aiohttp, on a real socket."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from taskhub.mcp.bridge import Application, Exchange, RefusedBody, error_response, read_body
from tests.taskhub.mcp.world import DEADLINE_S, until

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}


class Bridged:
    """A server of one application, and the exchanges it has made."""

    def __init__(self, url: str, exchanges: list[Exchange], client: aiohttp.ClientSession) -> None:
        self.url = url
        self.exchanges = exchanges
        self.client = client


@asynccontextmanager
async def bridged(application: Application, **reading: Any) -> AsyncIterator[Bridged]:
    exchanges: list[Exchange] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            exchange = Exchange(request, await read_body(request, **reading))
        except RefusedBody as refused:
            return error_response(refused.status, str(refused))
        exchanges.append(exchange)
        return await exchange.run(application)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as client:
        yield Bridged(f"http://127.0.0.1:{runner.addresses[0][1]}", exchanges, client)
    await runner.cleanup()


async def test_the_application_sees_the_request_as_it_was_sent() -> None:
    seen: dict[str, Any] = {}

    async def application(scope: Any, receive: Any, send: Any) -> None:
        seen.update(scope)
        seen["message"] = await receive()
        await send({"type": "http.response.start", "status": 202, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})

    async with bridged(application) as server:
        headers = {"X-One": "1", "Content-Type": "application/json"}
        async with server.client.post(f"{server.url}/a%20b?q=1&r=", data=b"{}", headers=headers) as response:
            assert (response.status, await response.read()) == (202, b"ok")

    assert (seen["method"], seen["path"], seen["raw_path"], seen["query_string"]) == (
        "POST",
        "/a b",
        b"/a%20b",
        b"q=1&r=",
    )
    assert (b"x-one", b"1") in seen["headers"]
    assert [value for name, value in seen["headers"] if name == b"content-length"] == [b"2"]
    assert seen["message"] == {"type": "http.request", "body": b"{}", "more_body": False}


async def test_receive_blocks_until_the_client_is_gone_and_the_application_is_cancelled() -> None:
    happened: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(START)
        try:
            await receive()
        except asyncio.CancelledError:
            happened.append("cancelled")
            raise

    async with bridged(application) as server:
        response = await server.client.get(server.url)
        assert happened == []
        response.close()
        await until(lambda: happened == ["cancelled"])


async def test_the_head_of_a_stream_arrives_before_its_first_event() -> None:
    go = asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await go.wait()
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async with bridged(application) as server, server.client.get(server.url) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        go.set()
        assert await response.read() == b"data: 1\n\n"


async def test_a_whole_response_is_sent_while_the_application_goes_on() -> None:
    go, done = asyncio.Event(), asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 202, "headers": [(b"content-length", b"3")]})
        await send({"type": "http.response.body", "body": b"yes"})
        await go.wait()
        done.set()

    async with bridged(application) as server:
        async with server.client.post(server.url) as response:
            assert await response.read() == b"yes"
        assert not done.is_set()
        go.set()
        await asyncio.wait_for(done.wait(), DEADLINE_S)


async def test_headers_about_the_connection_stay_with_the_server() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        headers = [
            (b"connection", b"x-mine"),
            (b"transfer-encoding", b"identity"),
            (b"keep-alive", b"1"),
            (b"x-mine", b"1"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": [*headers, (b"content-length", b"0")]})
        await send({"type": "http.response.body"})

    async with bridged(application) as server, server.client.get(server.url) as response:
        assert response.headers["X-Mine"] == "1"
        assert "Keep-Alive" not in response.headers
        assert response.headers.get("Connection") != "x-mine"


async def test_a_ping_of_the_application_becomes_the_shortest_comment() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send({"type": "http.response.body", "body": b": ping - 12:00\r\n\r\n", "more_body": True})
        await send({"type": "http.response.body", "body": b"data: : not a ping\n\n", "more_body": False})

    async with bridged(application) as server, server.client.get(server.url) as response:
        assert await response.read() == b":\ndata: : not a ping\n\n"


async def test_an_exchange_that_is_ended_lets_its_application_finish_in_good_order() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(START)
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.body", "body": b"data: bye\n\n", "more_body": True})

    async with bridged(application) as server, server.client.get(server.url) as response:
        server.exchanges[0].end()
        assert await response.read() == b"data: bye\n\n"


async def test_an_application_that_does_not_answer_is_an_unavailable_one() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        return

    async with bridged(application) as server, server.client.get(server.url) as response:
        assert response.status == 503
        assert (await response.json())["jsonrpc"] == "2.0"


async def test_what_is_sent_after_the_client_left_is_lost_in_silence() -> None:
    left, sent = asyncio.Event(), asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        async def late() -> None:
            await left.wait()
            for _ in range(3):
                await send({"type": "http.response.body", "body": b"data: late\n\n", "more_body": True})
            sent.set()

        await send(START)
        await asyncio.shield(asyncio.create_task(late()))

    async with bridged(application) as server:
        response = await server.client.get(server.url)
        response.close()
        await until(lambda: server.exchanges[0]._request.transport is None)
        left.set()
        await asyncio.wait_for(sent.wait(), DEADLINE_S)


async def slowly(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


@pytest.mark.parametrize("body", [b"x" * 11, None], ids=["declared", "chunked"])
async def test_a_body_over_the_limit_is_refused(body: bytes | None) -> None:
    async with bridged(unused, limit=10) as server:
        async with server.client.post(server.url, data=body or slowly(b"x" * 6, b"x" * 6)) as response:
            assert response.status == 413
        assert server.exchanges == []


async def test_a_body_of_the_limit_is_taken() -> None:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        body = (await receive())["body"]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
        await send({"type": "http.response.body", "body": body})

    async with (
        bridged(application, limit=10) as server,
        server.client.post(server.url, data=slowly(b"x" * 5, b"y" * 5)) as response,
    ):
        assert await response.read() == b"xxxxxyyyyy"


async def test_a_body_that_never_ends_is_given_up() -> None:
    async def endless() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    async with bridged(unused, timeout_s=0.05) as server, server.client.post(server.url, data=endless()) as response:
        assert response.status == 408


async def unused(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    raise AssertionError("the application was called")
