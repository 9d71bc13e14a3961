"""Backups: one moment of the database, in a file that is there when it is whole."""

import asyncio
import contextlib
import errno
import gzip
import io
import os
from pathlib import Path
from typing import Any

import orjson
import pytest

from taskhub.cli.parser import run
from taskhub.storage import whole_files
from taskhub.storage.backup import EmptyDatabase, backup, dump
from taskhub.storage.backup_file import (
    BackupReader,
    BackupWriter,
    BadBackup,
    CannotWrite,
    Header,
    Table,
    Trailer,
    verify,
)
from taskhub.storage.database import Database
from taskhub.storage.schema import METADATA, SIGNED_IN, search_documents
from tests.forked import run_forked
from tests.servers import PostgresServer
from tests.taskhub.storage.history import live
from tests.taskhub.world import Gate, World

HEADER = Header(taskhub="0.0.0", revision="0001", created_at="2026-11-20T12:00:00.000Z", logs={})


async def test_a_backup_has_every_row_of_every_table_and_is_for_its_owner_alone(world: World, tmp_path: Path) -> None:
    await live(world)
    path = tmp_path / "taskhub.backup"

    written = await backup(world.database, path)

    header, trailer = verify(path)
    bounds = await world.log.bounds("default")
    assert trailer == written
    assert set(written.rows) == METADATA.tables.keys() - {search_documents.name, *(table.name for table in SIGNED_IN)}
    assert (written.rows["tickets"], written.rows["events"]) == (4, bounds.head)
    assert (header.logs["default"].epoch, header.logs["default"].head_seq) == (bounds.epoch, bounds.head)
    assert path.stat().st_mode & 0o777 == 0o600
    assert not [name for name in os.listdir(tmp_path) if "unfinished" in name]


