"""Bytes that no honest client sends, to a server of each kind: each gets its answer, and nothing else happens.

Each table goes to a real process over sockets of its own. Afterwards no answer was an error of the server's, the log of
the server has neither a fault nor a line that somebody else wrote, the event log stands where it stood, and nothing is
open.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import psutil
import pytest

from tests.e2e.harness.clients import Api, api
from tests.e2e.harness.process import TaskHubProcess
from tests.e2e.harness.waiting import DEADLINE_S, until

ROOT: Final = "root-key-of-the-hostile-tests"
MODES: Final[Mapping[str, Mapping[str, str]]] = {
    "none": {},
    "api_key": {"TASKHUB_API_KEY": ROOT},
    "oauth": {
        "TASKHUB_AUTH": "oauth",
        "TASKHUB_API_KEY": ROOT,
        "TASKHUB_PUBLIC_URL": "http://localhost:1",
        "TASKHUB_OAUTH_REGISTRATION": "true",
    },
}
EVENT: Final = b'{"type":"a.b","data":{}}'
FEW: Final = 40
"""Descriptors; of connections that are left behind there would be more."""
AT_ONCE: Final = 20
HALF_OPEN: Final = 300


@dataclass(frozen=True, slots=True)
class Row:
    """What is sent, and what comes back: the statuses in their order, and the code of the first problem."""

    sent: bytes
    statuses: tuple[int, ...]
    code: str | None = None

    def __str__(self) -> str:
        return repr(self.sent[:90])


def row(sent: bytes, status: int, code: str | None = None) -> Row:
    return Row(sent, (status,), code)


def request(line: str, *headers: str, body: bytes | None = None, host: str | None = "localhost") -> bytes:
    """A request whose head has these lines, as they stand, and AUTH's place for the key."""
    lines = [line, *([] if host is None else [f"Host: {host}"]), "Connection: close", f"x-api-key: {ROOT}", *headers]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + (body or b"")


def get(target: str, status: int, code: str | None = None, *headers: str) -> Row:
    return row(request(f"GET {target} HTTP/1.1", *headers), status, code)


def post(body: bytes, status: int, code: str | None, *headers: str) -> Row:
    given = headers or ("Content-Type: application/json",)
    return row(request("POST /events HTTP/1.1", *given, body=body), status, code)


def framed(rest: bytes, *statuses: int, code: str | None = None) -> Row:
    """A POST of an event whose framing is in `rest`, which ends its head and may go on."""
    head = f"POST /events HTTP/1.1\r\nHost: localhost\r\nx-api-key: {ROOT}\r\nContent-Type: application/json\r\n"
    return Row(head.encode() + rest, statuses, code)


LIST = "/api/v1/tickets"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
SMUGGLED = b"POST /smuggled HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"

TARGETS: Final = [
    *[get(path, 404, "no_such_resource") for path in (
        "//", "//version", "/./version", "/../version", "/x/../version", "/%2e%2e/version", "/%c0%af", "/%ff", "/%",
        "/%zz", "/version/", "/VERSION", "/api/v1//tickets", "/api/v1/tickets/", "//evil.example/version",
        "/\\evil.example", "/static/../../etc/passwd", "/static/%2e%2e/%2e%2e/x", "/static//etc/passwd",
    )],
    *[get(path, 400, "bad_path") for path in (
        "/..%2fversion", "/version%00", "/version%0a", "/version%0d%0aX:y", "/static/..%2f..%2fREADME.md", "/%5cx",
        "/version%1b[31m", "/%7f",
    )],
    *[get(path, 404, "not_found") for path in (
        f"{LIST}/%20", f"{LIST}/%E2%80%AE", f"{LIST}/TH-1;x=1", f"{LIST}/TH-0", f"{LIST}/TH--1", f"{LIST}/TH-01",
        f"{LIST}/TH-%EF%BC%91", "/api/v1/keys/%20",
    )],
    *[get(target, 400) for target in (
        "*", "/\udcff\udcfe", "/version\x01", "/ver sion", "http:///version", "http://[::1/version",
        "http://localhost:99999/version", "localhost:80", "file:///etc/passwd",
    )],
    get("http://localhost%00/version", 421, "misdirected_request"),
    get("http://evil.example/version", 421, "misdirected_request"),
    *[row(request(f"{method} /version HTTP/1.1"), 405, "method_not_allowed") for method in ("TRACE", "PROPFIND")],
    row(request("OPTIONS * HTTP/1.1"), 404, "no_such_resource"),
]  # fmt: skip

