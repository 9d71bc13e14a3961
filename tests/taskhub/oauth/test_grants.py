"""Codes, grants and refresh tokens, on SQLite and on PostgreSQL, with two instances where it is a race."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import insert, select

from taskhub.auth.errors import Forbidden
from taskhub.auth.principal import Caller
from taskhub.credentials.version import credentials_version
from taskhub.oauth import grants
from taskhub.oauth.errors import OAuthError, UnsafeRequest
from taskhub.oauth.model import ACCESS_TOKEN_S, CODE_S, IDLE, GrantNotFound
from taskhub.oauth.tokens import GrantedTokens
from taskhub.storage.database import Database
from taskhub.storage.schema import oauth_codes, oauth_grants, oauth_refresh_tokens, oauth_signing_keys, users
from taskhub.workspaces import WorkspaceStore
from tests.taskhub.oauth.flow import CAROL, Instance, redeeming, user
from tests.taskhub.world import World


@pytest.fixture
async def here(world: World) -> Instance:
    """An instance in a workspace with Carol, who is an agent, and Olga, who is an operator."""
    await world.add("users", "Carol", role="agent")
    await world.add("users", "Olga", role="operator")
    return Instance(world.database)


@pytest.fixture
async def there(here: Instance, url: str) -> AsyncIterator[Instance]:
    """Another instance on the same database."""
    database = Database(url, busy_timeout_s=60)
    await database.open()
    yield Instance(database)
    await database.close()


async def refused(answer: object) -> str:
    """The error that a client was told."""
    with pytest.raises(OAuthError) as error:
        await answer  # type: ignore[misc]  # a coroutine
    return error.value.code


async def test_a_code_becomes_a_grant_and_tokens(here: Instance) -> None:
    client = await here.registered(client_name="Reader")
    tokens = await here.tokens(client)
    claims = await here.server.tokens.verify(tokens["access_token"])

    assert tokens["token_type"] == "Bearer"
    assert tokens["expires_in"] == ACCESS_TOKEN_S == 600
    assert tokens["scope"] == "tickets:read tickets:write"
    assert (claims.subject, claims.client_id) == ("carol", client)
    assert claims.expires_at == here.now.timestamp() + 600
    assert claims.grant is not None
    assert claims.grant.startswith("grt_")
    holder = (await here.server.grants.holders([claims.grant]))[claims.grant]
    assert (holder.principal.actor, holder.principal.credential) == ("user:carol", claims.grant)
    assert holder.principal.scopes == {"tickets:read", "tickets:write"}


async def test_what_is_kept_does_not_let_anybody_in(here: Instance) -> None:
    client = await here.registered()
    code = await here.code(client)
    tokens = await here.redeem(client, code)
    tables = (oauth_codes, oauth_grants, oauth_refresh_tokens)
    kept = await here.database.read(
        lambda connection: str([[tuple(row) for row in connection.execute(select(table))] for table in tables])
    )

    assert code not in kept
    assert tokens["refresh_token"] not in kept
    assert tokens["access_token"] not in kept


OTHER_VERIFIER = "another-verifier-that-is-as-long-as-it-must-be"
NOT_ITS: list[dict[str, str]] = [
    {"code": "thc_unknown"}, {"code_verifier": OTHER_VERIFIER}, {"redirect_uri": "https://client.example.org/CB"},
]  # fmt: skip


async def test_a_code_is_good_for_its_request_alone(here: Instance) -> None:
    client = await here.registered()
    code = await here.code(client)
    for wrong in [{"client_id": await here.registered()}, *NOT_ITS]:
        assert await refused(here.redeem(client, code, **wrong)) == "invalid_grant", wrong
    assert await refused(here.redeem(client, code, client_id="cli_other")) == "invalid_client"

    # Who does not know all of it cannot use it up either.
    assert await here.redeem(client, code)


WRONG: list[tuple[dict[str, str | None], str]] = [
    ({"code_verifier": None}, "invalid_request"), ({"code_verifier": "a" * 42}, "invalid_request"),
    ({"code_verifier": "a" * 129}, "invalid_request"), ({"code_verifier": "\u00fc" * 43}, "invalid_request"),
    ({"code": None}, "invalid_request"), ({"client_id": None}, "invalid_request"),
    ({"grant_type": None}, "invalid_request"), ({"grant_type": "password"}, "unsupported_grant_type"),
    ({"grant_type": "client_credentials"}, "unsupported_grant_type"),
    ({"resource": "https://other.example/mcp"}, "invalid_target"), ({"client_secret": "none"}, "invalid_client"),
    ({"client_assertion": "ey.ey.x"}, "invalid_client"),
]  # fmt: skip


async def test_a_request_for_tokens_that_is_wrong_is_told_so(here: Instance) -> None:
    client = await here.registered()
    code = await here.code(client)
    for wrong, said in WRONG:
        assert await refused(here.redeem(client, code, **wrong)) == said, wrong
    twice = [*redeeming(client, code).items(), ("code", code)]
    assert await refused(here.server.token(twice)) == "invalid_request"


async def test_a_code_need_not_repeat_where_it_was_sent_to(here: Instance) -> None:
    client = await here.registered()

    assert await here.redeem(client, await here.code(client), redirect_uri=None, resource=None)


async def test_a_code_is_good_for_a_minute(here: Instance) -> None:
    client = await here.registered()
    code = await here.code(client)
    here.now += timedelta(seconds=CODE_S)

    assert await refused(here.redeem(client, code)) == "invalid_grant"


async def test_of_many_who_redeem_a_code_at_once_one_gets_tokens_and_they_are_revoked(
    here: Instance, there: Instance
) -> None:
    client = await here.registered()
    code = await here.code(client)
    version = await credentials_version(here.database)

    answers = await asyncio.gather(
        *((here, there)[number % 2].redeem(client, code) for number in range(100)), return_exceptions=True
    )

    won = [answer for answer in answers if isinstance(answer, dict)]
    assert len(won) == 1
    assert {type(answer).__name__ for answer in answers if answer is not won[0]} == {"Reused"}
    assert not await here.active(client, won[0]["access_token"])
    assert await refused(there.refresh(client, won[0]["refresh_token"])) == "invalid_grant"
    assert here.ended + there.ended == 99
    assert await credentials_version(here.database) != version


async def test_a_code_that_is_shown_again_later_ends_its_grant(here: Instance) -> None:
    client = await here.registered()
    code = await here.code(client)
    tokens = await here.redeem(client, code)
    here.now += timedelta(hours=1)
    assert await refused(here.redeem(client, code, code_verifier=OTHER_VERIFIER)) == "invalid_grant"
    # Nobody who lacks the verifier can have got anything for it, nor ends anything.
    tokens = await here.refresh(client, tokens["refresh_token"])

    assert await refused(here.redeem(client, code)) == "invalid_grant"

    assert await refused(here.refresh(client, tokens["refresh_token"])) == "invalid_grant"


async def test_a_refresh_token_is_replaced_with_each_use(here: Instance) -> None:
    client = await here.registered()
    first = await here.tokens(client)
    second = await here.refresh(client, first["refresh_token"])
    third = await here.refresh(client, second["refresh_token"])

    assert len({first["refresh_token"], second["refresh_token"], third["refresh_token"]}) == 3
    assert third["scope"] == first["scope"]
    assert await here.active(client, third["access_token"])
    assert await here.active(client, third["refresh_token"])


async def test_many_who_refresh_at_once_stay_signed_in(here: Instance, there: Instance) -> None:
    client = await here.registered()
    token = (await here.tokens(client))["refresh_token"]

    answers = await asyncio.gather(
        *((here, there)[number % 2].refresh(client, token) for number in range(50))
    )  # fmt: skip

    # All have the same successor: whichever of them is kept is good.
    (successor,) = {answer["refresh_token"] for answer in answers}
    assert len({answer["access_token"] for answer in answers}) == 50
    later = await there.refresh(client, successor)
    assert await here.active(client, later["access_token"])
    assert here.ended + there.ended == 0


async def test_who_did_not_get_the_answer_may_ask_again_until_the_successor_is_used(
    here: Instance, there: Instance
) -> None:
    client = await here.registered()
    first = (await here.tokens(client))["refresh_token"]
    lost = (await here.refresh(client, first))["refresh_token"]
    here.now = there.now = here.now + grants.REPEAT + timedelta(hours=1)

    found = (await there.refresh(client, first))["refresh_token"]

    assert found != lost
    assert await here.refresh(client, found)


async def test_the_successor_that_was_given_up_ends_the_grant(here: Instance) -> None:
    """Two have a copy of the first token, and each its successor: one of them is a thief."""
    client = await here.registered()
    first = (await here.tokens(client))["refresh_token"]
    one = (await here.refresh(client, first))["refresh_token"]
    here.now += grants.REPEAT
    other = (await here.refresh(client, first))["refresh_token"]

    assert await refused(here.refresh(client, one)) == "invalid_grant"
    assert await refused(here.refresh(client, other)) == "invalid_grant"


async def test_an_old_refresh_token_ends_the_grant(here: Instance, there: Instance) -> None:
    client = await here.registered()
    tokens = [await here.tokens(client)]
    for _ in range(2):
        tokens.append(await here.refresh(client, tokens[-1]["refresh_token"]))
    version = await credentials_version(here.database)

    assert await refused(there.refresh(client, tokens[0]["refresh_token"])) == "invalid_grant"

    assert await refused(here.refresh(client, tokens[-1]["refresh_token"])) == "invalid_grant"
    assert not await here.active(client, tokens[-1]["access_token"])
    assert there.ended == 1
    assert await credentials_version(here.database) != version


async def test_a_refresh_token_is_good_for_its_client_alone(here: Instance) -> None:
    client, other = await here.registered(), await here.registered()
    token = (await here.tokens(client))["refresh_token"]

    assert await refused(here.refresh(other, token)) == "invalid_grant"
    assert await refused(here.refresh(client, token[:-1] + ("A" if token[-1] != "A" else "B"))) == "invalid_grant"
    assert await refused(here.refresh(client, token, resource="https://other.example/mcp")) == "invalid_target"

    assert await here.refresh(client, token)


async def test_a_refresh_may_ask_for_less_but_not_for_more(here: Instance) -> None:
    client = await here.registered()
    token = (await here.tokens(client))["refresh_token"]
    assert await refused(here.refresh(client, token, scope="tickets:read admin")) == "invalid_scope"

    less = await here.refresh(client, token, scope="tickets:read offline_access")
    again = await here.refresh(client, less["refresh_token"])

    assert less["scope"] == "tickets:read"
    assert again["scope"] == "tickets:read tickets:write"


async def test_a_grant_that_nobody_uses_expires(here: Instance) -> None:
    client = await here.registered()
    used = (await here.tokens(client))["refresh_token"]
    unused = (await here.tokens(client))["refresh_token"]
    here.now += IDLE - timedelta(days=1)
    used = (await here.refresh(client, used))["refresh_token"]
    here.now += timedelta(days=1)

    assert await refused(here.refresh(client, unused)) == "invalid_grant"
    assert await here.refresh(client, used)


async def test_who_may_less_has_granted_less(here: Instance, world: World) -> None:
    client = await here.registered()
    tokens = await here.tokens(client)
    await world.change_reference("users", "carol", role="viewer")
    assert not set(tokens["scope"].split()) <= {"tickets:read"}

    tokens = await here.refresh(client, tokens["refresh_token"])
    claims = await here.server.tokens.verify(tokens["access_token"])

    assert tokens["scope"] == "tickets:read"
    assert (await here.server.grants.holders([claims.grant or ""]))[claims.grant or ""].principal.scopes == {
        "tickets:read"
    }


async def test_who_is_no_longer_in_use_has_granted_nothing(here: Instance, world: World) -> None:
    client = await here.registered()
    code = await here.code(client)
    tokens = await here.tokens(client)
    await world.change_reference("users", "carol", active=False)

    assert await refused(here.refresh(client, tokens["refresh_token"])) == "invalid_grant"
    assert await refused(here.redeem(client, code)) == "invalid_grant"
    assert not await here.active(client, tokens["access_token"])
    assert not await here.active(client, tokens["refresh_token"])
    with pytest.raises(UnsafeRequest):
        await here.code(client)


async def test_an_application_may_end_what_it_was_granted(here: Instance) -> None:
    client = await here.registered()
    for name in ("access_token", "refresh_token"):
        tokens = await here.tokens(client)
        await here.server.revoke([("client_id", client), ("token", tokens[name]), ("token_type_hint", "password")])
        assert not await here.active(client, tokens["access_token"])
        assert await refused(here.refresh(client, tokens["refresh_token"])) == "invalid_grant"
    assert here.ended == 2

    await here.server.revoke([("client_id", client), ("token", "unknown")])
    await here.server.revoke([("client_id", client), ("token", tokens["refresh_token"])])
    assert here.ended == 2


async def test_an_application_cannot_end_what_another_was_granted_nor_ask_about_it(here: Instance) -> None:
    client, other = await here.registered(), await here.registered()
    tokens = await here.tokens(client)
    for name in ("access_token", "refresh_token"):
        form = [("client_id", other), ("token", tokens[name])]
        assert await refused(here.server.revoke(form)) == "invalid_grant"
        assert await here.server.introspect(form) == {"active": False}

    assert await here.active(client, tokens["access_token"])


async def test_a_token_is_of_the_workspace_of_its_user(here: Instance) -> None:
    """Somebody of the same id elsewhere, who may do more, has nothing to do with it."""
    operator = Caller(user("olga", "operator"), "system")
    await WorkspaceStore(here.database).create(operator, "elsewhere", "EW", "Elsewhere")
    row = {"name": "Olga", "kind": "human", "active": True, "created_at": "", "updated_at": ""}
    added = insert(users).values(workspace_id="elsewhere", id="olga", role="viewer", **row)
    await here.database.write(lambda connection: connection.execute(added))
    client = await here.registered()
    stranger = replace(user("olga", "viewer"), workspace="elsewhere")
    tokens = await here.tokens(client, stranger)

    store = GrantedTokens(here.server.tokens, here.server.grants, clock=lambda: here.now)
    holder = await store.holder(tokens["access_token"])

    assert holder is not None
    assert (holder.principal.workspace, holder.principal.actor) == ("elsewhere", "user:olga")
    assert holder.principal.scopes == {"tickets:read"}
    assert holder.principal.grantable == {"events:read"}
    assert await here.server.grants.list(operator, everybody=True) == []


async def test_users_see_and_end_what_they_have_granted(here: Instance) -> None:
    client = await here.registered(client_name="Reader")
    await here.tokens(client)
    await here.tokens(client, user("olga", "operator"))
    carol, olga = (Caller(who, "dashboard") for who in (CAROL, user("olga", "operator")))
    store = here.server.grants
    (own,) = await store.list(carol)
    assert (own.user, own.name, own.host, own.client_id) == ("carol", "Reader", "client.example.org", client)
    with pytest.raises(Forbidden):
        await store.list(carol, everybody=True)
    with pytest.raises(Forbidden):
        await store.list(carol, user="olga")
    assert len(await store.list(olga, everybody=True)) == 2
    (others,) = await store.list(olga)
    with pytest.raises(Forbidden):
        await store.revoke(carol, others.id)
    with pytest.raises(GrantNotFound):
        await store.revoke(carol, "grt_unknown")

    await store.revoke(carol, own.id)
    await store.revoke(olga, others.id)

    assert await store.list(olga, everybody=True) == []
    with pytest.raises(GrantNotFound):
        await store.revoke(carol, own.id)


async def test_what_is_over_is_forgotten_in_time(here: Instance) -> None:
    client = await here.registered()
    await here.code(client)
    await here.tokens(client)
    token = (await here.tokens(client))["refresh_token"]
    for _ in range(3):
        here.now += IDLE - timedelta(days=1)
        token = (await here.refresh(client, token))["refresh_token"]
    await here.server.grants.forget()

    def counted() -> object:
        tables = (oauth_codes, oauth_grants, oauth_refresh_tokens)
        return here.database.read(lambda connection: [len(connection.execute(select(table)).all()) for table in tables])

    assert await counted() == [0, 1, 3]  # type: ignore[misc]  # a coroutine
    assert await here.refresh(client, token)


async def test_the_private_key_is_shown_by_nothing(here: Instance) -> None:
    await here.server.keys.published()
    pem = await here.database.read(
        lambda connection: connection.execute(select(oauth_signing_keys.c.private_key)).scalar_one()
    )

    assert "PRIVATE KEY" in pem
    shown = f"{here.server.keys._keys} {vars(here.server.keys)} {await here.server.keys.published()}"
    assert "PRIVATE" not in shown
    assert '"d"' not in shown
    assert "'d'" not in shown
