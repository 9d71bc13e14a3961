"""API keys in the database, on SQLite and on PostgreSQL."""

import re
from collections.abc import Sequence
from datetime import UTC, timedelta

import pytest
from sqlalchemy import select

from taskhub.auth.errors import Forbidden
from taskhub.auth.principal import ALL_SCOPES, OwnLimits, Scope
from taskhub.auth.roles import SCOPES_OF_ROLE
from taskhub.auth.secret import API_KEY_PREFIX, digest, new_secret, well_formed
from taskhub.credentials.version import credentials_version
from taskhub.keys.model import ApiKey, IssuedKey, KeyChange, KeyLimits, KeyNotFound, KeyOver, NewKey, Rotation
from taskhub.keys.store import KeyStore
from taskhub.storage.schema import api_keys
from taskhub.storage.times import to_text
from taskhub.tickets.errors import InUse, InvalidInput
from taskhub.tickets.reference_inputs import NewUser, UserChange
from tests.taskhub.world import ALICE, NOON, World, caller


@pytest.fixture
async def keys(world: World) -> KeyStore:
    """A store whose clock is the world's, in a workspace with Carol, who is an agent, and Olga, who is an operator."""
    await world.add("users", "Carol", role="agent")
    await world.add("users", "Olga", role="operator")
    return KeyStore(world.database, clock=lambda: world.now)


async def make(
    keys: KeyStore, user: str = "carol", scopes: Sequence[Scope] | None = None, *, hours: float | None = None
) -> IssuedKey:
    expires_at = None if hours is None else NOON + timedelta(hours=hours)
    new = NewKey(user=user, name="laptop", scopes=None if scopes is None else list(scopes), expires_at=expires_at)
    return await keys.create(ALICE, new)


async def test_a_key_is_its_users_and_may_what_the_role_may(keys: KeyStore) -> None:
    issued = await make(keys, "Carol")
    holder = await keys.holder(issued.secret)

    assert holder is not None
    assert (holder.principal.actor, holder.principal.workspace) == ("user:carol", "default")
    assert holder.principal.scopes == SCOPES_OF_ROLE["agent"]
    assert holder.principal.credential == issued.key.id
    assert holder.principal.authenticated


@pytest.mark.parametrize(("kind", "actor"), [("agent", "agent:triage_bot"), ("service", "service:triage_bot")])
async def test_who_acts_with_it_is_of_the_kind_of_its_user(keys: KeyStore, world: World, kind: str, actor: str) -> None:
    await world.tickets.create_reference(ALICE, "users", NewUser.model_validate({"name": "triage-bot", "kind": kind}))
    holder = await keys.holder((await make(keys, "triage-bot")).secret)

    assert holder is not None
    assert holder.principal.actor == actor


async def test_a_key_may_less_than_the_role(keys: KeyStore) -> None:
    holder = await keys.holder((await make(keys, scopes=["events:read", "events:read"])).secret)

    assert holder is not None
    assert holder.principal.scopes == {"events:read"}


async def test_a_key_never_may_more_than_the_role(keys: KeyStore, world: World) -> None:
    with pytest.raises(InvalidInput, match="admin: Carol may not do that, being agent; allowed are events:publish"):
        await make(keys, scopes=["tickets:read", "admin"])
    secret = (await make(keys, "olga", ["tickets:read", "admin"])).secret

    await world.change_reference("users", "olga", role="viewer")

    holder = await keys.holder(secret)
    assert holder is not None
    assert holder.principal.scopes == {"tickets:read"}


async def test_the_key_itself_is_stored_nowhere(keys: KeyStore) -> None:
    secret = (await make(keys)).secret
    row = await keys._database.read(lambda connection: connection.execute(select(api_keys)).one())

    assert row.digest == digest(secret)
    assert not any(secret in str(value) or secret[4:20] in str(value) for value in row)
    assert secret not in repr(await keys.list(ALICE))


async def test_a_revoked_key_is_nobodys(keys: KeyStore, world: World) -> None:
    issued = await make(keys)
    before = await credentials_version(world.database)

    revoked = await keys.revoke(ALICE, issued.key.id)

    assert revoked.revoked_at == to_text(NOON)
    assert await keys.holder(issued.secret) is None
    assert await credentials_version(world.database) != before
    world.tick(hours=1)
    assert await keys.revoke(ALICE, issued.key.id) == revoked  # once more changes nothing