QUERIES: Final = [
    *[get(f"{LIST}?{query}", 400, "bad_parameter") for query in (
        "query=%00", "limit=-1", "limit=1000000000", "limit=%EF%BC%92x", "limit=1e1", "limit=5&limit=6", "=", "a[]=1",
        "query=a&query=b", "cursor=" + "A" * 3000, "cursor=%F0%9F%98%80", "updated_since=9999-12-31T23:59:59-14:00",
        "updated_since=99999999999d", "scheduled_completion_date_from=0000-00-00", "query=" + "a" * 4000,
    )],
    *[get(f"{LIST}?query={query}", 200) for query in (
        "%22", "%22%22", "*", "%25", "_", "NEAR(a+b)", "a+AND", "NOT", "(", "summary:a", "'", "--", "%3Bdrop+table",
        "%7Ba+b%7D:c", "%F0%9F%99%82", "%E2%80%AE", "%EF%BC%8A", "a%0d%0ab", "%FF",
    )],
    *[get(f"/api/v1/events?{query}", 400, "bad_parameter") for query in (
        "limit=-1", "limit=1000000000", "after=aaaaaaaa-99999999999999999999999", "after=zz-%2d1", "after=-5m",
        "after=9999-12-31T23:59:59-14:00", "after=99999999999999d", "wait=nan", "wait=inf", "wait=1e400",
    )],
    get("/api/v1/events?after=aaaaaaaa-1", 410, "position_expired"),
    *[get(f"/events/stream?{query}", 400, "bad_parameter") for query in (
        "type=a%0d%0ab", "type=%00", "subject=%0a", "since=now%0aevent:x", "timeout=nan", "heartbeat=nan",
        "batch=1e999", "limit=1&limit=2", "actor=%ff",
    )],
    *[get(path, 400, "bad_parameter") for path in (
        "/events/debug?streams=-1", "/events/debug?streams=1000000000", "/events/debug/explain?event=%00&stream=%00",
        "/api/v1/audit?cursor=AAAA", "/api/v1/audit?limit=1000000000", "/api/v1/board?limit=-1",
        "/api/v1/board?as_of=0001-01-01", "/api/v1/tickets/TH-1?as_of=0001-01-01T00:00:00%2B14:00",
        "/api/v1/tickets/TH-1/comments?before=99999999999999999999",
    )],
    get(f"{LIST}?query={'a' * 7900}", 414, "query_too_long"),
    get(f"{LIST}?query={'a' * 65536}", 400),
]  # fmt: skip

BODIES: Final = [
    *[post(body, 400, "malformed_json") for body in (
        b"", b"   ", b'{"type":"a.b","data":{"n":-1e400}}', b'{"data":{"n":' + b"9" * 5000 + b"}}", EVENT + EVENT,
        EVENT + b"\0", b'{"type":"a.b","data":{"\\udc00":1}}', EVENT.decode().encode("utf-32"),
        b'{/*x*/"type":"a.b","data":{}}', b'{"type":"a.b","t\\u0079pe":"c.d","data":{}}', b'{"a":' * 100_000,
    )],
    *[post(f'{{"type":"a.b","data":{{}},"subject":"a{mark}b"}}'.encode(), 422, "invalid_input") for mark in (
        "\\u000b", "\\u0085", "\\u2028", "\\u2029", "\u2028", "\\u007f", "\\u009b31m", "\\u0000",
    )],
    *[post(EVENT, 415, "unsupported_media_type", f"Content-Type: {media}") for media in (
        "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "application/json, text/plain", ";;;",
        "*/*", "application/json; charset=utf-7",
    )],
    post(EVENT, 400, None, "Content-Type: application/json", "Content-Type: text/plain"),
    *[post(EVENT, 415, "unsupported_media_type", "Content-Type: application/json", f"Content-Encoding: {coding}")
      for coding in ("gzip", "deflate", "br", "zstd", "compress", "gzip, gzip", "identity, x")],
]  # fmt: skip

