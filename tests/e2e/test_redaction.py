"""Secrets are sent to a server in every place where they can stand, right and wrong: none of them is told again.

What they are sent with is broken on purpose, so that errors of every layer have a chance to repeat it.
"""

import asyncio
import base64
import itertools
import json
import re
from collections.abc import Iterator
from typing import Any, Final

import pytest

from taskhub.auth.secret import new_secret
from tests.e2e.harness.clients import api
from tests.e2e.harness.process import TaskHubProcess, run_taskhub
from tests.e2e.harness.waiting import DEADLINE_S, until

ROOT: Final = "root-hunter2-key"
REDIS: Final = "redis-hunter2"
PLAIN: Final = "plain-hunter2"
"""What has no form by which it could be told."""
HANDED_OUT: Final = [new_secret(f"th{kind}_") for kind in "kslt"]
KEY: Final = HANDED_OUT[0]
MODERN: Final = "2026-07-28"
OLDER: Final = "2025-11-25"
SESSION: Final = "the-session-that-is-opened-first"
"""In its place the id comes that the server gives it."""
META: Final = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
}
NUMBERS: Final = itertools.count(1)
INITIALIZE: Final = {"protocolVersion": OLDER, "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}


def sent(line: str, *headers: str, body: str = "", length: int | None = None) -> bytes:
    """A request as bytes; whether it is one is another matter."""
    head = [line, "Host: 127.0.0.1", "Connection: close", *headers]
    if body:
        head.append(f"Content-Length: {len(body.encode()) if length is None else length}")
    return ("\r\n".join(head) + "\r\n\r\n" + body).encode("utf-8", "surrogateescape")


def requests() -> Iterator[bytes]:
    """Requests that go wrong, each with secrets in it."""
    auth, json_type = f"x-api-key: {ROOT}", "Content-Type: application/json"
    basic = base64.b64encode(f"me:{PLAIN}".encode()).decode()
    for secret in (*HANDED_OUT, PLAIN):
        for header in (
            f"x-api-key: {secret}", f"Authorization: Bearer {secret}", f"Authorization: {secret}",
            f"Authorization: Basic {basic}", f"Cookie: session={secret}; theme=dark", f"Proxy-Authorization: {secret}",
        ):  # fmt: skip
            yield sent("GET /api/v1/tickets HTTP/1.1", header)
        yield sent(f"GET /api/v1/tickets?token={secret} HTTP/1.1", auth)
        yield sent(f"GET /events/stream?token={secret}&status=x&last_event_id={secret[:40]} HTTP/1.1", auth)
        yield sent(f"GET /events/stream?api_key={secret}&limit=0 HTTP/1.1", auth)
        yield sent(f"POST /message?token={secret} HTTP/1.1", auth, json_type, body="{}")
        # A header that is none, a line that is none, a version that is none.
        yield sent("GET / HTTP/1.1", f"x-api-key: {secret}\x00")
        yield sent("GET / HTTP/1.1", f"x-api-key {secret}")
        yield sent(f"GET /events/stream?token={secret} HTTP/9.9")
        yield f"x-api-key: {secret}\r\n\r\n".encode()
        yield sent("GET / HTTP/1.1", f"x-api-key: {secret * 400}")
        for field in ("password", "api_key", "token", "client_secret"):
            yield sent("POST /api/v1/tickets HTTP/1.1", auth, json_type, body=json.dumps({field: secret}))
            yield sent("POST /api/v1/tickets HTTP/1.1", auth, json_type, body=f'{{"{field}": "{secret}", ')
        yield sent("POST /api/v1/tickets HTTP/1.1", auth, json_type, body=f'{{"token": "{secret}"}}', length=9999)
        yield sent("POST /api/v1/tickets HTTP/1.1", auth, "Transfer-Encoding: chunked", body=f"zz\r\ntoken={secret}")
        yield sent(
            "POST /api/v1/tickets HTTP/1.1", auth, json_type, "Content-Encoding: gzip", body=f'{{"token": "{secret}"}}'
        )
        for attempt in ({"name": "olga", "password": secret * 3}, {"link": secret}, {"password": secret}):
            yield sent(
                "POST /api/v1/session HTTP/1.1", json_type, "Sec-Fetch-Site: same-origin", body=json.dumps(attempt)
            )
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call"}
        for params in (
            {"name": "create_ticket", "arguments": {"password": secret}}, {"name": secret, "token": secret}, secret,
        ):  # fmt: skip
            body = json.dumps({**call, "params": params if isinstance(params, dict) else {"token": params}})
            yield sent("POST /mcp HTTP/1.1", auth, json_type, "Accept: application/json, text/event-stream", body=body)
            legacy = ("MCP-Protocol-Version: 2025-11-25", "Accept: application/json, text/event-stream")
            yield sent("POST /mcp HTTP/1.1", auth, json_type, *legacy, f"Mcp-Session-Id: {secret}", body=body)
    for secret in HANDED_OUT:
        # What TaskHub hands out is known by its form, wherever it stands.
        yield from messages(secret)
        yield sent(f"GET /{secret} HTTP/1.1", auth)
        yield sent(f"GET /api/v1/tickets/{secret} HTTP/1.1", auth)
        yield sent(f"GET /api/v1/tickets?{secret}=1&query={secret} HTTP/1.1", auth)
        yield sent(f"GET /api/v1/keys/{secret} HTTP/1.1", auth)
        yield sent(f"PATCH /api/v1/tickets/{secret}%2F HTTP/1.1", auth)
        yield sent(f"{secret} / HTTP/1.1", auth)
        yield sent("GET /api/v1/tickets HTTP/1.1", auth, f"Origin: https://{secret.lower()}.example.org")
        yield sent("GET /api/v1/tickets HTTP/1.1", auth, f"If-Match: {secret}", f"Last-Event-ID: {secret}")
        yield sent("POST /api/v1/tickets HTTP/1.1", auth, json_type, f"If-Match: {secret}", body="{}")
        yield sent(
            "POST /api/v1/keys HTTP/1.1",
            auth,
            json_type,
            body=json.dumps({"user": "olga", "name": f"copy of {secret}"}),
        )
        yield sent(
            "POST /api/v1/tickets HTTP/1.1", auth, json_type, body=json.dumps({"summary": "x", "status": secret})
        )
        yield sent("POST /events HTTP/1.1", auth, json_type, body=json.dumps({"type": secret, "data": {}}))
        yield sent("POST /api/v1/import HTTP/1.1", auth, "Content-Type: text/csv", body=f"key,{secret}\nTH-1,x\n")


def messages(secret: str) -> Iterator[bytes]:
    """What MCP clients ask for wrongly, in both eras of the protocol."""
    for method, params in (
        ("tools/call", {"name": secret, "arguments": {}}),
        ("tools/call", {"name": "get_ticket_detail", "arguments": {"ticket_id": secret}}),
        ("tools/call", {"name": "get_ticket_detail", "arguments": {secret: secret}}),
        ("tools/call", {"name": "get_ticket_list", "arguments": {"sort_by": secret, "status": [secret]}}),
        ("tools/call", {"name": "update_ticket", "arguments": {"ticket_id": "TH-1", "person_in_charge": secret}}),
        ("resources/read", {"uri": f"taskhub://tickets/{secret}"}),
        ("resources/read", {"uri": secret}),
        ("resources/subscribe", {"uri": secret}),
        ("prompts/get", {"name": secret}),
        ("prompts/get", {"name": "triage", "arguments": {secret: secret}}),
        (
            "completion/complete",
            {"ref": {"type": "ref/prompt", "name": secret}, "argument": {"name": "x", "value": "y"}},
        ),
        ("tools/list", {"cursor": secret}),
        (secret, {}),
    ):
        named = params.get("uri") or params.get("name") or ""
        yield called(method, params, f"Mcp-Method: {method}", f"Mcp-Name: {named}", version=MODERN)
        yield called(method, params, f"Mcp-Method: {method}", "Mcp-Name: another", version=MODERN)
        yield called(method, params, f"Mcp-Session-Id: {SESSION}", version=OLDER)
    for header in ("X-MCP-Toolsets", "MCP-Protocol-Version", "Mcp-Session-Id", "Mcp-Name", "X-TaskHub-Actor"):
        yield called("tools/list", {}, f"{header}: {secret}", version=None if "Protocol" in header else MODERN)


def called(method: str, params: dict[str, Any], *headers: str, version: str | None) -> bytes:
    told = () if version is None else (f"MCP-Protocol-Version: {version}",)
    meta = {"_meta": META} if version == MODERN else {}
    # No two requests of a session that are under way have one id.
    body = json.dumps({"jsonrpc": "2.0", "id": next(NUMBERS), "method": method, "params": {**params, **meta}})
    json_type = ("Content-Type: application/json", "Accept: application/json, text/event-stream")
    return sent("POST /mcp HTTP/1.1", f"x-api-key: {ROOT}", *json_type, *told, *headers, body=body)


async def exchange(port: int, request: bytes, places: asyncio.Semaphore) -> str:
    """What the server answers until it closes; a stream that goes on is left."""
    async with places:
        return await _exchange(port, request)


async def _exchange(port: int, request: bytes) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""
    try:
        writer.write(request)
        if b'"token": ' in request and b"Content-Length: 9999" in request:
            writer.write_eof()  # it says more than comes
        async with asyncio.timeout(DEADLINE_S):
            while piece := await reader.read(65536):
                answer += piece
                if b"event: ready" in answer or b"event: goodbye" in answer:
                    break
    except ConnectionError:
        pass
    finally:
        writer.close()
    return answer.decode(errors="replace")


@pytest.fixture
async def talkative(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TaskHubProcess:
    """A server that logs whatever it can, in the form asked for, and has a Redis that is not there."""
    environment = {
        "TASKHUB_LOG_LEVEL": "debug",
        "TASKHUB_LOG_FORMAT": request.param,
        "TASKHUB_API_KEY": ROOT,
        "TASKHUB_REDIS_URL": f"redis://:{REDIS}@127.0.0.1:1/0",
    }
    return TaskHubProcess(tmp_path_factory.mktemp("talkative") / "hub", environment=environment)


@pytest.mark.parametrize("talkative", ["json", "console"], indirect=True)
async def test_no_secret_is_told_again(talkative: TaskHubProcess, hubs: list[TaskHubProcess]) -> None:
    hub = talkative
    hubs.append(hub)
    try:
        await run_taskhub("keys", "create", "--user", "olga", "--role", "operator", environment=hub.environment)
        await hub.start()
        secrets = [ROOT, REDIS, PLAIN, base64.b64encode(f"me:{PLAIN}".encode()).decode(), *HANDED_OUT]
        every = list(requests())
        places = asyncio.Semaphore(20)
        opened = await exchange(hub.port, called("initialize", INITIALIZE, version=OLDER), places)
        session = re.findall("(?i)mcp-session-id: (.*)\r", opened)[0]
        every = [request.replace(SESSION.encode(), session.encode()) for request in every]
        answers = await asyncio.gather(*(exchange(hub.port, request, places) for request in every))
        for request, answer in zip(every, answers, strict=True):
            if '"code"' in answer or '"error"' in answer:  # a problem; what was stored is another matter
                told_again = [s for s in HANDED_OUT if s in answer or s.capitalize()[:4] + s[4:] in answer]
                assert told_again == [], (request, answer)
        async with api(hub.url, {"x-api-key": ROOT}) as root:

            async def counted() -> bool:
                found = (await root.get("/api/v1/audit?action=authentication.failed"))["entries"]
                return bool(found)

            await until(counted, "entry of the refusals")
            shown = {path: json.dumps(await root.get(path)) for path in ("/api/v1/audit?limit=200", "/events/debug")}
        shown["check"] = await run_taskhub("check", environment=hub.environment)
        shown["audit"] = await run_taskhub("audit", environment=hub.environment)
        await hub.stop()
        shown["log"] = hub.log
    finally:
        hub.dispose()
        hubs.remove(hub)

    told = {place: [secret for secret in secrets if secret in text] for place, text in shown.items()}
    assert told == {place: [] for place in shown}
    assert "/api/v1/tickets" in shown["log"]
    assert "key.created" in shown["audit"]


@pytest.mark.parametrize("form", ["json", "console"])
async def test_a_database_that_does_not_answer_is_named_without_its_password(tmp_path: object, form: str) -> None:
    environment = {
        "TASKHUB_DATABASE_URL": f"postgresql://me:{PLAIN}@127.0.0.1:1/taskhub?password={PLAIN}",
        "TASKHUB_LOG_LEVEL": "debug",
        "TASKHUB_LOG_FORMAT": form,
        "TASKHUB_DATA_DIR": str(tmp_path),
    }
    for command in (("serve", "--port", "0", "--no-reload"), ("audit",), ("keys", "list"), ("doctor",), ("check",)):
        said = await spoken(*command, environment=environment)
        assert said, command
        assert PLAIN not in said, command


async def spoken(*arguments: str, environment: dict[str, str]) -> str:
    """All that a command prints, whether it works or not."""
    try:
        return await run_taskhub(*arguments, environment=environment)
    except AssertionError as failed:
        return str(failed)
