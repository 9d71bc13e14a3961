"""Whom tokens stand for, and what they and what they opened are good for, on SQLite and on PostgreSQL."""

import asyncio
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from taskhub.auth.errors import InvalidToken, UnknownSubject
from taskhub.auth.principal import Principal, Scope
from taskhub.auth.roles import SCOPES_OF_ROLE
from taskhub.credentials.holder import Holder
from taskhub.oauth.access_tokens import AccessTokens
from taskhub.oauth.keys import PublicKeys
from taskhub.oauth.tokens import ForeignTokens, GrantedTokens
from taskhub.oauth.users import Users
from taskhub.storage.times import to_text
from tests.signing import ISSUER, RESOURCE, elliptic
from tests.taskhub.world import World

EC = elliptic()
WORKING: frozenset[Scope] = frozenset(("tickets:read", "tickets:write"))


class GrantTable:
    """What users have granted, as the server that issues tokens would know it."""

    def __init__(self) -> None:
        self.rows: dict[str, Holder] = {}
        self.noted: list[str] = []

    async def holders(self, ids: Collection[str]) -> Mapping[str, Holder]:
        return {name: row for name, row in self.rows.items() if name in ids}

    async def used(self, ids: Collection[str]) -> None:
        self.noted += ids


def grant(user: str = "alice", **fields: Any) -> Holder:
    principal = Principal(f"user:{user}", "default", WORKING, authenticated=True, credential="grt_1")
    return replace(Holder(principal, None), **fields)


@pytest.fixture
async def known(world: World) -> World:
    """A workspace with Alice, who is an agent, and Bob, who may only look."""
    await world.add("users", "Alice", role="agent", email="Alice@example.org")
    await world.add("users", "Bob", role="viewer")
    return world


TOKENS = AccessTokens(ISSUER, RESOURCE, PublicKeys([EC.jwk]))


def store_of(world: World, **mapping: Any) -> ForeignTokens:
    return ForeignTokens(world.database, TOKENS, Users(world.database, world.tickets, **mapping))


async def test_a_token_is_good_for_what_was_granted_of_what_the_role_allows(known: World) -> None:
    store = store_of(known)
    claims = {"scope": "openid tickets:read reference:write", "exp": 2_000_000_000, "iat": 1}

    holder = await store.holder(EC.token(claims))

    assert holder is not None
    assert holder.expires_at == to_text(datetime.fromtimestamp(2_000_000_000, UTC))
    principal = holder.principal
    assert (principal.actor, principal.workspace, principal.authenticated) == ("user:alice", "default", True)
    assert principal.scopes == {"tickets:read"}
    assert principal.grantable == SCOPES_OF_ROLE["agent"] - {"tickets:read"}


async def test_any_instance_can_judge_what_a_token_has_opened(known: World) -> None:
    holder = await store_of(known).holder(EC.token())
    assert holder is not None
    credential = str(holder.principal.credential)

    elsewhere = store_of(known)

    assert await elsewhere.holders([credential]) == {credential: holder}
    await known.change_reference("users", "alice", role="viewer")
    assert (await elsewhere.holders([credential]))[credential].principal.scopes == {"tickets:read", "events:read"}
    await known.change_reference("users", "alice", active=False)
    assert await elsewhere.holders([credential]) == {}


async def test_many_are_judged_at_once(known: World) -> None:
    store = store_of(known)
    ids = []
    for user in ("alice", "bob"):
        holder = await store.holder(EC.token({"sub": user, "scope": ""}))
        assert holder is not None
        ids.append(str(holder.principal.credential))
    ids += [ids[0].replace("alice", f"user_{number}") for number in range(1200)]

    assert [holder.principal.actor for holder in (await store.holders(ids)).values()] == ["user:alice", "user:bob"]


async def test_two_tokens_are_two_credentials(known: World) -> None:
    store = store_of(known)
    first, second = await store.holder(EC.token({"jti": "1"})), await store.holder(EC.token({"jti": "2"}))

    assert first is not None
    assert second is not None
    assert first.principal.credential != second.principal.credential