FRAMING: Final = [
    *[framed(rest, 400) for rest in (
        b"Content-Length: 24\r\n" + CHUNKED + b"18\r\n" + EVENT + b"\r\n0\r\n\r\n" + SMUGGLED,
        b"Transfer-Encoding: chunked\r\nContent-Length: 24\r\n\r\n" + EVENT + SMUGGLED,
        b"Content-Length: 24\r\nContent-Length: 24\r\n\r\n" + EVENT,
        *[b"Content-Length:" + value + b"\r\n\r\n" + EVENT for value in (
            b" 24, 24", b" +24", b" -24", b" 0x18", b" 2_4", b"", b" 99999999999999999999999",
            " ２４".encode(),
        )],
        b"Content-Length : 24\r\n\r\n" + EVENT,
        *[b"Transfer-Encoding:" + value + b"\r\n\r\n18\r\n" + EVENT + b"\r\n0\r\n\r\n" for value in (
            b" xchunked", b" chunked, gzip", b" \x0bchunked", b"\r\n chunked",
            b" chunked\r\nTransfer-Encoding: chunked", b" chunked\nX: y",
        )],
        *[CHUNKED + size + b"\r\n" + EVENT + b"\r\n0\r\n\r\n" for size in (
            b"ffffffffffffffffff", b"-1", b"0x18", b"1_8", b"18 ", b"18;a\nb", b"",
        )],
        CHUNKED + b"18\r\n" + EVENT + b"XX0\r\n\r\n",
        CHUNKED + b"18\n" + EVENT + b"\n0\n\n",
    )],
    framed(b"Content-Length: 0\r\n\r\n" + SMUGGLED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), 400, 404,
           code="malformed_json"),
    framed(b"Content-Length: 10000000000\r\nConnection: close\r\n\r\n" + EVENT, 413, code="body_too_large"),
    framed(b"Expect: a-miracle\r\nContent-Length: 24\r\nConnection: close\r\n\r\n" + EVENT, 417,
           code="expectation_failed"),
    *[row(sent, 400) for sent in (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0", bytes.fromhex("16030100a5010000a10303") + b"\x11" * 160,
        b"\0" * 1000, bytes(range(256)) * 10, b"GET /version HTTP/1.1\nHost: localhost\n\n",
        b"GET\t/version\tHTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /version HTTP/1.1\r\nHost: localhost\r\nX: a\r\n b\r\n\r\n",
        b"GET /version HTTP/1.1\r\nHost: localhost\r\nX: a\rb\r\n\r\n",
        b"GET /version HTTP/1.1\r\nHost: localhost\r\n: x\r\n\r\n",
        b"GET /version HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
        b"GET /events/stream HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: " + b"y" * 2**20 + b"\r\n\r\n",
    )],
    get("/version", 200, None, "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
    get("/version", 200, None, "Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZQ=="),
]  # fmt: skip

