"""The files of running servers, and `server.json`, which names the newest of them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from taskhub import server_file
from taskhub.server_file import RunningServer


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that lives until standard input is closed."""
    with subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE) as process:
        yield process


def end(process: subprocess.Popen[bytes]) -> None:
    process.communicate()


def test_a_running_server_is_found(tmp_path: Path) -> None:
    here = RunningServer(os.getpid(), "http://127.0.0.1:8001", "api_key")
    server_file.write(tmp_path / "new", here)

    assert server_file.read(tmp_path / "new") == here
    document = json.loads((tmp_path / "new" / "server.json").read_text())
    assert document == {"pid": here.pid, "url": here.url, "auth": "api_key"}


def test_a_server_that_is_gone_is_not_found_and_the_next_one_removes_its_file(
    tmp_path: Path, process: subprocess.Popen[bytes]
) -> None:
    server_file.write(tmp_path, RunningServer(process.pid, "http://127.0.0.1:8001"))
    end(process)
    assert server_file.read(tmp_path) is None

    server_file.write(tmp_path, RunningServer(os.getpid(), "http://127.0.0.1:8002"))

    assert [path.name for path in (tmp_path / "servers").iterdir()] == [f"{os.getpid()}.json"]


def test_missing_or_damaged_files_mean_no_server(tmp_path: Path) -> None:
    assert server_file.read(tmp_path) is None
    (tmp_path / "servers").mkdir()
    for content in ("", "[]", '{"pid": "x"}', '{"url": "http://h"}', '{"pid": -1, "url": "http://h"}', "\xff"):
        (tmp_path / "servers" / "1.json").write_bytes(content.encode("latin-1"))
        assert server_file.read(tmp_path) is None


def test_of_two_servers_the_newer_is_named_and_the_older_again_when_that_has_ended(
    tmp_path: Path, process: subprocess.Popen[bytes]
) -> None:
    first = RunningServer(process.pid, "http://127.0.0.1:8001")
    second = RunningServer(os.getpid(), "http://127.0.0.1:8002")
    server_file.write(tmp_path, first)
    os.utime(tmp_path / "servers" / f"{first.pid}.json", (1, 1))
    server_file.write(tmp_path, second)
    assert server_file.read_all(tmp_path) == [second, first]
    assert json.loads((tmp_path / "server.json").read_text())["pid"] == second.pid

    server_file.remove(tmp_path, second.pid)

    assert server_file.read(tmp_path) == first
    assert json.loads((tmp_path / "server.json").read_text())["pid"] == first.pid


def test_only_its_own_entry_is_removed_by_a_server_that_ends(tmp_path: Path) -> None:
    successor = RunningServer(os.getpid(), "http://127.0.0.1:8001")
    server_file.write(tmp_path, successor)

    server_file.remove(tmp_path, successor.pid + 1)
    assert server_file.read(tmp_path) == successor

    server_file.remove(tmp_path, successor.pid)
    assert not (tmp_path / "server.json").exists()
    assert server_file.read(tmp_path) is None