async def test_a_token_ends_with_the_grant_that_it_names(known: World) -> None:
    grants = GrantTable()
    store = GrantedTokens(TOKENS, grants)
    token = EC.token({"grant_id": "grt_1", "scope": "tickets:read tickets:write events:read"})
    assert await store.holder(token) is None

    grants.rows["grt_1"] = grant()
    holder = await store.holder(token)

    assert holder is not None
    assert holder.principal.scopes == WORKING  # what was granted, whatever the token says
    credential = str(holder.principal.credential)
    assert credential in await store.holders([credential])
    await store.used([credential])
    assert grants.noted == ["grt_1"]
    soon = to_text(datetime.fromtimestamp(time.time() + 100, UTC))
    grants.rows["grt_1"] = grant(expires_at=soon)
    assert (await store.holders([credential]))[credential].expires_at == soon
    grants.rows["grt_1"] = grant(expires_at="2020-01-01T00:00:00.000Z")
    assert await store.holder(token) is None
    del grants.rows["grt_1"]
    assert await store.holders([credential]) == {}


async def test_a_grant_of_somebody_else_is_worth_nothing(known: World) -> None:
    grants = GrantTable()
    grants.rows["grt_1"] = grant("bob")

    assert await GrantedTokens(TOKENS, grants).holder(EC.token({"grant_id": "grt_1"})) is None


async def test_a_token_without_a_grant_is_none_of_ours(known: World) -> None:
    with pytest.raises(InvalidToken):
        await GrantedTokens(TOKENS, GrantTable()).holder(EC.token())


async def test_a_grant_that_another_issuer_speaks_of_means_nothing(known: World) -> None:
    holder = await store_of(known).holder(EC.token({"grant_id": "grt_1"}))

    assert holder is not None
    assert "grt_1" not in str(holder.principal.credential)


async def test_an_address_means_the_one_user_who_has_it_whatever_its_case(known: World) -> None:
    store = store_of(known, claim="email")
    verified = {"sub": "x", "email": "aLICE@EXAMPLE.org", "email_verified": True}

    holder = await store.holder(EC.token(verified))

    assert holder is not None
    assert holder.principal.actor == "user:alice"
    with pytest.raises(UnknownSubject):
        await store.holder(EC.token({**verified, "email": "%"}))


async def test_many_first_requests_of_somebody_new_make_one_user(known: World) -> None:
    store = store_of(known, new_role="agent")
    tokens = [EC.token({"sub": "Carol", "jti": str(number)}) for number in range(5)]

    holders = await asyncio.gather(*map(store.holder, tokens))

    assert {holder.principal.actor for holder in holders if holder} == {"user:carol"}
    events = [event for event in known.heard if event.type == "reference.changed"]
    assert [event.actor for event in events] == ["system:taskhub"]


async def test_somebody_new_with_an_address_gets_a_name_that_is_free(known: World) -> None:
    store = store_of(known, claim="email", new_role="viewer")
    new = {"sub": "x", "email": "bob@example.org", "email_verified": True, "name": "Bob"}

    holder = await store.holder(EC.token(new))

    assert holder is not None
    assert holder.principal.actor == "user:bob_example_org"
    assert holder.principal.scopes == SCOPES_OF_ROLE["viewer"]
    again = await store.holder(EC.token(new))
    assert again is not None
    assert again.principal.actor == holder.principal.actor


@pytest.mark.parametrize("subject", ["me", "none", "!!!", "x" * 300, "ALICE", " alice", "ali ce"])
async def test_a_subject_that_can_be_no_user_or_looks_like_another_makes_none(known: World, subject: str) -> None:
    with pytest.raises(UnknownSubject):
        await store_of(known, new_role="agent").holder(EC.token({"sub": subject}))
    assert not known.heard