HOSTS: Final = [
    *[row(request("GET /version HTTP/1.1", host=host), 421, "misdirected_request") for host in (
        "null", "127.0.0.1.evil", "localhost.evil", "localhost.", "[::ffff:127.0.0.1]", "[::1%25lo]", "user@localhost",
        "localhost:80:80", "localhost, evil", "xn--localhost-x", "löcalhost", "0", "0x7f.1", "017700000001", "",
        "localhost/evil", "localhost\\evil", "*", "a.localhost", "localhost:١",
    )],
    *[row(request("GET /version HTTP/1.1", host=host), 200) for host in ("LOCALHOST:1", "[0:0:0:0:0:0:0:1]")],
    *[get("/version", 403, "forbidden_origin", f"Origin: {origin}") for origin in (
        "null", "http://localhost.", "http://localhost:", "http://user@localhost", "http://localhost/",
        "http://localhost,http://evil", "http://[::ffff:127.0.0.1]", "http://evil.localhost", "ws://localhost",
        "http://löcalhost", "//localhost", "http://localhost\r\nOrigin: http://evil.example",
    )],
    row(b"GET /version HTTP/1.1\r\nHost: 127.0.0.1\x00\r\n\r\n", 400),
]  # fmt: skip

HEADERS: Final = [
    *[get(LIST, 200, None, header) for header in (
        "X-Request-ID: a b", "X-Request-ID: \udcff", f"X-Request-ID: {'a' * 5000}", "Range: bytes=999999-",
        "If-Modified-Since: Thu, 01 Jan 0000 00:00:00 GMT", "If-None-Match: \udcff", "Accept: */*;q=nan",
        "Accept: ;;;,,,\udcff", f"Cookie: {'a=b; ' * 2500}", 'Cookie: taskhub_session="a\\012b"',
        "Cookie: \udcff=\udcff",
        "X-HTTP-Method-Override: DELETE", "Referer: http://evil/\udcff", "Mcp-Session-Id: x",
    )],
    *[get("/events/stream?timeout=0.1", 200, None, f"Last-Event-ID: {position}") for position in (
        "aaaaaaaa-1", "a-99999999999999999999", "-", "a--1", "a-1.5", "\udcff", "a b", "a-１",
        "zzzzzzzz-9223372036854775808",
    )],
    get("/events/stream", 431, "headers_too_large", f"Last-Event-ID: {'a' * 257}"),
    get(LIST, 400, None, "User-Agent: a\x1b[31mred"),
    get(LIST, 400, None, "Cookie: a=\x01"),
]  # fmt: skip

WHOLE: Final = ("1_0", "%2B5", "+5", "5+", "5.0", "05", "0x5", "%EF%BC%95", "%D9%A5", "", "5%00", "true")
DECIMAL: Final = ("1_0", "%2B5", "+5", "5.", ".5", "%EF%BC%95", "infinity", "0x5", "5s")
NUMBERS: Final = [
    *[get(f"{path}{number}", 400, "bad_parameter") for number in WHOLE for path in (
        f"{LIST}?limit=", f"{LIST}/TH-1/comments?before=", f"{LIST}/TH-1/history?limit=", "/api/v1/events?limit=",
        "/api/v1/board?limit=", "/api/v1/audit?limit=", "/events/debug?streams=", "/events/stream?limit=",
        "/events/stream?batch=",
    )],
    *[get(f"{path}{number}", 400, "bad_parameter") for number in DECIMAL for path in (
        "/api/v1/events?wait=", "/events/stream?timeout=", "/events/stream?heartbeat=",
    )],
    *[get(f"/events/stream?{query}", 400, "bad_parameter") for query in (
        "since=1_5m", "since=%EF%BC%91%EF%BC%95m", "since=%2B15m", "since=15%20m", "ticket=TH-%EF%BC%91",
    )],
    get("/api/v1/audit?since=%EF%BC%91m", 400, "bad_parameter"),
    *[row(request(f"DELETE {LIST}/TH-1/attachments/{number} HTTP/1.1"), 400, "bad_parameter") for number in (
        "1_0", "+1", "01", "1.0", "%EF%BC%91", "-1", "0", "1%20",
    )],
    *[row(request(f"PATCH {LIST}/TH-1 HTTP/1.1", "Content-Type: application/json", f"If-Match: {tag}", body=b"{}"),
          400, "bad_header") for tag in ('"\uff11"', '"+1"', '"1_0"', '"1.0"', '"-1"', '" 1"', '"1")', "1", '""')],
    *[row(request(f"PATCH {LIST}/TH-1/lease HTTP/1.1", f"TaskHub-Lease-Token: {token}"), 400, "bad_header")
      for token in ("\uff11", "1_0", "+1", "0", "-1", "01", "1.0", "9" * 30, "")],
]  # fmt: skip

