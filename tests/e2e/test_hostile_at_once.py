"""What only one may have, asked for by many at the same moment, at two servers on one database: one gets it.

The others get an answer that says why not; nothing is lost or there twice, and no server calls it an error.
"""

import asyncio
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import pytest

from tests.e2e.harness.clients import Answer, Api, api
from tests.e2e.harness.consenting import person, told
from tests.e2e.harness.process import TaskHubProcess
from tests.e2e.harness.signing_in import sign_in_link
from tests.e2e.harness.streams import record

ROOT: Final = "root-key-of-the-tests-at-once"
AS_ROOT: Final = {"x-api-key": ROOT}
ISSUER: Final = "http://localhost:1"
CALLBACK: Final = "http://127.0.0.1:9/callback"
VERIFIER: Final = "v" * 43
CHALLENGE: Final = "7w_YNF9DSfIdPf_pRjSq646_kPr-2-o9NAl16JGghdM"
PAIR: Final = {
    "TASKHUB_AUTH": "oauth",
    "TASKHUB_PUBLIC_URL": ISSUER,
    "TASKHUB_OAUTH_REGISTRATION": "true",
    "TASKHUB_API_KEY": ROOT,
    "TASKHUB_WRITES_PER_S": "0",  # limits have tests of their own
    "TASKHUB_AUTH_FAILURES_PER_MIN": "0",
    "TASKHUB_OAUTH_REQUESTS_PER_MIN": "0",
    "TASKHUB_TRUSTED_PROXIES": "127.0.0.1",
    "TASKHUB_LOG_FORMAT": "json",
}
SIGNING_IN: Final = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
async def both(module_pair: list[TaskHubProcess]) -> AsyncIterator[tuple[Api, Api]]:
    """Clients of the two servers; afterwards nothing of what was done was an error of theirs."""
    await asyncio.gather(*(hub.start() for hub in module_pair if not hub.running))
    logged = [len(hub.log) for hub in module_pair]
    async with api(module_pair[0].url, AS_ROOT) as first, api(module_pair[1].url, AS_ROOT) as second:
        yield first, second
    for hub, before in zip(module_pair, logged, strict=True):
        lines = [json.loads(line) for line in hub.log[before:].splitlines() if line.startswith("{")]
        assert [line for line in lines if line["severity"] in ("ERROR", "CRITICAL")] == []


async def all_at_once(both: Sequence[Api], count: int, method: str, path: str, **options: Any) -> list[Answer]:
    """The answers to the same request, sent so often at the same moment, to each server in turn."""
    return await asyncio.gather(*(both[n % 2].request(method, path, **options) for n in range(count)))


def how_often(answers: Sequence[Answer]) -> Counter[int]:
    return Counter(answer.status for answer in answers)


async def test_a_request_with_one_idempotency_key_has_its_effect_once(both: tuple[Api, Api]) -> None:
    key = {"Idempotency-Key": "a-hundred-times"}
    same = await all_at_once(both, 100, "POST", "/api/v1/tickets", json={"summary": "Only once"}, headers=key)
    bodies = [{"summary": f"One of many {n % 5}"} for n in range(20)]
    headers = {"Idempotency-Key": "for-several"}
    different = await asyncio.gather(
        *(both[n % 2].request("POST", "/api/v1/tickets", json=body, headers=headers) for n, body in enumerate(bodies))
    )

    assert how_often(same) == {201: 100}
    assert sum(not answer.json["replayed"] for answer in same) == 1
    assert len({answer.json["key"] for answer in same}) == 1
    assert how_often(different) == {201: 4, 422: 16}
    assert {answer.json["code"] for answer in different if answer.status == 422} == {"idempotency_mismatch"}
    made = [ticket["summary"] for ticket in (await both[1].all_tickets()).values()]
    assert made.count("Only once") == 1
    assert sum(summary.startswith("One of many") for summary in made) == 1


async def test_a_ticket_is_claimed_by_one(both: tuple[Api, Api]) -> None:
    key = (await both[0].create("Wanted by all"))["key"]
    agents = [{"X-TaskHub-Actor": f"agent:a{n}"} for n in range(30)]
    claims = await asyncio.gather(
        *(both[n % 2].request("PUT", f"/api/v1/tickets/{key}/lease", headers=who) for n, who in enumerate(agents))
    )
    holder = (await both[0].get(f"/api/v1/tickets/{key}"))["ticket"]["lease"]["holder"]

    assert how_often(claims) == {200: 1, 409: 29}
    assert {answer.json["code"] for answer in claims if answer.status == 409} == {"lease_held"}
    assert holder == agents[[answer.status for answer in claims].index(200)]["X-TaskHub-Actor"]


