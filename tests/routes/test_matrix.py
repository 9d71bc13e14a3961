"""Who may do what: every route and every method, tried by everybody who could come.

The table is written by hand, and not read from what the routes declare: it is what they are held against.
"""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import pytest
from sqlalchemy import update

from routes.api import ROUTES, Route
from routes.keys import API_KEYS, DATABASE, SIGN_IN, TICKETS
from taskhub.auth.principal import ALL_SCOPES, Caller, Principal
from taskhub.headers import LEASE_HEADER
from taskhub.keys.model import NewKey
from taskhub.storage.schema import api_keys
from taskhub.storage.times import to_text, utc_now
from taskhub.tickets.reference_inputs import NewUser, UserRole
from taskhub.workspaces import WorkspaceStore
from tests.routes.conftest import Answer, Hub, Start
from tests.routes.openapi_snapshot import application
from tests.taskhub.world import ALICE, execute

ROLES: Final[tuple[UserRole, ...]] = ("viewer", "requester", "agent", "manager", "operator")
OPEN: Final[frozenset[str]] = frozenset(("anybody",))
"""Not even a credential is looked at."""
LET_IN: Final[frozenset[str]] = frozenset(ROLES)
WRITE: Final[frozenset[str]] = frozenset(ROLES[1:])
PUBLISH: Final[frozenset[str]] = frozenset(ROLES[2:])
REFERENCE: Final[frozenset[str]] = frozenset(ROLES[3:])
OPERATE: Final[frozenset[str]] = frozenset(ROLES[4:])