async def test_an_expired_key_is_nobodys(keys: KeyStore, world: World) -> None:
    secret = (await make(keys, hours=1)).secret
    assert await keys.holder(secret) is not None

    world.tick(hours=1)

    assert await keys.holder(secret) is None


async def test_a_key_cannot_have_ended_before_it_begins(keys: KeyStore) -> None:
    with pytest.raises(InvalidInput, match="expires_at: must be in the future"):
        await make(keys, hours=0)


async def test_the_key_of_a_user_who_is_no_longer_active_is_nobodys(keys: KeyStore, world: World) -> None:
    secret = (await make(keys)).secret
    before = await credentials_version(world.database)

    await world.tickets.change_reference(ALICE, "users", "carol", UserChange(active=False))

    assert await keys.holder(secret) is None
    assert await credentials_version(world.database) != before


async def test_a_user_with_keys_cannot_be_removed(keys: KeyStore, world: World) -> None:
    issued = await make(keys)
    with pytest.raises(InUse, match="1 API key"):
        await world.tickets.remove_reference(ALICE, "users", "carol")
    await keys.revoke(ALICE, issued.key.id)

    await world.tickets.remove_reference(ALICE, "users", "carol")

    assert [key.user for key in await keys.list(ALICE)] == ["carol"]  # whose it was can still be told


async def test_a_rotated_key_is_replaced_by_one_that_is_like_it(keys: KeyStore, world: World) -> None:
    old = await make(keys, scopes=["events:read"], hours=100)

    new = await keys.rotate(ALICE, old.key.id, Rotation(overlap_s=3600))

    assert new.secret != old.secret
    assert (new.key.user, new.key.name, new.key.scopes, new.key.expires_at) == (
        "carol", "laptop", ["events:read"], old.key.expires_at,
    )  # fmt: skip
    assert await keys.holder(old.secret) is not None
    world.tick(hours=1)
    assert await keys.holder(old.secret) is None
    assert await keys.holder(new.secret) is not None


async def test_a_rotation_never_makes_a_key_last_longer(keys: KeyStore) -> None:
    old = await make(keys, hours=1)
    await keys.rotate(ALICE, old.key.id, Rotation(overlap_s=86_400))

    assert (await keys.get(ALICE, old.key.id)).expires_at == old.key.expires_at


async def test_what_is_over_is_not_rotated(keys: KeyStore, world: World) -> None:
    revoked, expired = await make(keys), await make(keys, hours=1)
    await keys.revoke(ALICE, revoked.key.id)
    world.tick(hours=2)

    for issued in (revoked, expired):
        with pytest.raises(KeyOver, match=issued.key.id):
            await keys.rotate(ALICE, issued.key.id, Rotation())


async def test_keys_are_managed_by_who_may(keys: KeyStore) -> None:
    issued = await make(keys)
    other = caller("user:mallory", scopes=ALL_SCOPES - {"admin"})

    for attempt in (
        keys.create(other, NewKey(user="carol", name="mine")),
        keys.list(other),
        keys.get(other, issued.key.id),
        keys.revoke(other, issued.key.id),
        keys.rotate(other, issued.key.id, Rotation()),
    ):
        with pytest.raises(Forbidden, match="admin"):
            await attempt
    assert await keys.holder(issued.secret) is not None


async def test_unknown_keys_and_users_are_told(keys: KeyStore) -> None:
    for attempt in (keys.get(ALICE, "key_1"), keys.revoke(ALICE, "key_1"), keys.rotate(ALICE, "key_1", Rotation())):
        with pytest.raises(KeyNotFound, match="key_1"):
            await attempt
    with pytest.raises(InvalidInput, match=r"user: there is no 'caroll'; did you mean Carol\?"):
        await make(keys, "caroll")


async def test_the_use_of_a_key_is_noted(keys: KeyStore, world: World) -> None:
    issued = await make(keys)
    version = await credentials_version(world.database)
    world.tick(minutes=5)

    await keys.used([issued.key.id, "key_unknown"])

    assert (await keys.get(ALICE, issued.key.id)).last_used_at == to_text(world.now)
    assert await credentials_version(world.database) == version  # nothing that anybody would have to look at again


async def test_keys_are_listed_in_the_order_in_which_they_were_made(keys: KeyStore, world: World) -> None:
    made: list[ApiKey] = []
    for user in ("olga", "carol", "olga"):
        made.append((await make(keys, user)).key)
        world.tick()

    assert await keys.list(ALICE) == made
    assert await keys.list(ALICE, user="olga") == [made[0], made[2]]


