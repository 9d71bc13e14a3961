"""The first screen of the README, done as it says."""

import asyncio
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
from aiohttp.test_utils import BaseTestServer, TestServer

from taskhub.app import create_app
from taskhub.settings.loading import load

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
PRINTED_ADDRESS = "http://127.0.0.1:8000"
DEADLINE_S = 60

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def commands(server: BaseTestServer) -> list[list[str]]:
    """The curl commands of the README in order, with the address of this server."""
    address = str(server.make_url("")).rstrip("/")
    text = README.replace("\\\n", " ").replace(PRINTED_ADDRESS, address)
    # A command begins with its own line and goes on to the next one, or to an empty line.
    return [
        shlex.split(found) for found in re.findall(r"^    (curl .*?)(?=\n    \S|\n\n)", text, re.MULTILINE | re.DOTALL)
    ]


async def test_the_tool_call_of_the_readme_shows_up_in_the_stream_of_the_readme(tmp_path: Path) -> None:
    async with TestServer(create_app(load({"data_dir": tmp_path}).settings)) as server:
        watch, call, *_ = commands(server)
        watching = await asyncio.create_subprocess_exec(*watch, stdout=asyncio.subprocess.PIPE)
        assert watching.stdout is not None
        try:
            async with asyncio.timeout(DEADLINE_S):
                await watching.stdout.readuntil(b"event: ready")
                calling = await asyncio.create_subprocess_exec(*call, "-sS", stdout=asyncio.subprocess.PIPE)
                answer = json.loads((await calling.communicate())[0])
                event = await watching.stdout.readuntil(b'"type":"ticket.created"')
        finally:
            watching.kill()
            await watching.wait()

    written = answer["result"]["structuredContent"]
    assert f'"id":"{written["event_id"]}"'.encode() in event


async def test_every_stream_of_the_readme_opens(tmp_path: Path) -> None:
    async with TestServer(create_app(load({"data_dir": tmp_path}).settings, demo=True)) as server:
        streams = [command for command in commands(server) if any("/events/stream" in word for word in command)]
        assert len(streams) >= 4
        for command in streams:
            process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
            assert process.stdout is not None
            try:
                async with asyncio.timeout(DEADLINE_S):
                    opened = await process.stdout.readuntil(b"}")
            finally:
                process.kill()
                await process.wait()

            assert b"event: hello" in opened, command


async def test_every_change_of_the_readme_is_made(tmp_path: Path) -> None:
    async with TestServer(create_app(load({"data_dir": tmp_path}).settings, demo=True)) as server:
        calls = [command for command in commands(server) if "-d" in command]
        assert len(calls) >= 6
        for call in calls:
            process = await asyncio.create_subprocess_exec(
                *call, "-sS", "--fail-with-body", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
            )
            async with asyncio.timeout(DEADLINE_S):
                answer, _ = await process.communicate()

            assert process.returncode == 0, (call, answer)
