"""Clients that say at an address of their own what they are."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import web

from taskhub.oauth import documents
from taskhub.oauth.documents import ClientDocuments, host_of
from taskhub.oauth.errors import UnsafeRequest
from taskhub.oauth.guard import Guard
from taskhub.storage.database import Database
from tests.taskhub.oauth.web import Site, answering, site
from tests.taskhub.world import NOON


class Clock:
    def __init__(self) -> None:
        self.now = NOON


@pytest.fixture
async def there(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as served:
        yield served


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def embedded(sqlite_url: str) -> AsyncIterator[Database]:
    """For what the kind of database has no part in."""
    database = Database(sqlite_url, busy_timeout_s=60)
    await database.open()
    yield database
    await database.close()


@pytest.fixture
def clients(embedded: Database, there: Site, clock: Clock) -> ClientDocuments:
    return ClientDocuments(embedded, there.guard, lambda: clock.now)


@pytest.fixture
def kept(database: Database, there: Site, clock: Clock) -> ClientDocuments:
    """Clients whose documents are kept in a database of each kind."""
    return ClientDocuments(database, there.guard, lambda: clock.now)


async def test_a_client_is_what_its_document_says(clients: ClientDocuments, there: Site) -> None:
    client_id = there.client(client_name="Ticket\u202ereader\n", redirect_uris=["https://client.example.org/cb"])
    client = await clients.client(client_id)

    assert (client.id, client.kind, client.host) == (client_id, "document", "127.0.0.1")
    assert client.name == "Ticket reader"
    assert client.redirect_uris == ("https://client.example.org/cb",)


async def test_a_document_is_read_again_when_it_is_no_longer_good(
    kept: ClientDocuments, there: Site, clock: Clock
) -> None:
    client_id = there.client()
    for _ in range(3):
        await kept.client(client_id)
    assert there.asked == ["/client.json"]

    there.client(client_name="Renamed")
    clock.now += documents.USUAL + timedelta(seconds=1)

    assert (await kept.client(client_id)).name == "Renamed"
    assert len(there.asked) == 2


async def test_how_long_a_document_is_good_it_may_say_within_bounds(
    clients: ClientDocuments, there: Site, clock: Clock
) -> None:
    bounds = {"max-age=1": documents.SHORTEST, "max-age=99999999": documents.LONGEST, "no-store": documents.SHORTEST}
    for number, (said, good_for) in enumerate(bounds.items()):
        path = f"/{number}.json"
        client_id = there.address(path)
        document = {"client_id": client_id, "redirect_uris": ["http://127.0.0.1/cb"]}
        there.pages[path] = answering(document, **{"Cache-Control": said})
        before = clock.now
        await clients.client(client_id)
        clock.now = before + good_for - timedelta(seconds=1)
        await clients.client(client_id)
        assert there.asked.count(path) == 1
        clock.now = before + good_for
        await clients.client(client_id)
        assert there.asked.count(path) == 2


async def test_clients_that_come_at_once_are_all_served(kept: ClientDocuments, there: Site) -> None:
    client_id = there.client()

    found = await asyncio.gather(*(kept.client(client_id) for _ in range(10)))

    assert {client.id for client in found} == {client_id}


async def test_few_documents_are_kept(
    kept: ClientDocuments, there: Site, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "MAX_KEPT", 2)
    for number in range(3):
        clock.now += timedelta(seconds=1)
        await kept.client(there.client(f"/{number}.json"))
    await kept.client(there.address("/2.json"))
    await kept.client(there.address("/1.json"))
    await kept.client(there.address("/0.json"))

    assert there.asked == ["/0.json", "/1.json", "/2.json", "/0.json"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"client_id": "https://client.example.org/other.json"}, {"client_id": None}, {"redirect_uris": []},
        {"redirect_uris": None}, {"redirect_uris": ["javascript:alert(1)"]}, {"redirect_uris": "http://127.0.0.1/cb"},
        {"redirect_uris": [f"http://127.0.0.1/{n}" for n in range(11)]}, {"client_secret": "no secret any more"},
        {"token_endpoint_auth_method": "client_secret_basic"}, {"grant_types": ["client_credentials"]},
        {"client_name": ["A client"]},
    ],
    ids=str,
)  # fmt: skip
async def test_a_document_that_says_something_else_is_no_clients(
    clients: ClientDocuments, there: Site, wrong: dict[str, object]
) -> None:
    with pytest.raises(UnsafeRequest) as refused:
        await clients.client(there.client(**wrong))

    assert refused.value.reason == "document"


async def large(request: web.Request) -> web.Response:
    return web.json_response({"client_id": str(request.url), "x": "x" * documents.MAX_BYTES})


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    while True:
        await response.write(b" " * 1000)


async def elsewhere(request: web.Request) -> web.Response:
    raise web.HTTPFound("/client.json")


async def slow(request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


async def trickling(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(b"{")
    await asyncio.Event().wait()
    return response


async def packed(request: web.Request) -> web.Response:
    response = web.json_response({"client_id": str(request.url), "redirect_uris": ["http://127.0.0.1/cb"]})
    response.enable_compression(web.ContentCoding.gzip)
    return response


def saying(body: bytes, kind: str = "application/json") -> object:
    async def say(request: web.Request) -> web.Response:
        return web.Response(body=body, headers={"Content-Type": kind})

    return say


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (large, "more than 5120 bytes"), (endless, "more than 5120 bytes"), (elsewhere, "status 302"),
        (slow, "did not come"), (trickling, "did not come"), (packed, "not application/json"),
        (saying(b"{}", "text/html"), "not application/json"), (saying(b"no"), "not JSON"), (saying(b""), "not JSON"),
        (saying(b"[]"), "not a JSON object"), (saying(b'"\xff"'), "not JSON"), (saying(b"[" * 5000), "not JSON"),
    ],
    ids=lambda each: each if isinstance(each, str) else getattr(each, "__name__", "body"),
)  # fmt: skip
async def test_an_answer_that_is_no_small_document_is_refused(
    clients: ClientDocuments, there: Site, answer: object, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "come" in why:
        monkeypatch.setattr(documents, "TIMEOUT_S", 0.3)
    client_id = there.client()
    there.pages["/client.json"] = answer  # type: ignore[assignment]  # what answers

    with pytest.raises(UnsafeRequest, match=why) as refused:
        await clients.client(client_id)

    assert refused.value.reason == "document"
    assert there.asked == ["/client.json"]


async def test_nothing_is_asked_of_this_machine_or_its_network(embedded: Database, there: Site) -> None:
    guarded = ClientDocuments(embedded, Guard())

    with pytest.raises(UnsafeRequest, match="not a public one"):
        await guarded.client(there.client())
    with pytest.raises(UnsafeRequest, match="not a public one"):
        await guarded.client(f"https://localhost:{there.port}/client.json")

    assert there.asked == []


@pytest.mark.parametrize(
    "client_id",
    [
        "http://client.example.org/client.json", "https://client.example.org", "https://client.example.org/",
        "https://client.example.org/a/../client.json", "https://client.example.org/./client.json",
        "https://client.example.org/%2e%2e/client.json", "https://client.example.org/a%2fb",
        "https://client.example.org/client.json#part", "https://user@client.example.org/client.json",
        "https://user:word@client.example.org/client.json", "HTTPS://client.example.org/client.json",
        "https://Client.example.org/client.json", "https://client.example.org\\client.json",
        "https://client.example.org/client json", "https://client.example.org/" + "a" * 500, "https:client.json", "",
    ],
)  # fmt: skip
def test_an_address_that_could_be_written_otherwise_is_no_clients_id(client_id: str) -> None:
    assert host_of(client_id) is None
