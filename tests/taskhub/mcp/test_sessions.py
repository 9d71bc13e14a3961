"""Sessions of the older era: whose they are, and that calls in them outlive the process that opened them."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import aiohttp
import pytest

from broadcaster.control import LocalControl
from taskhub.auth.errors import Unauthenticated
from taskhub.auth.principal import ALL_SCOPES, Principal
from taskhub.mcp.headers import SESSION_HEADER
from taskhub.mcp.host import McpHost
from taskhub.mcp.session_ids import Session, SessionIds
from taskhub.tickets.service import TicketService
from tests.servers import free_port
from tests.taskhub.mcp.live import ByHeader, open_live
from tests.taskhub.mcp.wire import ACCEPT, Wire, in_session
from tests.taskhub.mcp.world import SECRET, Served, data_of, serve_mcp

ANN = Principal("user:ann", "default", ALL_SCOPES, authenticated=True)
BEN = Principal("user:ben", "default", ALL_SCOPES, authenticated=True)


class TwoKeys:
    """The key `ann` or `ben` in x-api-key."""

    name = "api_key"

    async def authenticate(self, headers: Mapping[str, str], client_address: str | None) -> Principal:
        found = {"ann": ANN, "ben": BEN}.get(headers.get("X-API-Key", ""))
        if found is None:
            raise Unauthenticated("an API key is needed")
        return found


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def wire(served: Served, http: aiohttp.ClientSession) -> Wire:
    return Wire(http, f"{served.url}/mcp")


def test_an_id_carries_the_clients_name_and_is_visible_ascii() -> None:
    ids = SessionIds(SECRET)

    text = ids.issue("abc", ANN, "日本語 クライアント")

    assert all(0x21 <= ord(character) <= 0x7E for character in text)
    assert ids.read(text, ANN) == Session("abc", "日本語 クライアント")
    assert ids.read(ids.issue("abc", ANN, None), ANN) == Session("abc", None)


def test_an_id_is_worth_nothing_to_another_principal_or_workspace_or_under_another_secret() -> None:
    text = SessionIds(SECRET).issue("abc", ANN, "client")

    assert SessionIds(SECRET).read(text, BEN) is None
    assert SessionIds(SECRET).read(text, Principal("user:ann", "other", ALL_SCOPES, authenticated=True)) is None
    assert SessionIds(b"another").read(text, ANN) is None


@pytest.mark.parametrize("text", ["", ".", "..", "a.b", "a.b.c", "a.b.c.d", "é.b.c", "x" * 5000, "a..%00"])
def test_any_other_text_is_no_id(text: str) -> None:
    assert SessionIds(SECRET).read(text, ANN) is None


def test_no_part_of_an_id_can_be_changed() -> None:
    ids = SessionIds(SECRET)
    inner, client, signature = ids.issue("abc", ANN, "client").split(".")

    for changed in (f"abd.{client}.{signature}", f"{inner}.Y2xpZW5.{signature}", f"{inner}.{client}.{signature[:-1]}A"):
        assert ids.read(changed, ANN) is None


async def test_every_answer_in_a_session_names_it_by_the_id_that_the_client_has(wire: Wire) -> None:
    session = await wire.open()

    answer = await wire.send("tools/list", **in_session(session))

    assert answer.session == session


async def test_another_principals_or_an_invented_session_is_not_found(
    tickets: TicketService, http: aiohttp.ClientSession
) -> None:
    async with serve_mcp(tickets, auth=TwoKeys()) as served:
        wire = Wire(http, f"{served.url}/mcp")
        session = await wire.open(X_API_Key="ann")
        inner = session.split(".")[0]

        own = await wire.send("tools/list", **in_session(session), X_API_Key="ann")
        others = await wire.send("tools/list", **in_session(session), X_API_Key="ben")
        bare = await wire.send("tools/list", **in_session(inner), X_API_Key="ann")
        invented = await wire.send("tools/list", **in_session("0" * 32), X_API_Key="ann")

        assert own.status == 200
        assert [others.status, bare.status, invented.status] == [404, 404, 404]
        assert others.message == invented.message


async def test_another_principals_older_stream_cannot_be_written_to(
    tickets: TicketService, http: aiohttp.ClientSession
) -> None:
    async with (
        serve_mcp(tickets, auth=TwoKeys()) as served,
        http.get(f"{served.url}/sse", headers={"X-API-Key": "ann"}) as stream,
    ):
        await stream.content.readuntil(b"data: ")
        endpoint = (await stream.content.readline()).decode().strip()
        message = {"jsonrpc": "2.0", "id": 1, "method": "ping"}

        async with http.post(served.url + endpoint, json=message, headers={"X-API-Key": "ben"}) as refused:
            assert refused.status == 404
        async with http.post(served.url + endpoint, json=message, headers={"X-API-Key": "ann"}) as accepted:
            assert accepted.status == 202


async def test_a_client_goes_on_after_a_restart_without_noticing(tickets: TicketService) -> None:
    port = free_port()
    async with serve_mcp(tickets, port=port) as served:
        client = served.client("legacy", name="Old Hand")
        async with client:
            await client.call_tool("create_ticket", {"summary": "before"})
            await served.close()
            async with serve_mcp(tickets, port=port):
                await client.call_tool("create_ticket", {"summary": "after"})
                detail = {"ticket_id": "TH-2", "include": ["history"]}
                found = data_of(await client.call_tool("get_ticket_detail", detail))

    assert found["ticket"]["summary"] == "after"
    assert found["history"][0]["actor"] == "agent:old_hand"


async def test_a_session_opened_in_one_process_is_served_by_another(
    tickets: TicketService, http: aiohttp.ClientSession
) -> None:
    async with serve_mcp(tickets) as one, serve_mcp(tickets) as another:
        session = await Wire(http, f"{one.url}/mcp").open()
        wire = Wire(http, f"{another.url}/mcp")

        answer = await wire.call("create_ticket", {"summary": "x"}, **in_session(session))
        note = await wire.send("notifications/cancelled", {"requestId": 9}, None, **in_session(session))

        assert answer.data["key"] == "TH-1"
        assert note.status == 202


async def test_what_reaches_another_process_is_passed_on_to_the_session_it_is_for(
    database_file: Path, http: aiohttp.ClientSession
) -> None:
    hosts: list[McpHost] = []

    async def to_all(message: bytes) -> None:
        for host in hosts:
            await host.take(message)

    async with (
        open_live(database_file, pass_on=to_all) as live,
        serve_mcp(live.tickets, auth=ByHeader(), pass_on=to_all) as another,
    ):
        hosts += [another.host, live.served.host]
        here, there = Wire(http, f"{live.served.url}/mcp"), Wire(http, f"{another.url}/mcp")
        key = await live.create("Printer is on fire")
        session = in_session(await here.open("wire client", {"elicitation": {}}))

        async with here.calling("delete_ticket", {"ticket_id": key}, **session) as message:
            question = await message()
            status = await there.answer(question["id"], {"action": "accept", "content": {}}, **session)
            answer = await message()
        async with here.calling("get_events", {"wait_seconds": 50}, **session) as message:
            begun = await message()
            await there.send("notifications/cancelled", {"requestId": 7}, None, **session)
            ended = await message()

    assert question["params"]["message"].startswith(f"Delete {key} “Printer is on fire”?")
    assert (status, answer["result"]["structuredContent"]["version"]) == (202, 2)
    assert begun["method"] == "notifications/progress"
    assert "error" in ended


@pytest.mark.parametrize("letter", ["x", '"', "\n"])
async def test_an_answer_that_is_too_long_to_be_passed_on_is_accepted_and_goes_nowhere(
    tickets: TicketService, http: aiohttp.ClientSession, letter: str
) -> None:
    control = LocalControl("one")
    heard: list[bytes] = []

    async def pass_on(message: bytes) -> None:
        await control.ask("mcp_message", message)

    async def hear(kind: str, question: bytes) -> bytes:
        heard.append(question)
        return b"{}"

    control.start(hear)
    async with serve_mcp(tickets, pass_on=pass_on) as one, serve_mcp(tickets) as another:
        session = in_session(await Wire(http, f"{another.url}/mcp").open())
        there = Wire(http, f"{one.url}/mcp")
        lengths = (10, 2_000, 3_800, 12_000, 40_000)
        session["Accept"] = f"{ACCEPT}, long/{'x' * 3_000}"
        statuses = [
            await there.answer(1, {"action": "accept", "content": {"text": letter * n}}, **session) for n in lengths
        ]

    assert statuses == [202] * len(lengths)
    assert 2 <= len(heard) < len(lengths)


async def test_the_stream_of_a_session_that_another_process_knows_stays_open(
    tickets: TicketService, http: aiohttp.ClientSession
) -> None:
    async with serve_mcp(tickets) as one, serve_mcp(tickets) as another:
        session = await Wire(http, f"{one.url}/mcp").open()
        headers = {"Accept": "text/event-stream", **in_session(session)}

        async with http.get(f"{another.url}/mcp", headers=headers) as stream:
            assert stream.status == 200
            assert not stream.content.at_eof()


async def test_a_deployment_with_another_secret_does_not_know_the_session(
    tickets: TicketService, http: aiohttp.ClientSession
) -> None:
    async with serve_mcp(tickets) as one, serve_mcp(tickets, secret=b"another") as foreign:
        session = await Wire(http, f"{one.url}/mcp").open()

        answer = await Wire(http, f"{foreign.url}/mcp").send("tools/list", **in_session(session))

        assert answer.status == 404


async def test_a_session_that_its_client_ended_is_gone(wire: Wire) -> None:
    session = await wire.open()

    async with wire.http.delete(wire.url, headers=in_session(session)) as ended:
        assert ended.status == 200

    assert (await wire.send("tools/list", **in_session(session))).status == 404


async def test_a_session_can_be_ended_where_it_is_not_known(
    tickets: TicketService, http: aiohttp.ClientSession
) -> None:
    async with serve_mcp(tickets) as one, serve_mcp(tickets) as another:
        session = await Wire(http, f"{one.url}/mcp").open()
        wire = Wire(http, f"{another.url}/mcp")

        async with http.delete(wire.url, headers=in_session(session)) as ended:
            assert ended.status == 200

        assert (await wire.send("tools/list", **in_session(session))).status == 404


async def test_initializing_anew_with_an_old_id_opens_a_new_session(
    tickets: TicketService, http: aiohttp.ClientSession
) -> None:
    async with serve_mcp(tickets) as one, serve_mcp(tickets) as another:
        old = await Wire(http, f"{one.url}/mcp").open()
        wire = Wire(http, f"{another.url}/mcp")

        answer = await wire.initialize(**{SESSION_HEADER: old})

        assert answer.status == 200
        assert answer.session != old


async def test_a_refused_request_leaks_no_id_of_the_sdk(wire: Wire) -> None:
    answer = await wire.send("tools/list")

    assert answer.status == 400
    assert SESSION_HEADER not in answer.headers


@pytest.mark.parametrize(("accept", "status"), [("*/*", 400), (ACCEPT, 400), ("text/plain", 406)])
async def test_a_call_without_a_session_is_told_how_to_get_one(wire: Wire, accept: str, status: int) -> None:
    answer = await wire.send("tools/list", Accept=accept)

    message = answer.message["error"]["message"]
    assert answer.status == status
    assert ("`initialize`" in message and SESSION_HEADER in message) is (status == 400)


async def test_a_client_that_leaves_right_after_the_answer_to_initialize_has_its_session(served: Served) -> None:
    async with served.client("legacy") as client:  # the SDK's closes that response without reading its end
        assert (await client.list_tools()).tools
        assert len(served.host._sessions._known._server_instances) == 1
