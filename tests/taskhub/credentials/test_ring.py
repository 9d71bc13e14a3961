"""What credentials open, and what ends with them."""

import asyncio
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from taskhub.auth.principal import ALL_SCOPES, Principal
from taskhub.credentials.holder import Holder
from taskhub.credentials.ring import CredentialRing, Ending
from taskhub.credentials.version import CredentialsVersion, credentials_version
from taskhub.keys.model import IssuedKey, NewKey, Rotation
from taskhub.keys.store import KeyStore
from taskhub.storage.times import to_text
from taskhub.tickets.errors import StorageBusy
from taskhub.tickets.reference_inputs import UserChange
from tests.taskhub.world import ALICE, NOON, World

TRUST_S = 3.0


class CountingStore(KeyStore):
    """A store that counts what it is asked, and can be away."""

    reads = 0
    away = False

    async def holder(self, secret: str) -> Holder | None:
        self._ask()
        return await super().holder(secret)

    def _ask(self) -> None:
        self.reads += 1
        if self.away:
            raise StorageBusy


@dataclass
class Passes:
    """Credentials of another kind, in memory: the secret `pass_x` has the id `pid_x`."""

    held: dict[str, Holder] = field(default_factory=dict)
    noted: list[str] = field(default_factory=list)
    secret_prefix: str = "pass_"
    id_prefix: str = "pid_"

    async def holder(self, secret: str) -> Holder | None:
        return self.held.get(self.id_prefix + secret.removeprefix(self.secret_prefix))

    async def holders(self, ids: Collection[str]) -> Mapping[str, Holder]:
        return {each: self.held[each] for each in ids if each in self.held}

    async def used(self, ids: Collection[str]) -> None:
        self.noted += sorted(ids)

    def give(self, name: str, until: datetime) -> None:
        principal = Principal("user:pia", "default", ALL_SCOPES, authenticated=True, credential=f"pid_{name}")
        self.held[f"pid_{name}"] = Holder(principal, to_text(until))


@dataclass
class Streams:
    """Streams by key, as far as the ring sees them."""

    keys: set[str] = field(default_factory=set)
    warned: list[str] = field(default_factory=list)
    ended: list[tuple[str, Ending]] = field(default_factory=list)

    def credentials(self) -> Collection[str]:
        return self.keys

    def warn_opened_by(self, credentials: Collection[str]) -> None:
        self.warned += sorted(credentials)

    def end_opened_by(self, credentials: Collection[str], why: Ending) -> None:
        self.ended += [(key, why) for key in sorted(credentials)]
        self.keys -= set(credentials)


@dataclass
class Ringed:
    """A ring with what it stands on; `now` is its monotonic clock."""

    world: World
    store: CountingStore
    streams: Streams
    now: float = 100.0
    changed: list[str] = field(default_factory=list)
    passes: Passes = field(default_factory=Passes)
    ring: CredentialRing = field(init=False)

    def __post_init__(self) -> None:
        self.ring = CredentialRing(
            self.version,
            (self.store, self.passes),
            (self.streams,),
            trust_s=TRUST_S,
            clock=lambda: self.world.now,
            monotonic=lambda: self.now,
            on_scopes_changed=self.changed.extend,
        )

    async def version(self) -> CredentialsVersion:
        if self.store.away:
            raise StorageBusy
        return await credentials_version(self.world.database)

    async def key(self, *, hours: float | None = None) -> IssuedKey:
        expires_at = None if hours is None else NOON + timedelta(hours=hours)
        return await self.store.create(ALICE, NewKey(user="carol", name="laptop", expires_at=expires_at))

    async def lets_in(self, issued: IssuedKey) -> bool:
        return await self.ring.holder(issued.secret) is not None


@pytest.fixture
async def ringed(world: World) -> Ringed:
    await world.add("users", "Carol", role="agent")
    return Ringed(world, CountingStore(world.database, clock=lambda: world.now), Streams())


async def test_a_key_in_use_is_read_once(ringed: Ringed) -> None:
    issued = await ringed.key()

    for _ in range(50):
        assert await ringed.lets_in(issued)

    assert ringed.store.reads == 1