CREDENTIALS: Final = [
    *[get(LIST, 400, "bad_header", header, header) for header in (
        f"Authorization: Bearer {ROOT}", "X-TaskHub-Actor: agent:a", "Sec-Fetch-Site: none", "Last-Event-ID: a-1",
        "Sec-Fetch-Mode: navigate",
    )],
    *[get(LIST, 400, "bad_header", f"x-api-key: {key}") for key in (ROOT, "another")],  # beside the one that is there
    *[get(LIST, 200, None, header) for header in (  # a key goes before whatever comes with it
        "Cookie: taskhub_session_80=x; taskhub_session_80=y", "Cookie: __Host-taskhub_session=x",
        f"Cookie: taskhub_session_80={'y' * 9000}", "Authorization: Bearer another", "Authorization: Basic x",
    )],
    *[row(request(f"POST /oauth/{what} HTTP/1.1", "Content-Type: text/plain", body=b"x"), 404, "no_such_resource")
      for what in ("tokens", "authorise", "Token")],
]  # fmt: skip

RPC: Final = ("Content-Type: application/json", "Accept: application/json, text/event-stream")
PING: Final = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
HANDSHAKE: Final = "MCP-Protocol-Version: 2025-11-25"


def mcp(status: int, code: str | None, *headers: str, body: bytes = PING, path: str = "/mcp") -> Row:
    return row(request(f"POST {path} HTTP/1.1", *RPC, *headers, body=body), status, code)


