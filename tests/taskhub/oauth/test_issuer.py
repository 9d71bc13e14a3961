"""How the keys of an issuer elsewhere are found, followed, and done without."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web

from taskhub.auth.errors import KeysUnavailable
from taskhub.oauth.issuer import MAX_DOCUMENT_BYTES, RemoteKeySet, metadata_addresses
from tests.issuer import Issuer
from tests.signing import Signer

DEADLINE_S = 30


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer() as issuer:
        yield issuer


class Time:
    """A clock that tests turn."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def knows(keys: RemoteKeySet, signer: Signer) -> bool:
    async with asyncio.timeout(DEADLINE_S):
        return await keys.key(signer.kid, "ES256") is not None


@pytest.mark.parametrize("well_known", ["/.well-known/openid-configuration", "/.well-known/oauth-authorization-server"])
async def test_keys_are_found_through_the_metadata(issuer: Issuer, well_known: str) -> None:
    issuer.well_known = (well_known,)

    async with RemoteKeySet(issuer.url) as keys:
        assert await knows(keys, issuer.signer)


async def test_keys_of_an_issuer_without_metadata_are_where_it_is_said(issuer: Issuer) -> None:
    issuer.well_known = ()

    async with RemoteKeySet(issuer.url, f"{issuer.url}/keys") as keys:
        assert await knows(keys, issuer.signer)
    assert dict(issuer.asked) == {"/keys": 1}


def test_an_issuer_with_a_path_has_its_metadata_in_three_places() -> None:
    assert metadata_addresses("https://login.example.org/realms/one/") == (
        "https://login.example.org/.well-known/oauth-authorization-server/realms/one",
        "https://login.example.org/.well-known/openid-configuration/realms/one",
        "https://login.example.org/realms/one/.well-known/openid-configuration",
    )


async def test_a_new_key_is_asked_for_and_an_old_one_no_more_trusted(issuer: Issuer) -> None:
    time = Time()
    async with RemoteKeySet(issuer.url, monotonic=time) as keys:
        await knows(keys, issuer.signer)
        old = issuer.rotate()
        time.now += 6

        assert await knows(keys, issuer.signer)
        assert not await knows(keys, old)


async def test_made_up_key_ids_make_it_ask_once_in_a_while_alone(issuer: Issuer) -> None:
    time = Time()
    async with RemoteKeySet(issuer.url, monotonic=time) as keys:
        await knows(keys, issuer.signer)
        time.now += 6
        for number in range(20):
            assert await keys.key(f"made-up-{number}", "ES256") is None

        assert issuer.asked["/keys"] == 2
        time.now += 6
        assert await keys.key("made-up", "ES256") is None
        assert issuer.asked["/keys"] == 3


async def test_many_who_wait_for_keys_ask_once(issuer: Issuer) -> None:
    issuer.open.clear()
    async with RemoteKeySet(issuer.url) as keys:
        waiting = [asyncio.create_task(keys.key(issuer.signer.kid, "ES256")) for _ in range(20)]
        while not issuer.asked:
            await asyncio.sleep(0)
        waiting[0].cancel()  # whoever asked first leaves
        issuer.open.set()

        async with asyncio.timeout(DEADLINE_S):
            found = await asyncio.gather(*waiting, return_exceptions=True)

    assert isinstance(found[0], asyncio.CancelledError)
    assert all(key is not None and not isinstance(key, BaseException) for key in found[1:])
    assert issuer.asked["/keys"] == 1


async def test_an_outage_leaves_the_keys_for_a_while_and_then_nobody_is_let_in(issuer: Issuer) -> None:
    time = Time()
    async with RemoteKeySet(issuer.url, trust_s=100, monotonic=time) as keys:
        await knows(keys, issuer.signer)
        await issuer.stop()
        time.now += 50
        await keys.refresh()

        assert await knows(keys, issuer.signer)
        with pytest.raises(KeysUnavailable):
            await keys.key("unknown", "ES256")
        time.now += 51
        with pytest.raises(KeysUnavailable):
            await keys.key(issuer.signer.kid, "ES256")

        await issuer.start()
        time.now += 6
        assert await knows(keys, issuer.signer)


async def test_an_issuer_that_was_never_there_opens_nothing_and_is_found_when_it_comes(issuer: Issuer) -> None:
    await issuer.stop()
    time = Time()
    async with RemoteKeySet(issuer.url, monotonic=time) as keys:
        with pytest.raises(KeysUnavailable):
            await keys.key(issuer.signer.kid, "ES256")
        await issuer.start()
        time.now += 6

        assert await knows(keys, issuer.signer)


async def test_an_issuer_that_does_not_answer_is_not_waited_for(issuer: Issuer) -> None:
    issuer.open.clear()
    async with RemoteKeySet(issuer.url, timeout_s=0.1) as keys:
        async with asyncio.timeout(DEADLINE_S):
            with pytest.raises(KeysUnavailable):
                await keys.key(issuer.signer.kid, "ES256")


def redirected(request: web.Request) -> web.Response | None:
    """To where the keys are, as a server that does not know its own address might say it."""
    first = request.path_qs == "/keys"
    return web.Response(status=302, headers={"Location": "/keys?again"}) if first else None


def answering(text: str | bytes) -> Callable[[web.Request], web.Response | None]:
    body = text.encode() if isinstance(text, str) else text
    return lambda request: web.Response(body=body) if request.path == "/keys" else None


FAULTS: dict[str, dict[str, Any]] = {
    "the metadata of another": {"metadata": {"issuer": "https://login.example.org"}},
    "metadata of nobody": {"metadata": {"issuer": None}},
    "no keys": {"metadata": {"jwks_uri": None}},
    "keys that are no address": {"metadata": {"jwks_uri": 7}},
    "keys in a file": {"metadata": {"jwks_uri": "file:///etc/passwd"}},
    "keys without encryption": {"metadata": {"jwks_uri": "http://192.0.2.1/keys"}},
    "a redirect": {"answer": redirected},
    "an error": {"answer": lambda request: web.Response(status=500)},
    "no JSON": {"answer": answering("<html>")},
    "no object": {"answer": answering("[]")},
    "no set of keys": {"answer": answering('{"keys": {}}')},
    "nested lists": {"answer": answering("[" * 100_000)},
    "no text": {"answer": answering(b"\xff\xfe{}")},
    "more than anybody reads": {"answer": answering('{"keys": [], "more": "' + "x" * MAX_DOCUMENT_BYTES + '"}')},
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_what_an_issuer_must_not_say_changes_nothing(issuer: Issuer, fault: dict[str, Any]) -> None:
    async with RemoteKeySet(issuer.url) as keys:
        await knows(keys, issuer.signer)
        for name, value in fault.items():
            setattr(issuer, name, value)
        issuer.keys = []
        await keys.refresh()

        assert await knows(keys, issuer.signer)
        with pytest.raises(KeysUnavailable):
            await keys.key("unknown", "ES256")