async def test_whether_anybody_could_get_in_is_known(keys: KeyStore, world: World) -> None:
    assert not await keys.any()
    await make(keys, hours=1)
    assert await keys.any()
    world.tick(hours=1)
    assert not await keys.any()


# Roles


async def test_who_manages_users_makes_nobody_more_than_itself(keys: KeyStore, world: World) -> None:
    manager = caller("user:mia", scopes=SCOPES_OF_ROLE["manager"])
    await world.add("users", "Mia", role="manager")
    await world.tickets.create_reference(manager, "users", NewUser(name="Newcomer", role="agent"))

    for attempt in (
        world.tickets.change_reference(manager, "users", "mia", UserChange(role="operator")),
        world.tickets.create_reference(manager, "users", NewUser(name="Mia 2", role="operator")),
        world.tickets.change_reference(manager, "users", "olga", UserChange(active=False)),
        world.tickets.remove_reference(manager, "users", "olga"),
    ):
        with pytest.raises(Forbidden, match="admin"):
            await attempt


# The form of a key


def test_a_key_is_recognised_by_its_form() -> None:
    secret = new_secret(API_KEY_PREFIX)

    assert re.fullmatch(r"thk_[A-Za-z0-9_-]{48}", secret)
    assert well_formed(secret)
    assert len({new_secret(API_KEY_PREFIX) for _ in range(100)}) == 100


@pytest.mark.parametrize("wrong", ["", "thk_", "thk_" + "a" * 48, "thk_" + "é" * 48, "x" * 10_000])
def test_what_is_no_key_is_told_without_asking_the_database(wrong: str) -> None:
    assert not well_formed(wrong)


def test_a_mistyped_key_is_no_key() -> None:
    secret = new_secret(API_KEY_PREFIX)
    for place in range(4, len(secret)):
        other = "A" if secret[place] != "A" else "B"
        assert not well_formed(secret[:place] + other + secret[place + 1 :])


def test_times_have_a_zone() -> None:
    with pytest.raises(ValueError, match="needs a time zone"):
        NewKey.model_validate({"user": "carol", "name": "x", "expires_at": "2027-01-01T00:00:00"})
    new = NewKey.model_validate({"user": "carol", "name": "x", "expires_at": "2027-01-01T09:00:00+09:00"})
    assert new.expires_at is not None
    assert new.expires_at.astimezone(UTC).hour == 0


async def test_a_key_has_limits_of_its_own_until_it_is_given_others(keys: KeyStore, world: World) -> None:
    issued = await keys.create(ALICE, NewKey(user="carol", name="import", limits=KeyLimits(writes_per_s=100)))
    before = await credentials_version(world.database)
    changed = await keys.change(ALICE, issued.key.id, change(streams=0))
    holder = await keys.holder(issued.secret)
    rotated = await keys.rotate(ALICE, issued.key.id, Rotation())

    assert issued.key.limits == OwnLimits(writes_per_s=100)
    assert changed.limits == OwnLimits(streams=0, writes_per_s=100)
    assert holder is not None
    assert holder.principal.limits == changed.limits
    assert await credentials_version(world.database) != before
    assert rotated.key.limits == changed.limits
    assert (await keys.get(ALICE, rotated.key.id)).limits == changed.limits
    assert (await keys.change(ALICE, rotated.key.id, change(streams=None, writes_per_s=None))).limits is None
    assert (await keys.change(ALICE, issued.key.id, KeyChange(limits=None))).limits is None
    assert (await make(keys)).key.limits is None


async def test_a_key_that_is_over_is_given_no_limits(keys: KeyStore) -> None:
    issued = await make(keys)
    await keys.revoke(ALICE, issued.key.id)

    with pytest.raises(KeyOver):
        await keys.change(ALICE, issued.key.id, change(streams=1))
    with pytest.raises(KeyNotFound):
        await keys.change(ALICE, "key_of_nobody", change(streams=1))
    with pytest.raises(Forbidden):
        await keys.change(caller("user:carol", scopes=SCOPES_OF_ROLE["agent"]), issued.key.id, change(streams=1))


def change(**limits: int | float | None) -> KeyChange:
    return KeyChange.model_validate({"limits": limits})
