"""The conversation of an agent with the tools in the README, held as it is written there."""

import asyncio
import json
import re
import shlex
from pathlib import Path
from typing import Any, Final

import httpx2
from aiohttp.test_utils import TestServer
from mcp.client.client import Client
from mcp_types import ElicitResult, Implementation

from taskhub.app import create_app
from taskhub.settings.loading import load

ROOT: Final = Path(__file__).resolve().parents[2]
PRINTED_ADDRESS: Final = "http://127.0.0.1:8000"
DEADLINE_S: Final = 120
CALL: Final = re.compile(r"(\w+) (\{.*\})")


def lines() -> list[str]:
    """What was said, without what is told about it."""
    section = (ROOT / "README.md").read_text().partition("### A ticket from claim to done\n")[2].partition("\n## ")[0]
    return [line.strip() for line in section.splitlines() if line.startswith("    ")]


def shown(answer: Any, told: Any, where: str) -> None:
    """What is told of an answer is true; `…` stands for anything."""
    if told == "…":
        assert answer, where
    elif isinstance(told, dict):
        for name, value in told.items():
            assert name in answer, f"{where} has no {name}: {answer}"
            shown(answer[name], value, f"{where}/{name}")
    elif isinstance(told, list):
        assert len(answer) == len(told), f"{where}: {answer}"
        for number, (each, value) in enumerate(zip(answer, told, strict=True)):
            shown(each, value, f"{where}/{number}")
    else:
        assert answer == told, where


async def test_the_conversation_of_the_readme_goes_as_it_is_told(tmp_path: Path) -> None:
    asked: list[str] = []

    async def person(context: object, params: Any) -> ElicitResult:
        asked.append(params.message)
        return ElicitResult(action="accept", content={})

    said, called, questions, position = 0, 0, 0, ""
    async with asyncio.timeout(DEADLINE_S), TestServer(create_app(load({"data_dir": tmp_path}).settings)) as server:
        address = str(server.make_url("")).rstrip("/")
        agent = Implementation(name="Night Shift", version="1")
        async with Client(f"{address}/mcp", client_info=agent, elicitation_callback=person) as client:
            result: Any = None
            for line in lines():
                if line.startswith("curl "):
                    await request(shlex.split(line), address)
                elif line.startswith("? "):
                    questions += 1
                    assert asked == [line.removeprefix("? ")]
                elif line.startswith("→ "):
                    said += 1
                    shown(result.structured_content, json.loads(line.removeprefix("→ ")), result.content[0].text)
                else:
                    call = CALL.fullmatch(line)
                    assert call is not None, line
                    called += 1
                    arguments = call[2].replace("…", position)
                    result = await client.call_tool(call[1], json.loads(arguments))
                    assert not result.is_error, result.content
                    position = result.structured_content.get("position", position)

    assert (said, questions) == (called, len(asked))
    assert called >= 10


async def request(words: list[str], address: str) -> None:
    """What a curl command does that sends one JSON body."""
    url, options = words[1].replace(PRINTED_ADDRESS, address), words[2:]
    pairs = list(zip(options[::2], options[1::2], strict=True))
    headers = dict(value.split(": ", 1) for name, value in pairs if name == "-H")
    (body,) = [value for name, value in pairs if name == "-d"]
    async with httpx2.AsyncClient() as client:
        answer = await client.post(url, content=body.encode(), headers=headers)
    assert answer.status_code == 201, answer.text