REFERENCES: Final = {
    "users", "accounts", "categories", "category-details", "statuses", "request-channels", "response-categories",
}  # fmt: skip
SESSIONS: Final = {
    "GET /api/v1/session": 200,
    "DELETE /api/v1/session": 204,
    "PUT /api/v1/session/password": 204,
    "GET /api/v1/sessions": 200,
    "DELETE /api/v1/sessions": 204,
    "DELETE /api/v1/sessions/{id}": 204,
}
"""What only those have who are signed in: to others it is not there."""
MCP: Final = ("/mcp", "/sse", "/message")
PASSWORD: Final = "correct horse battery staple"
SAME_ORIGIN: Final = {"Sec-Fetch-Site": "same-origin"}
TABLE: Final[Mapping[str, tuple[frozenset[str], int]]] = {
    "GET /": (OPEN, 200),
    "GET /feed": (OPEN, 200),
    "GET /docs": (OPEN, 200),
    "GET /openapi.json": (OPEN, 200),
    "GET /healthz": (OPEN, 200),
    "GET /readyz": (OPEN, 200),
    "GET /metrics": (OPEN, 200),  # from loopback, unless METRICS says otherwise
    "GET /health": (OPEN, 200),
    "GET /version": (OPEN, 200),
    "GET /capabilities": (OPEN, 200),
    "GET /favicon.ico": (OPEN, 204),
    "GET /static/{name}": (OPEN, 200),
    "GET /static/{version}/{name}": (OPEN, 200),
    "GET /login": (OPEN, 200),
    "GET /login/openid": (OPEN, 404),
    "GET /login/openid/callback": (OPEN, 404),
    "POST /api/v1/session": (OPEN, 201),
    **dict.fromkeys(SESSIONS, (LET_IN, 404)),
    "GET /.well-known/oauth-protected-resource": (OPEN, 404),
    "GET /.well-known/oauth-protected-resource/mcp": (OPEN, 404),
    "GET /.well-known/oauth-authorization-server": (OPEN, 404),
    "GET /oauth/jwks.json": (OPEN, 404),
    "GET /oauth/authorize": (OPEN, 404),
    **{f"POST /oauth/{what}": (OPEN, 404) for what in ("authorize", "token", "revoke", "introspect", "register")},
    "GET /api/v1/grants": (LET_IN, 404),
    "DELETE /api/v1/grants/{id}": (LET_IN, 404),
    "GET /mcp": (LET_IN, 200),
    "POST /mcp": (LET_IN, 200),
    "DELETE /mcp": (LET_IN, 200),
    "GET /sse": (LET_IN, 200),
    "POST /message": (LET_IN, 400),
    "GET /api/v1/me": (LET_IN, 200),
    "GET /api/v1/tickets": (LET_IN, 200),
    "GET /api/v1/tickets/{key}": (LET_IN, 200),
    "GET /api/v1/tickets/{key}/comments": (LET_IN, 200),
    "GET /api/v1/tickets/{key}/history": (LET_IN, 200),
    "GET /api/v1/tickets/{key}/relations": (LET_IN, 200),
    "GET /api/v1/tickets/{key}/attachments": (LET_IN, 200),
    "GET /api/v1/batches/{id}": (LET_IN, 200),
    "GET /api/v1/board": (LET_IN, 200),
    "GET /api/v1/export": (LET_IN, 200),
    "GET /api/v1/events": (LET_IN, 200),
    "GET /events/stream": (LET_IN, 200),
    "POST /events/tokens": (LET_IN, 201),
    **{f"GET /api/v1/{kind}": (LET_IN, 200) for kind in REFERENCES},
    "POST /api/v1/tickets": (WRITE, 201),
    "PATCH /api/v1/tickets/{key}": (WRITE, 200),
    "DELETE /api/v1/tickets/{key}": (WRITE, 204),
    "POST /api/v1/tickets/{key}/comments": (WRITE, 201),
    "POST /api/v1/tickets/{key}/restore": (WRITE, 200),
    "POST /api/v1/tickets/{key}/relations": (WRITE, 201),
    "DELETE /api/v1/tickets/{key}/relations/{relation}/{other}": (WRITE, 204),
    "POST /api/v1/tickets/{key}/attachments": (WRITE, 201),
    "DELETE /api/v1/tickets/{key}/attachments/{no}": (WRITE, 204),
    "PUT /api/v1/tickets/{key}/lease": (WRITE, 200),
    "PATCH /api/v1/tickets/{key}/lease": (WRITE, 200),
    "DELETE /api/v1/tickets/{key}/lease": (WRITE, 200),
    "POST /api/v1/tickets/{key}/progress": (WRITE, 200),
    "POST /api/v1/tickets/claim-next": (WRITE, 200),
    "POST /api/v1/tickets/bulk": (WRITE, 200),
    "POST /api/v1/batches/{id}/undo": (WRITE, 200),
    "POST /api/v1/import": (WRITE, 200),
    "POST /events": (PUBLISH, 201),
    "POST /events/batch": (PUBLISH, 201),
    **{f"POST /api/v1/{kind}": (REFERENCE, 201) for kind in REFERENCES},
    **{f"PATCH /api/v1/{kind}/{{id}}": (REFERENCE, 200) for kind in REFERENCES},
    **{f"DELETE /api/v1/{kind}/{{id}}": (REFERENCE, 204) for kind in REFERENCES},
    "GET /api/v1/keys": (OPERATE, 200),
    "GET /api/v1/keys/{id}": (OPERATE, 200),
    "POST /api/v1/keys": (OPERATE, 201),
    "PATCH /api/v1/keys/{id}": (OPERATE, 200),
    "POST /api/v1/keys/{id}/rotate": (OPERATE, 201),
    "DELETE /api/v1/keys/{id}": (OPERATE, 204),
    "GET /api/v1/audit": (OPERATE, 200),
    "GET /events/debug": (OPERATE, 200),
    "GET /events/debug/explain": (OPERATE, 200),
    "POST /events/debug/test": (OPERATE, 200),
    "DELETE /events/debug/streams/{id}": (OPERATE, 204),
}
NAMED_ELSEWHERE: Final = {
    "POST /api/v1/keys": 422, "POST /api/v1/tickets/bulk": 409, "GET /events/debug/explain": 404,
    "GET /mcp": 404, "DELETE /mcp": 404, **dict.fromkeys(SESSIONS, 404),
}  # fmt: skip
"""What is answered where not the path, but a body, a query or a header names what is not there for the caller."""
METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND")
PLANTED: Final = "Xyzzy"
"""In every name and text of the one workspace; nothing that anybody else is told may have it."""
ROOT: Final = {"x-api-key": "k-bootstrap"}
SCOPE_OF: Final = {
    WRITE: "tickets:write", PUBLISH: "events:publish", REFERENCE: "reference:write", OPERATE: "admin",
}  # fmt: skip
SERVED: Final = application()[ROUTES]


