"""Stream tokens in either database."""

from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import select

from taskhub.auth.secret import STREAM_TOKEN_PREFIX, well_formed
from taskhub.storage.schema import stream_tokens
from taskhub.stream_tokens.model import new_secret
from taskhub.stream_tokens.store import StreamTokenStore
from tests.taskhub.world import ALICE, World, rows

BOT = replace(
    ALICE, principal=replace(ALICE.principal, actor="agent:alice.bot", owner="user:alice", credential="key_1")
)


@pytest.fixture
def store(world: World) -> StreamTokenStore:
    return StreamTokenStore(world.database, clock=lambda: world.now)


def passed(world: World, **time: float) -> None:
    world.now += timedelta(**time)


async def test_a_token_is_found_as_it_was_made(store: StreamTokenStore) -> None:
    parameters = (("type", "build.*"), ("type", "ticket.created"), ("snapshot", "true"))
    issued = await store.create(BOT, "key:x", parameters)
    found = await store.find(issued.token)

    assert found is not None
    assert found.parameters == parameters
    assert found.expires_at == issued.expires_at
    assert found.principal == replace(BOT.principal, authenticated=True)
    assert await store.find(new_secret()) is None


async def test_only_one_stream_has_a_token_and_the_one_before_is_named(store: StreamTokenStore) -> None:
    found = await store.find((await store.create(BOT, "none", ())).token)
    assert found is not None

    assert await store.opened(found.id, "st_1", "a") is None
    assert await store.opened(found.id, "st_2", "b") == ("st_1", "a")
    assert await store.opened(found.id, "st_3", "b") == ("st_2", "b")


async def test_a_token_lives_as_long_as_its_stream_is_seen_and_twelve_hours_at_most(
    store: StreamTokenStore, world: World
) -> None:
    used, unused = [(await store.create(BOT, "none", ())).token for _ in range(2)]
    found = await store.find(used)
    assert found is not None
    await store.opened(found.id, "st_1", "a")

    for _ in range(47):
        passed(world, minutes=15)
        assert await store.find(used) is not None
        await store.still_open([found.id])
    assert await store.find(unused) is None
    passed(world, minutes=15)
    assert await store.find(used) is None
    with pytest.raises(LookupError):
        await store.opened(found.id, "st_2", "a")
    await store.still_open([found.id])
    assert await store.find(used) is None


async def test_what_is_over_is_swept_and_what_was_open_not_at_once(store: StreamTokenStore, world: World) -> None:
    used, _ = [await store.find((await store.create(BOT, "none", ())).token) for _ in range(2)]
    assert used is not None
    await store.opened(used.id, "st_1", "a")
    passed(world, minutes=30)
    await store.create(BOT, "none", ())

    await store.sweep()
    left = await rows(world.database, select(stream_tokens.c.id))
    # As after a database that was away for long: its stream was open all the while.
    await store.still_open([used.id])
    passed(world, hours=3)
    await store.sweep()

    assert len(left) == 2
    assert (used.id,) in [tuple(row) for row in left]
    assert await rows(world.database, select(stream_tokens.c.id)) == []


def test_a_token_is_recognised_by_its_form() -> None:
    made = {new_secret() for _ in range(100)}

    assert len(made) == 100
    assert all(well_formed(secret) and secret.startswith(STREAM_TOKEN_PREFIX) for secret in made)
    secret = made.pop()
    assert not well_formed(secret[:-1])
    assert not well_formed(secret[:10] + ("A" if secret[10] != "A" else "B") + secret[11:])
