"""A server that dies at the worst moment: every write has one effect, and every subscriber gets every event once."""

import asyncio
import signal
from typing import Any

import aiohttp
import psutil
import pytest

from tests.e2e.harness.clients import Answer, Api, api
from tests.e2e.harness.databases import check_sound
from tests.e2e.harness.process import TaskHubProcess
from tests.e2e.harness.streams import record
from tests.e2e.harness.waiting import until

KILLED = -signal.SIGKILL


async def write(client: Api, key: str) -> Answer:
    """One write that changes what two tables hold, under an idempotency key."""
    return await client.request(
        "POST", "/api/v1/tickets", json={"summary": f"Ticket {key}"}, headers={"Idempotency-Key": key}
    )


async def no_answer(client: Api, key: str) -> None:
    with pytest.raises(aiohttp.ClientError):
        await write(client, key)


WRITING = ["after_ticket", "after_insert", "after_counter", "after_commit", "after_publish"]


async def test_a_write_during_which_the_server_dies_has_one_effect_and_is_heard_once(
    idle_hub: TaskHubProcess,
) -> None:
    """Each start has the failpoint of the next death: the write that is repeated passes it, the next one dies there."""
    hub = idle_hub
    heard: list[dict[str, Any]] = []
    last_id, unanswered = "", "first"
    for point in [*WRITING, ""]:
        hub.configure(failpoints=f"write.{point}=kill@2" if point else "")
        await hub.start()
        await check_sound(hub)
        resuming = {"Last-Event-ID": last_id} if last_id else {}
        async with api(hub.url) as client, record(hub.url, {"since": "earliest"}, headers=resuming) as stream:
            answer = await write(client, unanswered)
            assert answer.status == 201, answer
            assert answer.json["replayed"] is (unanswered in ("after_commit", "after_publish"))
            if answer.json["event_id"] not in {event["id"] for event in heard}:
                await stream.wait_id(answer.json["event_id"])
            if point:
                await no_answer(client, point)
                await stream.wait_end()
            assert stream.frames[0].data["resume"] == "complete"
            heard += stream.events
            last_id = stream.last_event_id or ""
        if point:
            assert await hub.wait_exit() == KILLED
        unanswered = point

    await check_sound(hub)
    async with api(hub.url) as client:
        log, tickets = await client.log(), await client.all_tickets()
    assert [event["id"] for event in heard] == [event["id"] for event in log]
    assert [event["subject"] for event in log] == [f"TH-{n}" for n in range(1, 7)]
    summaries = [tickets[event["subject"]]["summary"] for event in log]
    assert summaries == [f"Ticket {key}" for key in ["first", *WRITING]]


async def test_an_answer_that_is_cut_off_after_the_commit_is_the_same_when_asked_again(
    idle_hub: TaskHubProcess,
) -> None:
    """The server is stopped with the answer in its hand, and its client leaves."""
    hub = idle_hub
    hub.configure(failpoints="write.after_publish=pause@1")
    await hub.start()
    async with record(hub.url) as stream:
        await stream.wait_ready()
        async with api(hub.url) as client:
            cut_off = asyncio.create_task(write(client, "k"))
            await until(lambda: psutil.Process(hub.pid).status() == psutil.STATUS_STOPPED, "the failpoint")
            cut_off.cancel()
            await asyncio.wait([cut_off])
        hub.signal(signal.SIGCONT)
        async with api(hub.url) as client:
            again, once_more = await write(client, "k"), await write(client, "k")
            other = await client.create("another")
        await stream.wait_id(other["event_id"])

        assert stream.ids == [again.json["event_id"], other["event_id"]]
    assert cut_off.cancelled()
    assert (again.status, again.json["key"], again.json["version"], again.json["replayed"]) == (201, "TH-1", 1, True)
    assert once_more.json == again.json
    await check_sound(hub)