@dataclass(frozen=True, slots=True)
class Attempt:
    """A request that would succeed for somebody who may make it."""

    path: str
    options: dict[str, Any] = field(default_factory=dict)


class Castle:
    """A hub that asks for credentials, with people of every role, and what each route needs to succeed."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.let_in: dict[str, dict[str, str]] = {}
        """Role → headers; and the operator of another workspace, as `stranger`."""
        self.signed_in: dict[str, dict[str, str]] = {}
        """Role → headers of a page of somebody who has it."""
        self.kept_out: dict[str, dict[str, str]] = {}
        """What is wrong with a credential → headers."""
        self.streams = AsyncExitStack()
        self._number = 0

    async def open(self) -> None:
        root = Caller(Principal("user:root", "default", ALL_SCOPES, authenticated=True), "system")
        for role in ROLES:
            await self.hub.app[TICKETS].create_reference(root, "users", NewUser(name=role, role=role))
            self.let_in[role] = await self._key(root, role)
        revoked, expired = await self._key(root, "operator"), await self._key(root, "operator")
        [*_, first, second] = [key.id for key in await self.hub.app[API_KEYS].list(root, user="operator")]
        await self.hub.app[API_KEYS].revoke(root, first)
        past = update(api_keys).where(api_keys.c.id == second).values(expires_at=to_text(utc_now() - timedelta(days=1)))
        await execute(self.hub.app[DATABASE], past)
        self.kept_out = {
            "anonymous": {},
            "revoked": revoked,
            "expired": expired,
            "mistyped": {"x-api-key": expired["x-api-key"][:-1] + "_"},
            "another scheme": {"Authorization": "Basic b3BlcmF0b3I6b3BlcmF0b3I="},
            "empty": {"Authorization": "Bearer "},
            "signed out": await self.sign_in("viewer"),
        }
        await self.hub.app[SIGN_IN].sign_out(ALICE, "viewer")
        for role in ("viewer", "operator"):
            self.signed_in[role] = await self.sign_in(role)
        await WorkspaceStore(self.hub.app[DATABASE]).create(root, "other", "OT", "Other")
        elsewhere = Caller(Principal("user:root", "other", ALL_SCOPES, authenticated=True), "system")
        await self.hub.app[TICKETS].create_reference(elsewhere, "users", NewUser(name="mallory", role="operator"))
        self.let_in["stranger"] = await self._key(elsewhere, "mallory")

    async def sign_in(self, user: str) -> dict[str, str]:
        link = await self.hub.app[SIGN_IN].new_link(ALICE, user)
        answer = await self.hub.post("/api/v1/session", {"link": link.secret}, headers=SAME_ORIGIN)
        assert answer.status == 201, answer
        self.hub.session.cookie_jar.clear()
        return {"Cookie": answer.headers["Set-Cookie"].partition(";")[0], **SAME_ORIGIN}

    async def _key(self, by: Caller, user: str) -> dict[str, str]:
        issued = await self.hub.app[API_KEYS].create(by, NewKey(user=user, name="matrix", scopes=None, expires_at=None))
        return {"x-api-key": issued.secret}

    async def make(self, path: str, body: Any = None, method: str = "POST", headers: Mapping[str, str] = ROOT) -> Any:
        """Something in the workspace, made by one who may."""
        answer = await self.hub.request(method, path, json=body, headers=headers)
        assert answer.status < 300, (path, answer)
        return answer.json

    def name(self) -> str:
        self._number += 1
        return f"{PLANTED} {self._number}"

    async def ticket(self) -> str:
        made = await self.make("/api/v1/tickets", {"summary": self.name()})
        return f"/api/v1/tickets/{made['key']}"

    async def attempt(self, route: Route, role: str) -> Attempt:
        """A request of this route that nobody has made before."""
        family = route.path.removeprefix("/api/v1/").partition("/")[0]
        if family in REFERENCES:
            return await self._of_references(route, family)
        special = getattr(self, f"_{route.name}", None)
        if special is not None:
            attempt: Attempt = await special(role)
            return attempt
        path = route.path
        if "{key}" in path:
            path = path.replace("/api/v1/tickets/{key}", await self.ticket())
        return Attempt(path, {} if route.example is None else {"json": route.example})

    async def _of_references(self, route: Route, kind: str) -> Attempt:
        fields: dict[str, Any] = {"name": self.name()}
        if kind == "category-details":
            fields["category"] = (await self.make("/api/v1/categories", {"name": self.name()}))["id"]
        if kind == "statuses":
            fields["phase"] = "todo"
        if route.method == "POST":
            if kind == "category-details":
                fields["category"] = "incident"  # which every workspace has
            return Attempt(route.path, {"json": fields})
        if route.method == "GET":
            return Attempt(route.path)
        made = await self.make(f"/api/v1/{kind}", fields)
        path = f"/api/v1/{kind}/{made['id']}"
        return Attempt(path, {"json": {"name": self.name()}} if route.method == "PATCH" else {})

    async def _end_grant(self, role: str) -> Attempt:
        return Attempt("/api/v1/grants/grt_0000000000000000")

    async def _link_tickets(self, role: str) -> Attempt:
        one, other = await self.ticket(), (await self.ticket()).rpartition("/")[2]
        return Attempt(f"{one}/relations", {"json": {"relation": "blocks", "other": other}})

    async def _unlink_tickets(self, role: str) -> Attempt:
        one, other = await self.ticket(), (await self.ticket()).rpartition("/")[2]
        await self.make(f"{one}/relations", {"relation": "blocks", "other": other})
        return Attempt(f"{one}/relations/blocks/{other}")

    async def _remove_attachment(self, role: str) -> Attempt:
        one = await self.ticket()
        await self.make(f"{one}/attachments", {"file_name": self.name(), "url": "https://example.org/x"})
        return Attempt(f"{one}/attachments/1")

    async def _restore_ticket(self, role: str) -> Attempt:
        one = await self.ticket()
        await self.hub.request("DELETE", one, headers=ROOT)
        return Attempt(f"{one}/restore")

    async def _leased(self, role: str) -> tuple[str, dict[str, str]]:
        """A ticket that the caller holds; where it can hold none, somebody else."""
        one = await self.ticket()
        claimed = await self.make(f"{one}/lease", None, "PUT", self.let_in[role] if role in WRITE else ROOT)
        return one, {LEASE_HEADER: str(claimed["lease_token"])}

    async def _renew_lease(self, role: str) -> Attempt:
        one, held = await self._leased(role)
        return Attempt(f"{one}/lease", {"headers": held})

    _release_ticket = _renew_lease

    async def _report_progress(self, role: str) -> Attempt:
        one, held = await self._leased(role)
        return Attempt(f"{one}/progress", {"headers": held, "json": {"percent": 10}})

    async def _claim_next(self, role: str) -> Attempt:
        await self.ticket()
        return Attempt("/api/v1/tickets/claim-next")

    async def _update_tickets(self, role: str) -> Attempt:
        items = [{"ticket_id": (await self.ticket()).rpartition("/")[2], "priority": "high"}]
        return Attempt("/api/v1/tickets/bulk", {"json": {"items": items}})

    async def _get_batch(self, role: str) -> Attempt:
        changed = await self.make("/api/v1/tickets/bulk", (await self._update_tickets(role)).options["json"])
        return Attempt(f"/api/v1/batches/{changed['batch_id']}")

    async def _undo_batch(self, role: str) -> Attempt:
        return Attempt((await self._get_batch(role)).path + "/undo")

    async def _import_tickets(self, role: str) -> Attempt:
        line = f'{{"external_ticket_id":"{self.name()}","summary":"x"}}'
        return Attempt("/api/v1/import", {"data": line, "headers": {"Content-Type": "application/x-ndjson"}})

    async def _create_key(self, role: str) -> Attempt:
        return Attempt("/api/v1/keys", {"json": {"user": "viewer", "name": self.name()}})

    async def _get_key(self, role: str) -> Attempt:
        made = await self.make("/api/v1/keys", {"user": "viewer", "name": self.name()})
        return Attempt(f"/api/v1/keys/{made['key']['id']}")

    _revoke_key = _get_key

    async def _change_key(self, role: str) -> Attempt:
        return Attempt((await self._get_key(role)).path, {"json": {"limits": {"streams": 7}}})

    async def _rotate_key(self, role: str) -> Attempt:
        return Attempt((await self._get_key(role)).path + "/rotate")

    async def _end_stream(self, role: str) -> Attempt:
        stream = await self.streams.enter_async_context(self.hub.stream(**ROOT))
        return Attempt(f"/events/debug/streams/{(await stream.frame()).data['stream']}")

    async def _explain_event(self, role: str) -> Attempt:
        stream = await self.streams.enter_async_context(self.hub.stream(**ROOT))
        named = (await stream.frame()).data["stream"]
        await self.ticket()
        event = (await stream.until("message")).data["id"]
        return Attempt(f"/events/debug/explain?event={event}&stream={named}")

    async def _test_stream(self, role: str) -> Attempt:
        return Attempt("/events/debug/test")

    async def _send_mcp_message(self, role: str) -> Attempt:
        return Attempt("/mcp", {
            "json": {
                "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
                    "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"},
                },
            },
            "headers": {"Accept": "application/json, text/event-stream"},
        })  # fmt: skip

    async def _open_mcp_stream(self, role: str) -> Attempt:
        opened = await self.answer("POST", await self._send_mcp_message(role), self.let_in[role])
        session = {"Mcp-Session-Id": opened.headers["Mcp-Session-Id"], "MCP-Protocol-Version": "2025-06-18"}
        return Attempt("/mcp", {"headers": {"Accept": "text/event-stream", **session}})

    _end_mcp_session = _open_mcp_stream

    async def _sign_in(self, role: str) -> Attempt:
        link = await self.hub.app[SIGN_IN].new_link(ALICE, "agent")
        return Attempt("/api/v1/session", {"json": {"link": link.secret}, "headers": SAME_ORIGIN})

    async def _change_password(self, role: str) -> Attempt:
        return Attempt("/api/v1/session/password", {"json": {"password": PASSWORD}})

    async def _end_session(self, role: str) -> Attempt:
        signed_in = await self.sign_in(role)
        answer = await self.hub.get("/api/v1/session", headers=signed_in)
        return Attempt(f"/api/v1/sessions/{answer.json['session']['id']}")

    async def _get_asset(self, role: str) -> Attempt:
        return Attempt("/static/stream.js")

    async def _get_asset_version(self, role: str) -> Attempt:
        page = (await self.hub.get("/", headers={"Accept": "text/html"})).body.decode()
        return Attempt(re.findall(r"/static/[^\"/]+/[^\"/]+", page)[0])

    async def answer(self, method: str, attempt: Attempt, who: Mapping[str, str]) -> Answer:
        """What somebody is answered; of a stream that it is one."""
        headers = {**attempt.options.get("headers", {}), **who}
        options = {**attempt.options, "headers": headers}
        async with self.hub.session.request(method, self.hub.url + attempt.path, **options) as response:
            streams = response.content_type == "text/event-stream"
            return Answer(response.status, response.headers, b"" if streams else await response.read())


@pytest.fixture
async def castle(start: Start) -> AsyncIterator[Castle]:
    castle = Castle(await start(api_key="k-bootstrap", sse_heartbeat_s=60, auth_failures_per_min=0, writes_per_s=0))
    async with castle.streams:
        await castle.open()
        yield castle


def named(route: Route) -> str:
    return f"{route.method} {route.path}"


def test_the_table_has_every_route() -> None:
    assert set(TABLE) == {named(route) for route in SERVED}


async def test_each_role_gets_what_is_in_the_table(castle: Castle) -> None:
    wrong: dict[Any, Any] = {}
    for route in SERVED:
        allowed, success = TABLE[named(route)]
        for role in ROLES:
            answer = await castle.answer(route.method, await castle.attempt(route, role), castle.let_in[role])
            expected = success if allowed == OPEN or role in allowed else 403
            if answer.status != expected:
                wrong[named(route), role] = (answer.status, expected, answer.body[:300])
            elif expected == 403:
                assert answer.code == "forbidden"
                assert SCOPE_OF[allowed] in answer.json["detail"]

    assert not wrong, wrong


async def test_who_is_signed_in_gets_what_its_role_gets_but_no_mcp(castle: Castle) -> None:
    wrong: dict[Any, Any] = {}
    for route in SERVED:
        allowed, success = TABLE[named(route)]
        if named(route) in SESSIONS or named(route) == "POST /api/v1/session":  # which ends the one before
            continue
        for role, headers in castle.signed_in.items():
            answer = await castle.answer(route.method, await castle.attempt(route, role), headers)
            expected = success if allowed == OPEN or role in allowed else 403
            if answer.status != (401 if route.path in MCP else expected):
                wrong[named(route), role] = (answer.status, expected, answer.body[:300])

    assert not wrong, wrong


@pytest.mark.parametrize("role", ["viewer", "operator"])
async def test_a_session_is_its_owners(castle: Castle, role: str) -> None:
    routes = [route for route in SERVED if named(route) in SESSIONS]
    for route in routes:
        own = await castle.sign_in(role)
        mine = await castle.attempt(route, role)
        theirs = await castle.attempt(route, "manager") if "{id}" in route.path else mine

        if theirs is not mine:
            assert (await castle.answer(route.method, theirs, own)).status == 404
        assert (await castle.answer(route.method, mine, own)).status == SESSIONS[named(route)], named(route)


async def test_a_session_counts_for_pages_of_this_server_alone(castle: Castle) -> None:
    """What a page of others, or a program, could have sent with a cookie that the browser adds."""
    wrong: dict[Any, Any] = {}
    cookie = {"Cookie": castle.signed_in["operator"]["Cookie"]}
    senders = {
        "a page elsewhere": {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        "a sibling": {"Sec-Fetch-Site": "same-site"},
        "an older browser": {"Origin": "http://localhost:1"},
        "a frame": {"Origin": "null"},
        "a program": {},
    }
    for route in SERVED:
        if route.method == "GET" or TABLE[named(route)][0] == OPEN or route.path in MCP:
            continue
        attempt = await castle.attempt(route, "operator")
        for who, headers in senders.items():
            answer = await castle.answer(route.method, attempt, {**cookie, **headers})
            if answer.status != 403 or answer.code not in ("not_same_origin", "forbidden_origin"):
                wrong[named(route), who] = (answer.status, answer.body[:200])

    assert not wrong, wrong


async def test_whoever_has_no_valid_credential_is_answered_alike(castle: Castle) -> None:
    """Whatever is wrong with it, and whether there is such a thing or not: nothing is learned."""
    wrong: dict[Any, Any] = {}
    for route in SERVED:
        allowed, success = TABLE[named(route)]
        if named(route) == "POST /api/v1/session":
            continue  # a link works once
        attempt = await castle.attempt(route, "viewer")
        nowhere = Attempt(re.sub(r"\{[a-z]+\}", "nothing", route.path), attempt.options)
        answers: dict[str, Any] = {}
        for why, headers in castle.kept_out.items():
            answer = await castle.answer(route.method, attempt, headers)
            if allowed == OPEN:
                answers[why] = answer.status
                continue
            elsewhere = await castle.answer(route.method, nowhere, headers)
            told, told_elsewhere = _refusal(answer), _refusal(elsewhere)
            assert told == told_elsewhere, (named(route), why)
            answers[why] = told
        expected = {success} if allowed == OPEN else {401}
        if {answer if allowed == OPEN else answer["status"] for answer in answers.values()} != expected:
            wrong[named(route)] = answers
        # Who comes with a session may be told that it is over: that is no key, and says nothing about one.
        keys = [str(answer) for why, answer in answers.items() if why != "signed out"]
        if len(set(keys)) > 1:
            wrong[named(route)] = answers

    assert not wrong, wrong


def _refusal(answer: Answer) -> dict[str, Any]:
    return {**answer.json, "request_id": "", "challenge": answer.headers.get("WWW-Authenticate")}


async def test_who_operates_another_workspace_learns_nothing_of_this_one(castle: Castle) -> None:
    """What is here is answered as what was never anywhere; what lists, lists nothing of it."""
    wrong: dict[Any, Any] = {}
    stranger = castle.let_in["stranger"]
    for route in sorted(SERVED, key=lambda route: route.method != "GET"):  # before there is anything of its own
        allowed, success = TABLE[named(route)]
        if allowed == OPEN:
            continue
        attempt = await castle.attempt(route, "operator")
        answer = await castle.answer(route.method, attempt, stranger)
        if PLANTED.encode() in answer.body and route.method == "GET":
            wrong[named(route)] = ("told of it", answer.body)
        if "{" in route.path:
            path = re.sub(r"TH-\d+|key_\w+|st_\w+|b-\w+|[0-9a-f-]{36}", _nothing, attempt.path)
            if path == attempt.path:
                path = re.sub(r"/[^/]+$", "/never-made", path)
            never = await castle.answer(route.method, Attempt(path, attempt.options), stranger)
            told = _told(answer, attempt.path), _told(never, path)
            if answer.status != 404 or told[0] != told[1]:
                wrong[named(route)] = (answer.status, *told)
        elif answer.status != NAMED_ELSEWHERE.get(named(route), success):
            wrong[named(route)] = (answer.status, success, answer.body[:300])

    assert not wrong, wrong


async def test_a_method_that_a_path_has_not_is_refused_to_everybody_alike(castle: Castle) -> None:
    wrong: dict[Any, Any] = {}
    paths: dict[str, set[str]] = {}
    for route in SERVED:
        head = {"HEAD"} if route.method == "GET" and route.head else set()
        paths.setdefault(route.path, set()).update({route.method}, head)
    for path, methods in paths.items():
        attempt = Attempt(re.sub(r"\{[a-z]+\}", "nothing", path))
        # What is a path of its own may be named by a part of another one, too.
        for other, more in paths.items():
            if re.fullmatch(re.sub(r"\{[a-z]+\}", "[^/]+", other), path):
                methods = methods | more
        for method in set(METHODS) - methods:
            for who, headers in {"operator": castle.let_in["operator"], **castle.kept_out}.items():
                answer = await castle.answer(method, attempt, headers)
                if answer.status != 405 or not methods <= set(answer.headers["Allow"].replace(" ", "").split(",")):
                    wrong[method, path, who] = (answer.status, answer.headers.get("Allow"))

    assert not wrong, wrong


def _nothing(found: re.Match[str]) -> str:
    """An id of the same form that nothing has."""
    text = found.group()
    return "TH-999999" if text.startswith("TH-") else re.sub(r"\w{6}$", "000000", text)


def _told(answer: Answer, path: str) -> str:
    """A problem without what is different each time: the request's id, and what the caller itself has named."""
    text = str(sorted({**answer.json, "request_id": ""}.items())).replace("such as TH-12", "").replace("like TH-12", "")
    for part in sorted(re.split(r"[/?&=]", path), key=len, reverse=True):
        if re.search(r"[\d-]|nothing", part):
            text = re.sub(rf"\b{re.escape(part)}\b", "…", text)
    return text
