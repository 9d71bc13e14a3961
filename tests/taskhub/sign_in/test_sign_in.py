"""Sessions, passwords and links in the database, on SQLite and on PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

import pytest
from sqlalchemy import select, update

from taskhub.auth.principal import Principal
from taskhub.credentials.version import credentials_version
from taskhub.sign_in.errors import SignInRefused, TooManyAttempts
from taskhub.sign_in.model import NewPassword, Opened, Visitor
from taskhub.sign_in.passwords import COST, Cost, PasswordHash, Passwords
from taskhub.sign_in.service import LINK_S, PER_USER, SignIn
from taskhub.sign_in.sessions import SessionStore
from taskhub.storage.backup import tables_of
from taskhub.storage.schema import METADATA, passwords, sessions, users
from taskhub.tickets.errors import InvalidInput
from tests.taskhub.world import ALICE, World, execute, rows

PASSWORD = "correct horse battery"
IDLE = timedelta(hours=1)
MAX = timedelta(hours=3)
CHEAP = Cost(n=16)
VISITOR = Visitor("192.0.2.1", "Browser")


@dataclass
class Office:
    """A way to sign in, where Olga has a password."""

    world: World
    sessions: SessionStore
    sign_in: SignIn

    async def enter(self, password: str = PASSWORD, visitor: Visitor = VISITOR) -> Opened:
        return await self.sign_in.by_password("default", "Olga", password, visitor)

    async def enter_by(self, link: str) -> Opened:
        return await self.sign_in.by_link(link, VISITOR)

    async def holder(self, opened: Opened) -> Principal | None:
        found = await self.sessions.holder(opened.secret)
        return None if found is None else found.principal


@pytest.fixture
async def office(world: World) -> AsyncIterator[Office]:
    await world.add("users", "Olga", role="operator")
    sessions = SessionStore(
        world.database, idle_s=IDLE.total_seconds(), max_s=MAX.total_seconds(), clock=lambda: world.now
    )
    sign_in = SignIn(world.database, sessions, clock=lambda: world.now)
    sign_in.passwords = Passwords(CHEAP)
    await sign_in.set_password(ALICE, "olga", NewPassword.model_validate({"password": PASSWORD}))
    yield Office(world, sessions, sign_in)
    sign_in.close()


async def test_who_guesses_keeps_nobody_out_but_itself(office: Office) -> None:
    guessing, owner = Visitor(address="192.0.2.1"), Visitor(address="192.0.2.2")
    for _ in range(PER_USER):
        with pytest.raises(SignInRefused):
            await office.enter("a guess, one of many", guessing)

    with pytest.raises(TooManyAttempts):
        await office.enter(PASSWORD, guessing)
    for _ in range(2 * PER_USER):
        assert (await office.enter(PASSWORD, owner)).signed_in.user == "olga"


async def test_a_session_ends_when_nobody_uses_it(office: Office) -> None:
    used, idle = await office.enter(), await office.enter()
    office.world.tick(minutes=40)
    await office.sessions.used([used.signed_in.session.id])
    office.world.tick(minutes=40)

    principal = await office.holder(used)
    assert principal is not None
    assert await office.holder(idle) is None
    listed = await office.sessions.list(principal)
    assert [session.id for session in listed] == [used.signed_in.session.id]


async def test_a_session_in_use_ends_all_the_same(office: Office) -> None:
    opened = await office.enter()
    for _ in range(5):
        office.world.tick(minutes=30)
        assert await office.holder(opened) is not None
        await office.sessions.used([opened.signed_in.session.id])
    office.world.tick(minutes=30)

    assert await office.holder(opened) is None


async def test_neither_secrets_nor_passwords_are_stored(office: Office) -> None:
    opened = await office.enter()
    link = await office.sign_in.new_link(ALICE, "olga")
    stored = [await rows(office.world.database, select(table)) for table in METADATA.sorted_tables]

    for secret in (opened.secret, link.secret, PASSWORD):
        assert secret not in repr(stored)


async def test_of_two_who_use_a_link_at_once_one_gets_in(office: Office) -> None:
    link = await office.sign_in.new_link(ALICE, "olga")

    tried = await asyncio.gather(*(office.enter_by(link.secret) for _ in range(8)), return_exceptions=True)

    assert sorted(type(each).__name__ for each in tried) == ["Opened", *["SignInRefused"] * 7]
    assert len(await rows(office.world.database, select(sessions))) == 1


async def test_a_link_ends(office: Office) -> None:
    link = await office.sign_in.new_link(ALICE, "olga")
    office.world.tick(seconds=LINK_S)

    with pytest.raises(SignInRefused):
        await office.enter_by(link.secret)


async def test_only_people_sign_in(office: Office) -> None:
    await office.world.add("users", "Bot")
    await execute(office.world.database, update(users).where(users.c.id == "bot").values(kind="agent"))

    with pytest.raises(InvalidInput, match="agents and services have API keys"):
        await office.sign_in.new_link(ALICE, "bot")
    with pytest.raises(InvalidInput, match="there is no 'olag'"):
        await office.sign_in.new_link(ALICE, "olag")


async def test_a_hash_that_costs_less_than_new_ones_is_made_anew(office: Office) -> None:
    office.sign_in.passwords = Passwords(Cost(n=32))
    await office.enter()
    (row,) = await rows(office.world.database, select(passwords))

    assert row.hash.startswith("scrypt$32$8$5$")
    await office.enter()


async def test_a_password_that_changes_while_somebody_signs_in_with_the_old_one_lets_nobody_in(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = office.sign_in.passwords.fit

    async def slow(password: str, stored: str | None) -> bool:
        found = await fit(password, stored)
        new = NewPassword.model_validate({"password": "staple correct horse"})
        await office.sign_in.set_password(ALICE, "olga", new)
        return found

    monkeypatch.setattr(office.sign_in.passwords, "fit", slow)

    with pytest.raises(SignInRefused):
        await office.enter()
    assert await rows(office.world.database, select(sessions)) == []


async def test_what_ends_a_session_is_seen_by_every_instance(office: Office) -> None:
    await office.enter()
    before = await credentials_version(office.world.database)

    assert await office.sign_in.sign_out(ALICE, "Olga") == 1

    assert await credentials_version(office.world.database) != before


async def test_sessions_that_ended_long_ago_are_forgotten(office: Office) -> None:
    await office.enter()
    office.world.tick(hours=3, seconds=1)
    opened = await office.enter()

    assert [row.id for row in await rows(office.world.database, select(sessions))] == [opened.signed_in.session.id]


async def test_a_backup_brings_nobody_back_in(office: Office) -> None:
    kept = await office.world.database.read(tables_of)

    assert "passwords" in kept.tables
    assert not {"sessions", "sign_in_links"} & kept.tables.keys()


def test_a_hash_is_read_with_the_cost_it_was_made_with() -> None:
    stored = str(PasswordHash.of(PASSWORD, CHEAP))

    assert PasswordHash.parse(stored).fits(PASSWORD)
    assert not PasswordHash.parse(stored).fits(PASSWORD + "!")
    assert stored != str(PasswordHash.of(PASSWORD, CHEAP))
    assert not PasswordHash.nobodys(CHEAP).fits(PASSWORD)


def test_new_hashes_cost_what_is_recommended() -> None:
    # OWASP, Password Storage Cheat Sheet: N=2^17 r=8 p=1, or as much work with less memory.
    assert (COST.n, COST.r, COST.p) == (2**14, 8, 5)
