"""Which calls of a connection are still to be answered."""

import asyncio

import anyio
import pytest
from mcp.shared._context_streams import create_context_streams
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from taskhub.mcp.streams import CallsInFlight, CountedReader, CountedWriter


def request(number: int) -> SessionMessage:
    return SessionMessage(JSONRPCRequest(jsonrpc="2.0", id=number, method="tools/call"))


def response(number: int) -> SessionMessage:
    return SessionMessage(JSONRPCResponse(jsonrpc="2.0", id=number, result={}))


async def test_a_call_is_in_flight_from_its_request_to_its_answer() -> None:
    calls = CallsInFlight()

    calls.saw(request(1))
    calls.saw(request(2))
    calls.sent(response(1))

    assert len(calls) == 1
    calls.sent(response(2))
    await calls.wait_until_none()


async def test_a_cancelled_call_is_not_waited_for() -> None:
    calls = CallsInFlight()
    calls.saw(request(1))

    cancelled = JSONRPCNotification(jsonrpc="2.0", method="notifications/cancelled", params={"requestId": 1})
    calls.saw(SessionMessage(cancelled))

    assert len(calls) == 0


async def test_waiting_ends_after_the_time_given() -> None:
    calls = CallsInFlight()
    calls.saw(request(1))

    await calls.wait_until_none(0.01)

    assert len(calls) == 1


async def test_the_reader_ends_after_the_calls_in_flight() -> None:
    calls = CallsInFlight()
    sending, receiving = create_context_streams[SessionMessage | Exception](1)
    answers, answered = create_context_streams[SessionMessage](1)
    reader = CountedReader(receiving, calls, linger_s=60)
    async with reader, answered, CountedWriter(answers, calls) as writer:
        await sending.send(request(1))
        await sending.aclose()
        assert await reader.__anext__() is not None
        end = asyncio.ensure_future(anext(aiter(reader)))
        await anyio.lowlevel.checkpoint()
        assert not end.done()

        await writer.send(response(1))

        with pytest.raises(StopAsyncIteration):
            await end