async def test_a_revoked_key_opens_nothing_after_the_next_look(ringed: Ringed) -> None:
    issued, other = await ringed.key(), await ringed.key()
    ringed.streams.keys = {issued.key.id, other.key.id}
    assert await ringed.lets_in(issued)
    await ringed.store.revoke(ALICE, issued.key.id)

    await ringed.ring.look()

    assert not await ringed.lets_in(issued)
    assert await ringed.lets_in(other)
    assert ringed.streams.ended == [(issued.key.id, "revoked")]


async def test_what_a_user_opened_ends_when_it_is_no_longer_active(ringed: Ringed) -> None:
    issued = await ringed.key()
    ringed.streams.keys = {issued.key.id}
    assert await ringed.lets_in(issued)
    await ringed.world.tickets.change_reference(ALICE, "users", "carol", UserChange(active=False))

    await ringed.ring.look()

    assert not await ringed.lets_in(issued)
    assert ringed.streams.ended == [(issued.key.id, "revoked")]


async def test_a_changed_role_counts_from_the_next_look(ringed: Ringed) -> None:
    issued = await ringed.key()
    assert await ringed.lets_in(issued)
    await ringed.world.tickets.change_reference(ALICE, "users", "carol", UserChange(role="viewer"))

    await ringed.ring.look()

    principal = await ringed.ring.holder(issued.secret)
    assert principal is not None
    assert principal.scopes == {"tickets:read", "events:read"}


async def test_that_a_key_in_use_may_something_else_is_told_once(ringed: Ringed) -> None:
    issued, idle = await ringed.key(), await ringed.key()
    assert await ringed.lets_in(issued)
    assert await ringed.lets_in(idle)
    ringed.streams.keys = {issued.key.id}
    await ringed.ring.look()
    await ringed.world.tickets.change_reference(ALICE, "users", "carol", UserChange(email="c@example.org"))
    await ringed.ring.look()
    assert ringed.changed == []

    await ringed.world.tickets.change_reference(ALICE, "users", "carol", UserChange(role="viewer"))
    for _ in range(3):
        assert await ringed.lets_in(issued)
        await ringed.ring.look()

    assert ringed.changed == [issued.key.id]


async def test_a_change_between_opening_and_the_first_look_is_told(ringed: Ringed) -> None:
    issued = await ringed.key()
    assert await ringed.lets_in(issued)
    ringed.streams.keys = {issued.key.id}
    await ringed.world.tickets.change_reference(ALICE, "users", "carol", UserChange(role="viewer"))

    await ringed.ring.look()

    assert ringed.changed == [issued.key.id]


async def test_an_expiring_key_warns_what_it_opened_and_then_ends_it(ringed: Ringed) -> None:
    issued = await ringed.key(hours=1)
    ringed.streams.keys = {issued.key.id}
    assert await ringed.lets_in(issued)
    ringed.world.tick(minutes=58)
    await ringed.ring.look()
    assert (ringed.streams.warned, ringed.streams.ended) == ([], [])

    ringed.world.tick(minutes=1)
    await ringed.ring.look()
    assert (ringed.streams.warned, ringed.streams.ended) == ([issued.key.id], [])

    ringed.world.tick(minutes=1)
    assert not await ringed.lets_in(issued)  # from that moment on, and not from the next look
    await ringed.ring.look()
    assert ringed.streams.ended == [(issued.key.id, "auth_expired")]


async def test_a_rotated_key_ends_what_it_opened_after_the_overlap(ringed: Ringed) -> None:
    old = await ringed.key()
    ringed.streams.keys = {old.key.id}
    await ringed.ring.look()
    new = await ringed.store.rotate(ALICE, old.key.id, Rotation(overlap_s=600))
    await ringed.ring.look()
    assert await ringed.lets_in(old)
    assert ringed.streams.ended == []

    ringed.world.tick(minutes=10)
    await ringed.ring.look()

    assert not await ringed.lets_in(old)
    assert await ringed.lets_in(new)
    assert ringed.streams.ended == [(old.key.id, "auth_expired")]