MCP: Final = [
    *[get(path, 400, "bad_parameter", "Accept: text/event-stream") for path in (
        "/sse?sessionId=x", "/sse?session_id=x", "/mcp?x=1", "/sse?token=x",
    )],
    *[mcp(400, "bad_parameter", path=path) for path in (
        "/mcp?api_key=x", "/message?session_id=x&x=1", "/message?session_id=x&session_id=y", "/message?sessionId=x",
    )],
    *[mcp(status, None, path=f"/message{query}") for query, status in (
        ("", 400), ("?session_id=x", 400), ("?session_id=%00", 400), ("?session_id=" + "0" * 32, 404),
    )],
    *[mcp(400, "bad_header", HANDSHAKE, header, header) for header in (
        "Mcp-Session-Id: x", "X-MCP-Readonly: true", "X-MCP-Toolsets: tickets",
    )],
    *[mcp(404, None, HANDSHAKE, f"Mcp-Session-Id: {session}") for session in (
        "x", "", "..", "a.b.c", "\udcff.x.y", "0" * 32, "a" * 8000, "0.eA." + "A" * 32,
    )],
    *[row(request(f"{method} /mcp HTTP/1.1", "Accept: text/event-stream", HANDSHAKE, "Mcp-Session-Id: x"), 404)
      for method in ("GET", "DELETE")],
    *[mcp(400, None, *headers) for headers in (
        (HANDSHAKE,), (HANDSHAKE, "MCP-Protocol-Version: 2026-07-28"), ("MCP-Protocol-Version: junk",),
        ("MCP-Protocol-Version: 2026-07-28",), (f"MCP-Protocol-Version: {'9' * 9000}",),
        ("MCP-Protocol-Version: 2026-07-28", "Mcp-Method: tools/list"),
        ("MCP-Protocol-Version: 2026-07-28", "Mcp-Method: ping", "Mcp-Method: tools/call"),
    )],
    *[mcp(400, None, HANDSHAKE, body=body) for body in (
        b"", b"null", b"1", b"[]", b"[" + PING + b"," + PING + b"]", b"\xef\xbb\xbf" + PING,
        PING.decode().encode("utf-16"),
        b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":' + b"[" * 100_000,
        b'{"id":"\\ud800"}', b'{"a":"\xff"}',
        b'{"jsonrpc":"2.0","id":' + b"9" * 4400 + b',"method":"ping"}',
    )],
    mcp(413, None, body=b" " * (4 * 2**20 + 1)),
    row(request("POST /mcp HTTP/1.1", "Content-Type: text/plain", RPC[1], body=PING), 400),
]  # fmt: skip


def file(body: bytes, status: int, code: str | None = None, media: str = "text/csv", query: str = "") -> Row:
    return row(request(f"POST /api/v1/import{query} HTTP/1.1", f"Content-Type: {media}", body=body), status, code)


LINES: Final = "application/x-ndjson"
FILES: Final = [
    *[file(body, 422, "invalid_input") for body in (
        b"", b"\0", b",".join(b"c%d" % n for n in range(50_000)), b"key," * 200_000,
        b"key,key\nTH-1,x\n", b"summary\nx\n",
        "external_ticket_id,summary\na,b\n".encode("utf-16"), b'"key\n', b"key,summary\xff\nTH-1,x\n",
    )],
    # Lines that cannot be taken are told one by one.
    *[file(b"external_ticket_id,summary,actual_effort_hours\n" + line, 200) for line in (
        b"\0,x,\n", b'a,"x\r\nevent: y",\n', b"a,x,1_0\n", b"a,x,+1\n", b"a\n", b'"' + b"a" * 2_000_000,
        b"a," + b"x" * 2**21,
        "a,x\u2028y,\n".encode(), "a,x\u0085y,\n".encode(), b"a,\xff,\n",
    )],
    *[file(line, 200, None, LINES) for line in (
        b'{"external_ticket_id":' + b"[" * 100_000, b"{" + b",".join(b'"f%d":1' % n for n in range(50_000)) + b"}",
        b'{"external_ticket_id":"a\\u0000","summary":"x"}', b'{"external_ticket_id":"a","summary":"\\ud800"}',
        b'{"external_ticket_id":"a","summary":"x","actual_effort_hours":NaN}', b"[]", b"\0",
        b'{"key":"TH-1","version":1e400}',
        b'{"external_ticket_id":"a","summary":"x","actual_effort_hours":"1_0"}', b'{"external_ticket_id":{"id":{}}}',
    )],
    file(b"{}", 422, "import_refused", LINES, "?strict=1"),
    *[file(b"key\n", 415, "unsupported_media_type", media) for media in ("text/csv, application/json", "text/html")],
    *[file(b"key\n", 400, "bad_parameter", query=query) for query in ("?strict=perhaps", "?strict=1&strict=0", "?x=1")],
]  # fmt: skip


@pytest.fixture(scope="module", params=MODES)
def module_hub(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, hubs: list[TaskHubProcess]
) -> Iterator[TaskHubProcess]:
    """A server that lets in as its mode says, and waits for nobody long."""
    environment = {**MODES[request.param], "TASKHUB_BODY_READ_S": "2", "TASKHUB_KEEP_ALIVE_S": "2"}
    # What is limited is answered as such, and not as what it is.
    environment |= {"TASKHUB_WRITES_PER_S": "0", "TASKHUB_LOG_FORMAT": "json"}
    hub = TaskHubProcess(tmp_path_factory.mktemp("hostile") / "hub", environment=environment, name=request.param)
    hubs.append(hub)
    yield hub
    hub.dispose()
    hubs.remove(hub)


async def exchange(port: int, sent: bytes) -> bytes:
    """All that the server says to this until it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = b""

    async def send() -> None:
        try:
            writer.write(sent)
            await writer.drain()
        except ConnectionError:  # it has heard enough
            pass

    sending = asyncio.create_task(send())
    try:
        async with asyncio.timeout(DEADLINE_S):
            while piece := await reader.read(65536):
                answer += piece
            await sending
    except ConnectionError:
        pass
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        writer.close()
    return answer


async def told(port: int, each: Row, places: asyncio.Semaphore) -> str | None:
    """What is wrong with the answer."""
    async with places:
        answer = await exchange(port, each.sent)
    statuses = tuple(int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer))
    code = re.search(rb'"code":"(\w+)"', answer)
    found = None if code is None or each.code is None else code[1].decode()
    return None if (statuses, found) == (each.statuses, each.code) else f"{each}\n    {answer[:400]!r}"


@asynccontextmanager
async def nothing_happens(hub: TaskHubProcess) -> AsyncIterator[Api]:
    """The client of the server, of which afterwards nothing is different."""
    process = psutil.Process(hub.pid)
    async with api(hub.url, {"x-api-key": ROOT}) as client:
        before = await head(client)
        logged, descriptors = len(hub.log), process.num_fds()
        yield client

        assert await head(client) == before

        async def over() -> bool:
            report = await client.get("/events/debug")
            # What is opened once stays: a thread's connection to the database, or what MCP reads when it is loaded.
            return report["connected_clients"] == 0 and process.num_fds() <= descriptors + FEW

        await until(over, "end of all that was opened")
        lines = [json.loads(line) for line in hub.log[logged:].splitlines() if line]
        assert [line for line in lines if line["severity"] in ("ERROR", "CRITICAL")] == []
        assert [line for line in lines if line.get("status", 0) >= 500] == []


async def head(client: Api) -> Any:
    return (await client.get("/api/v1/events?after=now"))["position"]


@pytest.mark.parametrize(
    "table", [TARGETS, QUERIES, BODIES, FRAMING, HOSTS, HEADERS, NUMBERS, CREDENTIALS, MCP, FILES],
    ids=["targets", "queries", "bodies", "framing", "hosts", "headers", "numbers", "credentials", "mcp", "files"],
)  # fmt: skip
async def test_hostile_bytes_get_their_answer_and_nothing_happens(hub: TaskHubProcess, table: Sequence[Row]) -> None:
    places = asyncio.Semaphore(AT_ONCE)
    async with nothing_happens(hub):
        wrong = await asyncio.gather(*(told(hub.port, each, places) for each in table))

    found = [each for each in wrong if each is not None]
    assert not found, "\n".join([f"{len(found)} of {len(table)}:", *found])


async def test_a_thousand_requests_at_once_are_answered_in_their_order(hub: TaskHubProcess) -> None:
    one = f"GET /nowhere/{{}} HTTP/1.1\r\nHost: localhost\r\nx-api-key: {ROOT}\r\nX-Request-ID: n-{{}}\r\n"
    every = [one.format(number, number) for number in range(1000)]
    every[-1] += "Connection: close\r\n"
    async with nothing_happens(hub):
        answer = await exchange(hub.port, "".join(f"{each}\r\n" for each in every).encode())

    assert re.findall(rb"X-Request-ID: n-(\d+)", answer) == [b"%d" % number for number in range(1000)]


async def test_half_open_connections_hold_up_nobody_and_are_cut(hub: TaskHubProcess) -> None:
    begun = [b"", b"G", b"GET /version HTTP/1.1\r\nHost: local", request("POST /events HTTP/1.1")[:-2]]
    async with nothing_happens(hub) as client:
        half_open = [await asyncio.open_connection("127.0.0.1", hub.port) for _ in range(HALF_OPEN)]
        for number, (_, writer) in enumerate(half_open):
            writer.write(begun[number % len(begun)])
        await client.get(LIST)

        async def cut(reader: asyncio.StreamReader) -> bytes:
            try:
                return await reader.read()
            except ConnectionError:
                return b""

        async with asyncio.timeout(DEADLINE_S):
            assert set(await asyncio.gather(*(cut(reader) for reader, _ in half_open))) == {b""}
        for _, writer in half_open:
            writer.close()