async def test_each_ready_ticket_goes_to_one_who_asks_for_the_next(both: tuple[Api, Api]) -> None:
    keys = {(await both[0].create(f"Next {n}", labels=["queue"]))["key"] for n in range(10)}
    claims = await asyncio.gather(
        *(
            both[n % 2].request(
                "POST",
                "/api/v1/tickets/claim-next",
                json={"label": ["queue"]},
                headers={"X-TaskHub-Actor": f"agent:b{n}"},
            )
            for n in range(20)
        )
    )

    assert how_often(claims) == {200: 10, 409: 10}, claims
    assert {answer.json["code"] for answer in claims if answer.status == 409} == {"nothing_ready"}
    assert {answer.json["key"] for answer in claims if answer.status == 200} == keys


async def test_what_was_deleted_is_restored_once_and_deleted_once(both: tuple[Api, Api]) -> None:
    key = (await both[0].create("Now here, now gone"))["key"]
    position = (await both[0].get("/api/v1/events?after=now"))["position"]
    deleted = await all_at_once(both, 10, "DELETE", f"/api/v1/tickets/{key}")
    restored = await all_at_once(both, 10, "POST", f"/api/v1/tickets/{key}/restore")
    happened = Counter(event["type"] for event in await both[1].log(position))

    assert set(how_often(deleted)) <= {204, 410}
    assert how_often(restored) == {200: 10}
    assert [answer.json["noop"] for answer in restored].count(False) == 1
    assert happened == {"ticket.deleted": 1, "ticket.restored": 1}


async def test_a_version_is_changed_once(both: tuple[Api, Api]) -> None:
    path = f"/api/v1/tickets/{(await both[0].create('At version 1'))['key']}"
    changes = await asyncio.gather(
        *(
            both[n % 2].request("PATCH", path, json={"summary": f"By {n}"}, headers={"If-Match": '"1"'})
            for n in range(20)
        )
    )

    assert how_often(changes) == {200: 1, 412: 19}
    assert (await both[0].get(path))["ticket"]["version"] == 2


async def test_a_sign_in_link_lets_one_in(both: tuple[Api, Api], module_pair: list[TaskHubProcess]) -> None:
    link = (await sign_in_link(module_pair[0], "Lea", "viewer")).partition("#link=")[2]
    answers = await all_at_once(
        both, 50, "POST", "/api/v1/session", json={"link": link}, headers={**SIGNING_IN, "X-Forwarded-For": "192.0.2.1"}
    )

    assert how_often(answers)[201] == 1
    assert set(how_often(answers)) <= {201, 401, 429}
    refused = {answer.json["code"] for answer in answers if answer.status != 201}
    assert refused <= {"sign_in_refused", "too_many_attempts"}
    opened = await both[0].get("/api/v1/audit?action=session.opened")
    assert len([entry for entry in opened["entries"] if "lea" in json.dumps(entry)]) == 1


async def test_a_flood_of_sign_ins_lets_nobody_in_and_holds_up_nobody(both: tuple[Api, Api]) -> None:
    attempts = [
        both[n % 2].request(
            "POST",
            "/api/v1/session",
            json={"name": "nobody", "password": "wrong horse battery staple"},
            headers={**SIGNING_IN, "X-Forwarded-For": "192.0.2.2"},
        )
        for n in range(100)
    ]
    flood = asyncio.gather(*attempts)
    others = [await both[n % 2].create(f"Meanwhile {n}") for n in range(10)]
    answers = await flood

    assert set(how_often(answers)) <= {401, 429}
    assert how_often(answers)[429] > 0
    assert len({written["key"] for written in others}) == 10


async def test_a_stream_token_has_one_stream(both: tuple[Api, Api], module_pair: list[TaskHubProcess]) -> None:
    token = (await both[0].request("POST", "/events/tokens", json={"type": ["ticket.created"]})).json["token"]
    async with AsyncExitStack() as stack:
        streams = await asyncio.gather(
            *(stack.enter_async_context(record(hub.url, {"token": token})) for hub in [*module_pair, *module_pair])
        )
        made = await both[1].create("For the one that stayed")
        stayed = await _the_one_left(streams)
        await stayed.wait_id(made["event_id"])
        replaced = [stream for stream in streams if stream is not stayed]
        for stream in replaced:
            await stream.wait_end()

    assert [stream.named("goodbye")[0].data["reason"] for stream in replaced] == ["replaced"] * 3


async def _the_one_left(streams: Sequence[Any]) -> Any:
    """Of the streams, when all others have ended."""
    async with asyncio.timeout(60):
        waiting = {asyncio.create_task(stream.wait_end()): stream for stream in streams}
        try:
            while len(waiting) > 1:
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    del waiting[task]
            return next(iter(waiting.values()))
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)