class SlowFile(io.BytesIO):
    """The first write to it waits."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self._gate: Gate | None = gate

    def write(self, data: Any) -> int:
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.pass_through()
        return super().write(data)


async def test_a_backup_is_of_one_moment_while_others_write(world: World) -> None:
    await world.create("before")
    gate = Gate()
    file = SlowFile(gate)
    making = asyncio.create_task(world.database.read(lambda connection: dump(connection, file)))
    await gate.reached()
    for n in range(3):
        await world.create(f"meanwhile {n}")
    gate.open()

    written = await making

    lines = [orjson.loads(line) for line in gzip.decompress(file.getvalue()).splitlines()]
    (workspace,) = (line for line in lines if isinstance(line, list) and line[1:3] == ["TH", "Default"])
    assert (written.rows["tickets"], written.rows["events"], lines[0]["logs"]["default"]["head_seq"]) == (1, 1, 1)
    assert 1 in workspace


async def test_a_file_that_exists_is_replaced_only_when_that_is_asked_for(world: World, tmp_path: Path) -> None:
    path = tmp_path / "taskhub.backup"
    path.write_text("precious")

    with pytest.raises(FileExistsError):
        await backup(world.database, path)

    assert path.read_text() == "precious"
    await backup(world.database, path, replace=True)
    verify(path)


async def test_a_file_that_appears_meanwhile_is_not_replaced(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "taskhub.backup"

    def appear(unfinished: Path) -> tuple[Header, Trailer]:
        path.write_text("precious")
        return verify(unfinished)

    monkeypatch.setattr("taskhub.storage.backup_file.verify", appear)
    with pytest.raises(FileExistsError):
        await backup(world.database, path)

    assert path.read_text() == "precious"


async def test_what_is_not_what_was_written_does_not_become_the_backup(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damage(unfinished: Path) -> tuple[Header, Trailer]:
        unfinished.write_bytes(unfinished.read_bytes()[:-20])
        return verify(unfinished)

    monkeypatch.setattr("taskhub.storage.backup_file.verify", damage)
    with pytest.raises(BadBackup, match="cut off"):
        await backup(world.database, tmp_path / "taskhub.backup")

    assert not [name for name in os.listdir(tmp_path) if "backup" in name]


KILLED = """
import os, signal, sys
from taskhub.cli.parser import run
from taskhub.storage import backup_file
backup_file.verify = lambda path: os.kill(os.getpid(), signal.SIGKILL)
run(["backup", sys.argv[1]])
"""


async def test_a_backup_that_is_killed_leaves_nothing_under_its_name(
    world: World, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKHUB_DATABASE_URL", url)
    path = tmp_path / "taskhub.backup"

    killed = await asyncio.to_thread(run_forked, "-c", KILLED, str(path))

    assert killed.returncode == -9
    assert not path.exists()
    await backup(world.database, path)
    verify(path)


def lines(*values: Any) -> bytes:
    return gzip.compress(b"".join(orjson.dumps(value) + b"\n" for value in values))


def small() -> bytes:
    """A backup of two rows."""
    file = io.BytesIO()
    writer = BackupWriter(file, HEADER)
    writer.begin(Table("things", ("id", "text")))
    writer.row(("a", "text"))
    writer.row(("b", "全文"))
    writer.finish()
    return file.getvalue()


def edited(old: bytes, new: bytes) -> bytes:
    return gzip.compress(gzip.decompress(small()).replace(old, new))


HEAD = {"format": "taskhub-backup", "version": 1, "taskhub": "1", "revision": "0001", "created_at": "", "logs": {}}

DAMAGES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is not a backup"),
    "something else": (b"PK\3\4 a zip file", "is not a backup"),
    "something else in gzip": (gzip.compress(b"hello\n"), "is not a backup"),
    "another program's": (lines({"format": "other"}), "is not a backup"),
    "a newer format": (lines({**HEAD, "version": 2}), "has format 2, which a newer TaskHub has written"),
    "a header without a revision": (lines({**HEAD, "revision": None}), "another form"),
    "only a header": (lines(HEAD), "is cut off"),
    "a row that is gone": (edited(b'["a","text"]\n', b""), "SHA-256"),
    "a row that was changed": (edited(b"text\"]", b"test\"]"), "SHA-256"),
    "a row too few in the count": (edited(b'"things":2', b'"things":3'), "as many rows"),
    "a row too long": (edited(b'["a","text"]', b'["a","text",1]'), "out of place"),
    "a row before its table": (lines(HEAD, ["a"]), "out of place"),
    "a table twice": (lines(HEAD, *[{"table": "things", "columns": ["id"]}] * 2), "twice"),
    "no JSON": (edited(b'["a"', b'["a'), "not JSON"),
    "a number": (lines(HEAD, 5), "neither a row nor a table"),
    "an unknown line": (lines(HEAD, {"end": True}), "another form"),
    "more after it": (edited(b'"}\n', b'"}\nmore\n'), "follows its last line"),
    "a second backup after it": (small() * 2, "follows its last line"),
    "something after the gzip": (small() + b"more", "is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_wrong_with_a_file_is_said(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "some.backup"
    data, said = DAMAGES[damage]
    path.write_bytes(data)

    with pytest.raises(BadBackup, match=said) as raised:
        verify(path)

    assert str(path) in str(raised.value)


def test_no_file_that_is_cut_or_flipped_anywhere_is_taken_for_a_backup(tmp_path: Path) -> None:
    path = tmp_path / "some.backup"
    whole = small()
    path.write_bytes(whole)
    header, trailer = verify(path)
    assert (header, trailer.rows) == (HEADER, {"things": 2})

    for place in range(len(whole)):
        path.write_bytes(whole[:place])
        with pytest.raises(BadBackup):
            verify(path)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            found = verify(path)
        except BadBackup:
            continue
        assert found == (header, trailer), f"byte {place}"  # a byte of gzip's that says nothing, such as its time


def test_rows_are_read_one_after_the_other(tmp_path: Path) -> None:
    (tmp_path / "some.backup").write_bytes(small())

    with BackupReader(tmp_path / "some.backup") as reader:
        found = list(reader.contents())

    assert found == [Table("things", ("id", "text")), ["a", "text"], ["b", "全文"]]


@pytest.mark.parametrize("after", [0, 10])
def test_a_disk_that_is_full_is_no_database_that_is_away(after: int, tmp_path: Path) -> None:
    class FullDisk(io.BytesIO):
        def write(self, data: Any) -> int:
            if self.tell() >= after:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(data)

    def write() -> None:
        writer = BackupWriter(FullDisk(), HEADER)
        writer.begin(Table("things", ("id",)))
        writer.finish()

    with pytest.raises(CannotWrite, match="No space"):
        write()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        (tmp_path / "empty.db").touch()
        return f"sqlite:///{tmp_path}/empty.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.create_database()


async def test_an_empty_database_is_said_to_be(empty_url: str, tmp_path: Path) -> None:
    database = Database(empty_url)
    await database.open()

    with pytest.raises(EmptyDatabase):
        await backup(database, tmp_path / "some.backup")

    await database.close()
    assert not (tmp_path / "some.backup").exists()


def test_the_command_says_what_it_did(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TASKHUB_DATABASE_URL", url)

    assert run(["backup", "some.backup"]) == 0
    assert capsys.readouterr().out == "0 tickets and 0 events backed up, read again and found whole\n"
    assert run(["backup", "some.backup"]) == 1
    assert "some.backup exists; --force replaces it" in capsys.readouterr().err
    assert run(["backup", "--force", "some.backup"]) == 0
    assert run(["backup", "no directory/some.backup"]) == 1
    assert "No such file or directory" in capsys.readouterr().err


async def test_standard_output_gets_the_backup_and_nothing_else(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKHUB_DATABASE_URL", url)
    done = await asyncio.to_thread(run_forked, "-m", "taskhub", "backup", "-")
    (tmp_path / "some.backup").write_bytes(done.stdout)

    assert verify(tmp_path / "some.backup")[1].rows["tickets"] == 0
    assert done.returncode == 0
    assert done.stderr == b"0 tickets and 0 events backed up\n"


def test_a_database_that_is_not_there_is_not_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TASKHUB_DATABASE_URL", f"sqlite:///{tmp_path}/none.db")

    assert run(["backup", str(tmp_path / "some.backup")]) == 1

    assert "there is no database" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("exists", [True, False])
def test_a_file_system_without_links_keeps_what_is_there_all_the_same(
    exists: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "some.backup"

    def no_links(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with whole_files.unfinished(path) as (beside, file):
        file.write(b"new")
        file.flush()
        if exists:
            path.write_bytes(b"precious")
            with pytest.raises(FileExistsError):
                whole_files.give_name(beside, path, replace=False)
        else:
            whole_files.give_name(beside, path, replace=False)

    assert path.read_bytes() == (b"precious" if exists else b"new")
    assert os.listdir(tmp_path) == ["some.backup"]


@pytest.mark.parametrize(("number", "tolerated"), [(errno.EINVAL, True), (errno.ENOTSUP, True), (errno.EIO, False)])
def test_a_directory_that_cannot_be_synced_is_no_failure_of_the_disk(
    number: int, tolerated: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with contextlib.nullcontext() if tolerated else pytest.raises(OSError, match="error"):
        whole_files.sync_directory(tmp_path)


def test_what_a_writer_that_was_killed_has_left_goes_and_what_one_writes_stays(tmp_path: Path) -> None:
    path = tmp_path / "some.backup"
    left = tmp_path / ".some.backup.unfinished"
    left.write_bytes(b"left behind by one that was killed, and for all to read")
    left.chmod(0o644)

    with whole_files.unfinished(path) as (beside, file):
        with pytest.raises(whole_files.BeingWritten, match=r"some\.backup"), whole_files.unfinished(path):
            pass
        file.write(b"new")
        file.flush()
        assert (beside, beside.read_bytes(), beside.stat().st_mode & 0o777) == (left, b"new", 0o600)

    assert os.listdir(tmp_path) == []


TERMINATED = """
import os, signal, sys
from taskhub.cli.parser import run
from taskhub.storage import backup
header = backup._header
def terminate(*arguments):
    os.kill(os.getpid(), signal.SIGTERM)
    return header(*arguments)
backup._header = terminate
sys.exit(run(["backup", sys.argv[1]]))
"""


async def test_a_backup_that_is_told_to_end_takes_its_file_with_it(
    world: World, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TASKHUB_DATABASE_URL", url)
    directory = tmp_path / "backups"
    await asyncio.to_thread(directory.mkdir)

    ended = await asyncio.to_thread(run_forked, "-c", TERMINATED, str(directory / "some.backup"))

    assert (ended.returncode, ended.stdout, ended.stderr) == (143, b"", b"")
    assert os.listdir(directory) == []
