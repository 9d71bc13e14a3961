"""A backup of a live server, put back: who listened is told that the log is another, and ends in the right state."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.conftest import MakeHub
from tests.e2e.harness.clients import api
from tests.e2e.harness.process import TaskHubProcess, run_taskhub
from tests.e2e.harness.streams import record
from tests.e2e.harness.waiting import until
from tests.servers import PostgresServer


@pytest.fixture(params=["sqlite", "postgresql"])
async def server(request: pytest.FixtureRequest, make_hub: MakeHub) -> TaskHubProcess:
    """A server on a database of its own, of each kind in turn."""
    if request.param == "sqlite":
        return await make_hub().start()
    postgres: PostgresServer = request.getfixturevalue("postgres")
    return await make_hub(environment={"TASKHUB_DATABASE_URL": postgres.create_migrated()}).start()


@contextlib.asynccontextmanager
async def writing(base_url: str) -> AsyncIterator[list[str]]:
    """Create and change tickets without pause until the block is left; yields the ids of the acknowledged events. On a
    slow disk a write may be refused: it is tried again."""
    acknowledged: list[str] = []
    stopping = asyncio.Event()

    async def write(number: int) -> None:
        key = ""
        async with api(base_url) as client:
            while not stopping.is_set():
                method, path = ("PATCH", f"/api/v1/tickets/{key}") if key else ("POST", "/api/v1/tickets")
                answer = await client.request(method, path, json={"summary": f"{number} {len(acknowledged)}"})
                assert answer.status in (200, 201, 503), answer
                if answer.status != 503:
                    acknowledged.append(answer.json["event_id"])
                    key = "" if key and len(acknowledged) % 3 == 0 else answer.json["key"]

    tasks = [asyncio.create_task(write(number)) for number in range(2)]
    try:
        yield acknowledged
    finally:
        stopping.set()
        await asyncio.gather(*tasks)


async def taskhub(server: TaskHubProcess, *arguments: str, status: int = 0) -> str:
    """What a command on the server's database prints."""
    return await run_taskhub(*arguments, environment=server.environment, status=status)


async def test_a_backup_made_under_load_brings_everybody_back_to_that_moment(
    server: TaskHubProcess, tmp_path: Path
) -> None:
    file = tmp_path / "taskhub.backup"
    async with record(server.url, {"snapshot": 1}) as stream:
        await stream.wait_ready()
        async with writing(server.url) as acknowledged:
            await until(lambda: len(acknowledged) > 40, "writes before the backup")
            before = list(acknowledged)
            await taskhub(server, "backup", str(file))
            after_backup = len(acknowledged)
            await until(lambda: len(acknowledged) > after_backup + 20, "writes after the backup")
            # Beside a server that writes, everything is found as of one moment.
            report = json.loads(await taskhub(server, "doctor", "--json"))
            assert report["problems"] == []
        async with api(server.url) as client:
            log = [event["id"] for event in await client.log()]
        await stream.wait_id(log[-1])
        last_id = str(stream.last_event_id)
    await taskhub(server, "restore", str(file), "--replace", status=1)
    async with api(server.url) as client:
        assert [event["id"] for event in await client.log()] == log  # a server runs: nothing happened
    await server.stop()

    await taskhub(server, "restore", str(file), status=1)  # there are tickets
    await taskhub(server, "restore", str(file), "--replace")
    assert json.loads(await taskhub(server, "doctor", "--json"))["problems"] == []
    await server.restart()

    async with api(server.url) as client:
        restored = [event["id"] for event in await client.log()]
        assert restored == log[: len(restored)]
        assert set(before) <= set(restored) < set(log)
        headers = {"Last-Event-ID": last_id}
        async with record(server.url, {"snapshot": 1}, headers=headers) as stream:
            await stream.wait_ready()
            reset = stream.frames[1]
            assert (reset.event, reset.data["reason"], reset.data["requested"]) == ("reset", "epoch_changed", last_id)
            assert reset.data["position"].split("-")[0] != last_id.split("-")[0]
            states = {t["key"]: t for frame in stream.named("snapshot") for t in frame.data["tickets"]}
            assert states == await client.all_tickets()
            made = await asyncio.gather(*(client.create(f"after the restore {n}") for n in range(3)))
            for written in made:
                await stream.wait_id(written["event_id"])
            states |= {event["data"]["ticket"]["key"]: event["data"]["ticket"] for event in stream.events}
            assert states == await client.all_tickets()
    assert json.loads(await taskhub(server, "doctor", "--json"))["problems"] == []