async def _new_key(of: Api, name: str) -> tuple[str, dict[str, str]]:
    """The id of a key, and the headers that it comes in."""
    await of.request("POST", "/api/v1/users", json={"name": name, "role": "operator"})
    made = await of.request("POST", "/api/v1/keys", json={"user": name, "name": "of a test"})
    assert made.status == 201, made
    return made.json["key"]["id"], {"x-api-key": made.json["secret"]}


async def test_a_key_that_is_replaced_during_writes_loses_none(
    both: tuple[Api, Api], module_pair: list[TaskHubProcess]
) -> None:
    key_id, old = await _new_key(both[0], "writer")
    begun = asyncio.Event()

    async def write(hub: TaskHubProcess, number: int) -> list[Answer]:
        answers: list[Answer] = []
        async with api(hub.url, old) as client:
            while not answers or answers[-1].status == 201:
                body = {"summary": f"During {number} {len(answers)}", "labels": ["during"]}
                answers.append(await client.request("POST", "/api/v1/tickets", json=body))
                begun.set()
        return answers

    writing = [asyncio.create_task(write(module_pair[n % 2], n)) for n in range(6)]
    await begun.wait()
    rotated = await all_at_once(both, 5, "POST", f"/api/v1/keys/{key_id}/rotate", json={"overlap_s": 0})
    answers = [answer for each in await asyncio.gather(*writing) for answer in each]
    kept = [ticket for ticket in (await both[0].all_tickets()).values() if ticket["summary"].startswith("During ")]
    (new,) = [answer.json["secret"] for answer in rotated if answer.status == 201]

    assert how_often(rotated) == {201: 1, 409: 4}
    assert how_often(answers) == {201: len(kept), 401: 6}
    async with api(module_pair[1].url, {"x-api-key": new}) as client:
        assert (await client.get("/api/v1/me"))["actor"] == "user:writer"


async def test_a_revocation_ends_all_that_is_being_opened(both: tuple[Api, Api]) -> None:
    key_id, headers = await _new_key(both[0], "listener")

    async def listen(through: Api) -> str:
        """How the stream ended, when it has."""
        answer = await through.request("GET", "/events/stream", headers=headers)
        ends = re.findall(rb'event: goodbye\ndata: {"reason":"(\w+)"', answer.body)
        return ends[-1].decode() if answer.status == 200 else str(answer.status)

    early = [asyncio.create_task(listen(through)) for through in both * 5]
    revoked = asyncio.create_task(all_at_once(both, 4, "DELETE", f"/api/v1/keys/{key_id}"))
    late = [asyncio.create_task(listen(through)) for through in both * 5]
    ends = Counter(await asyncio.gather(*early, *late))

    assert set(ends) <= {"revoked", "401"}
    assert set(how_often(await revoked)) <= {204, 409}


@asynccontextmanager
async def _agreed(hub: TaskHubProcess, other: Api) -> AsyncIterator[dict[str, str]]:
    """The form that redeems a code which somebody has just agreed to."""
    registered = await other.request("POST", "/oauth/register", json={"redirect_uris": [CALLBACK], "client_name": "x"})
    asked = {
        "client_id": registered.json["client_id"], "redirect_uri": CALLBACK, "response_type": "code",
        "code_challenge": CHALLENGE, "code_challenge_method": "S256", "scope": "tickets:read",
    }  # fmt: skip
    query = "&".join(f"{name}={value}" for name, value in asked.items())
    async with person(hub) as olga:
        back = await olga.lets_in(f"{hub.url}/oauth/authorize?{query}")
    yield {
        "grant_type": "authorization_code", "code": told(back)["code"], "client_id": asked["client_id"],
        "code_verifier": VERIFIER, "redirect_uri": CALLBACK,
    }  # fmt: skip


async def test_a_code_is_redeemed_once_and_shown_again_ends_what_it_was_redeemed_for(
    module_pair: list[TaskHubProcess], both: tuple[Api, Api]
) -> None:
    async with api(module_pair[0].url) as first, api(module_pair[1].url) as second:
        async with _agreed(module_pair[0], second) as form:
            answers = await all_at_once((first, second), 20, "POST", "/oauth/token", data=form)
        (tokens,) = [answer.json for answer in answers if answer.status == 200]
        refresh = {
            "grant_type": "refresh_token", "refresh_token": tokens["refresh_token"], "client_id": form["client_id"],
        }  # fmt: skip
        after = await second.request("POST", "/oauth/token", data=refresh)

    assert how_often(answers) == {200: 1, 400: 19}
    assert {answer.json["error"] for answer in answers if answer.status == 400} == {"invalid_grant"}
    assert (after.status, after.json["error"]) == (400, "invalid_grant")