async def test_nobody_gets_in_while_it_cannot_be_told_who_may(ringed: Ringed) -> None:
    issued = await ringed.key()
    ringed.streams.keys = {issued.key.id}
    assert await ringed.lets_in(issued)
    ringed.store.away = True
    assert await ringed.lets_in(issued)  # a moment without the database is no reason to throw everybody out

    ringed.now += TRUST_S

    with pytest.raises(StorageBusy):
        await ringed.lets_in(issued)
    assert ringed.streams.ended == []

    ringed.store.away = False
    assert await ringed.lets_in(issued)


async def test_a_key_that_is_not_known_yet_is_never_let_in_unread(ringed: Ringed) -> None:
    issued = await ringed.key()
    await ringed.ring.look()
    ringed.store.away = True

    with pytest.raises(StorageBusy):
        await ringed.lets_in(issued)


async def test_what_was_read_before_a_revocation_is_not_kept(ringed: Ringed) -> None:
    issued = await ringed.key()
    await ringed.ring.look()
    reached, go_on = asyncio.Event(), asyncio.Event()
    read = KeyStore.holder

    async def slow(secret: str) -> Holder | None:
        found = await read(ringed.store, secret)
        reached.set()
        await go_on.wait()
        return found

    ringed.store.holder = slow  # type: ignore[method-assign]  # the moment between reading and keeping
    entering = asyncio.create_task(ringed.lets_in(issued))
    await reached.wait()
    await ringed.store.revoke(ALICE, issued.key.id)
    await ringed.ring.look()
    go_on.set()
    await entering

    assert not await ringed.lets_in(issued)


async def test_the_use_of_keys_is_noted_now_and_then(ringed: Ringed) -> None:
    issued = await ringed.key()
    assert await ringed.lets_in(issued)
    await ringed.ring.look()
    first = (await ringed.store.get(ALICE, issued.key.id)).last_used_at
    assert first is not None
    ringed.world.tick(seconds=30)
    assert await ringed.lets_in(issued)
    await ringed.ring.look()
    assert (await ringed.store.get(ALICE, issued.key.id)).last_used_at == first

    ringed.now += 60
    await ringed.ring.look()

    assert (await ringed.store.get(ALICE, issued.key.id)).last_used_at != first


async def test_credentials_of_each_kind_are_judged_by_their_own_store(ringed: Ringed) -> None:
    issued = await ringed.key()
    ringed.passes.give("a", NOON + timedelta(hours=1))
    ringed.streams.keys = {issued.key.id, "pid_a", "pid_b", "other_c"}

    entered = await ringed.ring.holder("pass_a")
    await ringed.ring.look()

    assert entered is not None
    assert entered.actor == "user:pia"
    assert await ringed.lets_in(issued)
    assert await ringed.ring.holder("pass_b") is None
    assert await ringed.ring.holder("other_c") is None
    assert ringed.streams.ended == [("other_c", "revoked"), ("pid_b", "revoked")]
    assert ringed.passes.noted == ["pid_a"]


async def test_a_credential_whose_use_puts_off_its_end_stays_good(ringed: Ringed) -> None:
    ringed.passes.give("a", NOON + timedelta(minutes=10))
    ringed.streams.keys = {"pid_a"}
    assert await ringed.ring.holder("pass_a")
    await ringed.ring.look()
    ringed.passes.give("a", NOON + timedelta(minutes=20))
    ringed.world.tick(minutes=11)

    await ringed.ring.look()

    assert await ringed.ring.holder("pass_a")
    assert (ringed.streams.warned, ringed.streams.ended) == ([], [])
    ringed.world.tick(minutes=10)
    await ringed.ring.look()
    assert ringed.streams.ended == [("pid_a", "auth_expired")]


async def test_whoever_is_told_that_a_credential_is_over_is_not_let_in_by_it(ringed: Ringed) -> None:
    """Also where it was revoked between the reading of the version and that of the credentials in use."""
    ringed.passes.give("one", NOON + timedelta(hours=1))
    assert await ringed.ring.holder("pass_one") is not None
    ringed.streams.keys.add("pid_one")
    del ringed.passes.held["pid_one"]

    await ringed.ring.look()

    assert ringed.streams.ended == [("pid_one", "revoked")]
    assert await ringed.ring.holder("pass_one") is None
