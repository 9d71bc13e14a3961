"""A client that stops reading costs the others nothing, the server little, and gets everything when it reads again."""

from contextlib import AsyncExitStack
from typing import Any, Final

from tests.e2e.conftest import MakeHub
from tests.e2e.harness.clients import Api, api
from tests.e2e.harness.streams import SocketRecorder, record
from tests.e2e.harness.waiting import until

STALLED: Final = 12
ROUNDS: Final = 8
BATCH: Final = 200
EVENT_BYTES: Final = 2000
BUFFER_BYTES: Final = 65_536
"""The server's default limit per stream (SSE_BUFFER_BYTES)."""
PATIENT: Final = {"TASKHUB_SSE_WRITE_TIMEOUT_S": "600"}
"""No client is dropped, however long it takes to publish what it does not read."""


async def publish_much(client: Api) -> list[str]:
    """About 3 MB of events; returns their ids."""
    ids: list[str] = []
    for number in range(ROUNDS):
        event = {"type": "build.log", "subject": f"round/{number}", "data": {"text": "x" * EVENT_BYTES}}
        ids += await client.publish(*[event] * BATCH)
    return ids


async def streams_of(client: Api) -> dict[str, dict[str, Any]]:
    """The operators' view of each stream, by stream id."""
    return {stream["id"]: stream for stream in (await client.get("/events/debug"))["instances"][0]["streams"]}


def stream_id(stream: SocketRecorder) -> str:
    return stream.headers["taskhub-stream"]


async def test_stalled_clients_delay_nobody_cost_little_and_catch_up_exactly(make_hub: MakeHub) -> None:
    hub = await make_hub(environment=PATIENT).start()
    async with api(hub.url) as client, AsyncExitStack() as stack:
        readers = [await stack.enter_async_context(record(hub.url)) for _ in range(3)]
        stalled = [await stack.enter_async_context(record(hub.url, receive_buffer=4096 + n)) for n in range(STALLED)]
        for stream in [*readers, *stalled]:
            await stream.wait_ready()
        await publish_and_hear(client, readers)  # the server's own caches are filled before its memory is measured
        for stream in stalled:
            await stream.wait_events(ROUNDS * BATCH)
            stream.pause()
        before = hub.memory_bytes()

        ids = await publish_and_hear(client, readers)
        grown = hub.memory_bytes() - before
        streams = await streams_of(client)

        # 12 clients that miss 3.2 MB each would hold 38 MB.
        assert grown < 20 * 2**20, f"{grown / 2**20:.0f} MiB"
        for stream in stalled:
            seen = streams[stream_id(stream)]
            assert seen["buffered_bytes"] <= 2 * BUFFER_BYTES + 4 * EVENT_BYTES, seen
            assert seen["lag_events"] > ROUNDS * BATCH // 2, seen
            stream.resume()
        for stream in stalled:
            await stream.wait_id(ids[-1])
            assert stream.ids[-len(ids) :] == ids
            assert len(stream.ids) == len(set(stream.ids))
            assert not stream.named("reset")
        assert len(stalled[0].ids) == 2 * len(ids)


async def publish_and_hear(client: Api, readers: list[SocketRecorder]) -> list[str]:
    """Publish much; every reader gets it all, in order, whoever else does not read."""
    ids = await publish_much(client)
    for reader in readers:
        await reader.wait_id(ids[-1])
        assert reader.ids[-len(ids) :] == ids
    return ids


async def test_a_stalled_client_that_catches_up_joins_the_live_stream_again(make_hub: MakeHub) -> None:
    hub = await make_hub(environment=PATIENT).start()
    async with api(hub.url) as rest, record(hub.url, receive_buffer=4096) as stream:
        await stream.wait_ready()
        stream.pause()
        ids = await publish_much(rest)
        stream.resume()
        await stream.wait_id(ids[-1])

        live = await rest.create("After the catch-up")
        await stream.wait_id(live["event_id"])

        assert stream.ids == [*ids, live["event_id"]]
        seen = (await streams_of(rest))[stream_id(stream)]
        assert (seen["state"], seen["lag_events"]) == ("live", 0)


async def test_a_client_that_never_reads_again_is_dropped_and_resumes_by_its_last_id(make_hub: MakeHub) -> None:
    hub = await make_hub(environment={"TASKHUB_SSE_WRITE_TIMEOUT_S": "0.5"}).start()
    async with api(hub.url) as client, record(hub.url, receive_buffer=4096) as stream:
        await stream.wait_ready()
        stream.pause()
        ids = await publish_much(client)
        await until(lambda: gone(client, stream_id(stream)), "end of the stalled stream")
        stream.resume()
        await stream.wait_end()
        collected, last_id = stream.ids, stream.last_event_id or ""
    await hub.stop()
    # A reader that is only slow is not to be dropped, too.
    hub = await make_hub(name="patient", data_dir=hub.data_dir, environment=PATIENT).start()
    async with record(hub.url, headers={"Last-Event-ID": last_id}) as stream:
        await stream.wait_ready()
        collected += stream.ids

    assert collected == ids


async def gone(client: Api, stream: str) -> bool:
    return stream not in await streams_of(client)