async def test_a_refresh_token_that_is_sent_many_times_together_has_one_successor(
    module_pair: list[TaskHubProcess], both: tuple[Api, Api]
) -> None:
    async with api(module_pair[0].url) as first, api(module_pair[1].url) as second:
        async with _agreed(module_pair[0], second) as form:
            tokens = (await first.request("POST", "/oauth/token", data=form)).json
        refresh = {"grant_type": "refresh_token", "client_id": form["client_id"]}
        same = {**refresh, "refresh_token": tokens["refresh_token"]}
        answers = await all_at_once((first, second), 20, "POST", "/oauth/token", data=same)
        (successor,) = {answer.json["refresh_token"] for answer in answers}
        after = await second.request("POST", "/oauth/token", data={**refresh, "refresh_token": successor})

    assert how_often(answers) == {200: 20}
    assert after.status == 200


NUL: Final[Sequence[tuple[str, str, dict[str, Any]]]] = [
    *[
        ("POST", f"/oauth/{what}", {"data": {"grant_type": kind, "client_id": "\0", "token": "\0", name: "thr_\0"}})
        for what in ("token", "revoke", "introspect")
        for kind, name in (("refresh_token", "refresh_token"), ("authorization_code", "code"))
    ],
    ("GET", f"/oauth/authorize?client_id=cli_%00&redirect_uri={CALLBACK}", {}),
    *[
        ("POST", "/api/v1/session", {"json": said, "headers": SIGNING_IN})
        for said in (
            {"name": "\0", "password": "\0"}, {"name": "a", "password": "x", "workspace": "a\0"}, {"link": "thl_\0"},
        )
    ],
    *[
        ("GET", f"{path}%00", {})
        for path in (
            "/api/v1/grants?user=", "/api/v1/keys?user=", "/api/v1/audit?actor=", "/api/v1/audit?target=",
            "/api/v1/tickets?query=", "/api/v1/tickets?label=", "/api/v1/export?label=", "/api/v1/events?after=",
            "/events/stream?label=", "/events/stream?token=", "/events/debug/explain?stream=x&event=",
        )
    ],
    *[
        ("POST", path, {"json": json.loads(json.dumps(body).replace("X", "\\u0000"))})
        for path, body in (
            ("/api/v1/keys", {"user": "X", "name": "X"}), ("/api/v1/users", {"name": "X"}),
            ("/api/v1/tickets", {"summary": "a", "external_ticket_id": "X"}), ("/api/v1/tickets", {"summary": "aX"}),
            ("/api/v1/tickets/bulk", {"items": [{"ticket_id": "X"}]}), ("/events/tokens", {"label": "X"}),
            ("/api/v1/batches/b-1/undo", {"lease_tokens": {"X": 1}}),
            ("/events", {"type": "a.b", "subject": "X", "data": {}}),
        )
    ],
    *[
        ("POST", "/mcp", {"json": {
            "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {
                "name": tool, "arguments": {name: given}, "_meta": {
                    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                    "io.modelcontextprotocol/clientCapabilities": {},
                },
            },
        }, "headers": {
            "Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2026-07-28",
            "Mcp-Method": "tools/call", "Mcp-Name": tool,
        }})
        for tool, name in (
            ("undo_batch", "batch_id"), ("get_ticket_detail", "ticket_id"), ("get_ticket_list", "query"),
            ("claim_next_ticket", "label"), ("get_events", "after"),
        )
        for given in ("\0", "\ud800")
    ],
]  # fmt: skip
"""Requests with a text that PostgreSQL does not even look for."""


async def test_what_no_database_can_hold_is_the_mistake_of_who_sends_it(both: tuple[Api, Api]) -> None:
    places = asyncio.Semaphore(10)

    async def told_of(method: str, path: str, options: dict[str, Any]) -> str | None:
        async with places:
            answer = await both[0].request(method, path, allow_redirects=False, **options)
        # To OAuth what is no token is not good, and revoked already (RFC 7009, 2.2); tools answer with an error.
        nothing = answer.body in (b'{"active":false}', b"{}")
        mistaken = answer.status == 200 and (b'"isError":true' in answer.body or nothing)
        fine = (400 <= answer.status < 500 or mistaken) and b"internal_error" not in answer.body
        return None if fine else f"{method} {path} {str(options)[:100]}: {answer}"

    found = [each for each in await asyncio.gather(*(told_of(*request) for request in NUL)) if each is not None]
    line = b'{"external_ticket_id": "a\\u0000", "summary": "x"}'
    imported = await both[0].request(
        "POST", "/api/v1/import", data=line, headers={"Content-Type": "application/x-ndjson"}
    )

    assert not found, "\n".join(found)
    assert (imported.status, imported.json["failed"]) == (200, 1)
