"""The embedded database is locked, full, gone or replaced: that is said, and all is well again when it is over."""

import contextlib
import os
import random
import resource
import shutil
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import MakeHub
from tests.e2e.harness.clients import Answer, Api, api, call_failing, mcp_http
from tests.e2e.harness.exactness import read_log
from tests.e2e.harness.followers import Follower, all_have, following
from tests.e2e.harness.process import TaskHubProcess, run_command
from tests.e2e.harness.waiting import until

Fault = Callable[[TaskHubProcess], contextlib.AbstractContextManager[None]]


def database_file(hub: TaskHubProcess) -> Path:
    return hub.data_dir / "taskhub.db"


@contextlib.contextmanager
def locked(hub: TaskHubProcess) -> Iterator[None]:
    """Another process is in the middle of a write."""
    other = sqlite3.connect(database_file(hub), isolation_level=None)
    with contextlib.closing(other):
        other.execute("BEGIN EXCLUSIVE")
        yield


@contextlib.contextmanager
def no_room(hub: TaskHubProcess) -> Iterator[None]:
    """No file of the server's may grow, nor be written beyond its first page: what is on the disk already is full."""
    before = resource.prlimit(hub.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(hub.pid, resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.prlimit(hub.pid, resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def moved_away(hub: TaskHubProcess) -> Iterator[None]:
    """The database's files have other names for a while."""
    away = hub.data_dir / "away"
    away.mkdir()
    for file in hub.data_dir.glob("taskhub.db*"):
        file.rename(away / file.name)
    try:
        yield
    finally:
        for file in away.iterdir():
            file.rename(hub.data_dir / file.name)
        away.rmdir()


@contextlib.contextmanager
def replaced(hub: TaskHubProcess) -> Iterator[None]:
    """A copy of the database's file has its name for a while."""
    path = database_file(hub)
    kept = path.with_name("kept")
    path.rename(kept)
    shutil.copy(kept, path)
    try:
        yield
    finally:
        kept.rename(path)


@contextlib.contextmanager
def read_only(directory: Path) -> Iterator[None]:
    """What is in a directory, and the directory, can be read and not written."""
    modes = {path: path.stat().st_mode for path in (directory, *directory.glob("taskhub.db*"))}
    for path in modes:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)


def as_anybody() -> list[str]:
    """What makes a program obey the modes of files, which root need not."""
    if os.geteuid() != 0:
        return []
    if (setpriv := shutil.which("setpriv")) is None:
        pytest.skip("missing setpriv (util-linux): without it root may write everything")
    return [setpriv, "--bounding-set", "-dac_override,-dac_read_search"]


@contextlib.asynccontextmanager
async def followed(hub: TaskHubProcess) -> AsyncIterator[list[Follower]]:
    """Two streams that must stay open and have all of the log in the end."""
    followers = [
        Follower(f"follower {n}", [hub.url], query, random.Random(n), silent_s=120)
        for n, query in enumerate(({}, {"status": "received"}))
    ]
    async with following(followers):
        for follower in followers:
            await follower.connected()
        yield followers
        await all_have(followers, await read_log(f"sqlite:///{database_file(hub)}"))
    assert [follower.connections for follower in followers] == [1, 1]
    assert not any(follower.resets or follower.goodbyes for follower in followers)


async def write(client: Api, key: str) -> Answer:
    return await client.request(
        "POST", "/api/v1/tickets", json={"summary": "Refused first"}, headers={"Idempotency-Key": key}
    )


async def check_refused(client: Api, key: str, detail: str) -> None:
    """A write says what is wrong and that it may be repeated, and so does readiness; the process lives."""
    refused = await write(client, key)
    assert (refused.status, refused.json["code"], refused.json["retryable"]) == (503, "storage_busy", True), refused
    assert detail in refused.json["detail"]
    # One after the other: what waits for another of these would be refused for that.
    ready = await client.request("GET", "/readyz")
    assert (ready.status, ready.json["status"]) == (503, "unavailable")
    assert (await client.request("GET", "/healthz")).status == 200
    async with mcp_http(client.base_url) as tools:
        error = await call_failing(tools, "create_ticket", summary="Refused first", idempotency_key=key)
    assert (error["code"], error["retryable"]) == ("storage_busy", True)
    assert detail in error["message"].lower()


async def check_recovered(client: Api, key: str) -> None:
    """The same write works now, once, and the tickets are what the log says."""
    made = [await write(client, key) for _ in range(2)]
    assert [answer.status for answer in made] == [201, 201], made
    assert made[0].json["event_id"] == made[1].json["event_id"]
    ready = await client.get("/readyz")
    assert ready["status"] == "ready"
    tickets = await client.all_tickets()
    log = await client.log()
    assert {event["subject"]: event["data"]["ticket"] for event in log} == tickets
    assert [int(event["id"].rpartition("-")[2]) for event in log] == list(range(1, len(log) + 1))


@pytest.mark.parametrize(
    ("fault", "detail"),
    [
        (locked, "another process has locked the database; nothing was changed"),
        (no_room, "the disk refuses to read or write the database file"),
        (moved_away, "the database file taskhub.db is not there: put it back; nothing was changed"),
        (replaced, "another file has taken the place of the database file taskhub.db: restart the server"),
    ],
    ids=["locked", "no room", "moved away", "replaced"],
)
async def test_a_database_file_in_trouble_refuses_clearly_and_works_again_without_a_restart(
    hub: TaskHubProcess, rest: Api, fault: Fault, detail: str
) -> None:
    async with followed(hub) as followers:
        await rest.create("Before")
        with fault(hub):
            await check_refused(rest, fault.__name__, detail)
            if fault in (moved_away, replaced):  # else the streams lack nothing
                await until(lambda: all(f.notices == ["degraded"] for f in followers), "notice degraded")
        await check_recovered(rest, fault.__name__)
        await until(lambda: all(f.notices[-1:] != ["degraded"] for f in followers), "notice recovered")
        await rest.create("After")
    with contextlib.closing(sqlite3.connect(database_file(hub))) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


async def test_readiness_knows_of_a_disk_that_has_room_again_before_anybody_writes(
    hub: TaskHubProcess, rest: Api
) -> None:
    with no_room(hub):
        assert (await write(rest, "no-room")).status == 503
        assert hub.status("/readyz") == 503
        assert (await rest.request("GET", "/api/v1/tickets")).status == 200

    assert hub.status("/readyz") == 200


async def test_a_file_that_was_read_only_when_it_was_opened_is_opened_again(make_hub: MakeHub) -> None:
    server = [sys.executable, "-m", "taskhub", "serve", "--no-reload", "--port", "0"]
    hub = await make_hub(command=[*as_anybody(), *server]).start()
    async with followed(hub), api(hub.url) as client:
        with no_room(hub):  # a disk that fails is reason enough to open the file anew
            assert (await write(client, "read-only")).status == 503
            remounted = contextlib.ExitStack()
            remounted.enter_context(read_only(hub.data_dir))
        with remounted:
            await check_refused(client, "read-only", "the database file is read-only; nothing was changed")
        await check_recovered(client, "read-only")


@pytest.mark.parametrize("lock_file", [False, True], ids=["new directory", "directory in use"])
async def test_a_server_that_may_not_write_its_data_says_so_and_ends(tmp_path: Path, lock_file: bool) -> None:
    data = tmp_path / "data"
    data.mkdir()
    if lock_file:
        (data / "taskhub.db").touch()
        (data / "taskhub.db.migrate").touch()
    command = [*as_anybody(), sys.executable, "-m", "taskhub", "migrate"]
    with read_only(data):
        printed = await run_command(
            "sh", "-c", '"$@" 2>&1', "sh", *command, environment={"TASKHUB_DATA_DIR": str(data)}, status=1
        )

    assert "Permission denied" in printed or "read-only" in printed
    assert str(data) in printed
    assert "Traceback" not in printed
