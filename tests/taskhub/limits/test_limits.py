"""How much one caller may have."""

import asyncio
from dataclasses import replace
from functools import partial

import pytest

from taskhub.auth.principal import ALL_SCOPES, OwnLimits, Principal
from taskhub.limits.failures import Failures
from taskhub.limits.held import Held
from taskhub.limits.insisting import KNOWN_S, MAX_KNOWN, REFUSALS_AT_ONCE, Insisting
from taskhub.limits.limits import Limits, TooManyStreams
from taskhub.rates import Rate, household
from taskhub.settings.model import Settings
from taskhub.tickets.errors import RateLimited

ALICE = Principal("user:alice", "default", ALL_SCOPES, authenticated=True, credential="key_1")
BOB = replace(ALICE, actor="user:bob", credential="key_2")
LOCAL = Principal("user:local", "default", ALL_SCOPES, authenticated=False)


class Clock:
    """Seconds that pass when the test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_burst_is_taken_at_once_and_the_rest_at_the_rate(clock: Clock) -> None:
    rate = Rate(10, 5, clock=clock)

    assert [rate.take("a") for _ in range(5)] == [0.0] * 5
    assert rate.take("a") == pytest.approx(0.1)
    assert rate.take("b") == 0.0
    clock.advance(0.1)
    assert [rate.wait_s("a"), rate.take("a"), rate.take("a")] == pytest.approx([0.0, 0.0, 0.1])
    clock.advance(60)
    assert [rate.take("a") for _ in range(5)] == [0.0] * 5
    assert rate.take("a") > 0


def test_who_is_refused_does_not_wait_longer_for_asking_again(clock: Clock) -> None:
    rate = Rate(1, 1, clock=clock)
    rate.take("a")

    assert {rate.take("a") for _ in range(100)} == {1.0}


def test_a_rate_remembers_those_that_were_busy_last(clock: Clock) -> None:
    rate = Rate(1, 1, max_keys=2, clock=clock)
    for key in ("a", "b", "a", "c"):
        rate.take(key)

    assert (rate.wait_s("a"), rate.wait_s("b"), rate.wait_s("c")) == (1.0, 0.0, 1.0)


def test_changes_are_counted_by_credential_whatever_name_comes_with_it(clock: Clock) -> None:
    limits = Limits(writes_per_s=1, write_burst=2, clock=clock)
    limits.write(ALICE)
    limits.write(replace(ALICE, actor="agent:alice.bot", owner="user:alice"))

    with pytest.raises(RateLimited) as refused:
        limits.write(replace(ALICE, actor="agent:alice.another", owner="user:alice"))

    limits.write(BOB)
    assert (refused.value.setting, refused.value.retry_after_s) == ("TASKHUB_WRITES_PER_S", 1.0)
    assert "1 changes a second, and 2 at once" in str(refused.value)
    assert limits.refused == {"writes_per_s": 1}


def test_a_stream_that_ended_makes_room_for_another_once(clock: Clock) -> None:
    limits = Limits(streams_per_principal=2, clock=clock)
    first, _ = limits.stream(ALICE, "192.0.2.1"), limits.stream(ALICE, "192.0.2.2")
    with pytest.raises(TooManyStreams, match="TASKHUB_SSE_MAX_STREAMS_PER_PRINCIPAL"):
        limits.stream(ALICE, "192.0.2.3")
    limits.stream(BOB, "192.0.2.1")

    first.leave()
    first.leave()

    limits.stream(ALICE, "192.0.2.1")
    with pytest.raises(TooManyStreams):
        limits.stream(ALICE, "192.0.2.1")


def test_anonymous_addresses_have_a_share_each_and_this_machine_is_not_one(clock: Clock) -> None:
    limits = Limits(streams_per_address=1, clock=clock)
    limits.stream(LOCAL, "192.0.2.1")

    with pytest.raises(TooManyStreams, match=r"192\.0\.2\.1"):
        limits.stream(LOCAL, "192.0.2.1")
    for address in ("192.0.2.2", "127.0.0.1", "127.0.0.1", "::1", "::1"):
        limits.stream(LOCAL, address)
    limits.stream(ALICE, "192.0.2.1")


def test_those_that_come_too_many_at_once_are_told_moments_one_after_the_other(clock: Clock) -> None:
    limits = Limits(new_streams_per_s=10, clock=clock)
    for _ in range(10):
        limits.stream(ALICE, None)
    waits = []
    for _ in range(5):
        with pytest.raises(TooManyStreams) as refused:
            limits.stream(BOB, None)
        waits.append(refused.value.retry_ms)

    assert waits == pytest.approx([100, 200, 300, 400, 500], abs=1)
    clock.advance(0.5)
    for _ in range(5):
        limits.stream(BOB, None)


def test_a_stream_that_was_refused_takes_no_place(clock: Clock) -> None:
    limits = Limits(new_streams_per_s=1, streams_per_principal=2, clock=clock)
    limits.stream(ALICE, None)
    for _ in range(5):
        with pytest.raises(TooManyStreams, match="TASKHUB_SSE_NEW_STREAMS_PER_S"):
            limits.stream(ALICE, None)
    clock.advance(1)

    limits.stream(ALICE, None)


def test_wrong_credentials_of_an_address_are_looked_at_so_often_and_good_ones_always(clock: Clock) -> None:
    failures = Failures(3, clock=clock)
    failures.succeeded("good")
    for number in range(3):
        assert not failures.refused("192.0.2.1", f"guess {number}")
        failures.failed("192.0.2.1")

    assert failures.refused("192.0.2.1", "guess 4") == pytest.approx(20)
    assert not failures.refused("192.0.2.1", "good")
    assert not failures.refused("192.0.2.2", "guess 4")
    clock.advance(20)
    assert not failures.refused("192.0.2.1", "guess 4")


def test_what_was_given_back_may_be_taken_again(clock: Clock) -> None:
    rate = Rate(0.1, 3, clock=clock)

    assert [rate.take("a") for _ in range(4)] == [0.0, 0.0, 0.0, 10.0]
    assert rate.take("b") == 0.0
    clock.advance(10)
    assert [rate.take("a") for _ in range(2)] == [0.0, 10.0]
    rate.give_back("a")
    assert rate.take("a") == 0.0
    rate.give_back("nobody")


def test_the_addresses_of_a_network_of_ipv6_are_one_senders() -> None:
    assert household("2001:db8:1:2:3::4") == household("2001:db8:1:2:ffff::9") == "2001:db8:1:2::/64"
    assert [household(text) for text in ("192.0.2.7", "::1", "", "fe80::1%eth0")] == [
        "192.0.2.7", "::1", "", "fe80::1%eth0",
    ]  # fmt: skip


def test_one_sender_has_all_addresses_of_a_network_of_ipv6(clock: Clock) -> None:
    failures = Failures(1, clock=clock)
    failures.failed("2001:db8:1:2::1")

    assert failures.refused("2001:db8:1:2:ffff::9", "guess")
    assert not failures.refused("2001:db8:1:3::1", "guess")


def test_without_authentication_nothing_but_new_streams_is_limited_unless_it_is_set() -> None:
    limits = Limits.of(Settings())
    strict = Limits.of(Settings(writes_per_s=1, write_burst=1, sse_max_streams_per_principal=1))
    for _ in range(500):
        limits.write(LOCAL)
        limits.stream(LOCAL, "127.0.0.1")

    strict.write(LOCAL)
    strict.stream(LOCAL, "127.0.0.1")
    with pytest.raises(RateLimited):
        strict.write(LOCAL)
    with pytest.raises(TooManyStreams):
        strict.stream(LOCAL, "127.0.0.1")


def exhaust(limits: Limits) -> None:
    for _ in range(5000):
        limits.write(ALICE)


def test_with_authentication_there_are_limits_and_zero_is_none() -> None:
    limits = Limits.of(Settings(api_key="k"))
    off = Limits.of(
        Settings(
            api_key="k",
            writes_per_s=0,
            sse_max_streams_per_principal=0,
            sse_new_streams_per_s=0,
            auth_failures_per_min=0,
        )
    )
    for _ in range(50):
        limits.stream(ALICE, None)
    with pytest.raises(TooManyStreams):
        limits.stream(ALICE, None)
    with pytest.raises(RateLimited):
        exhaust(limits)

    for _ in range(5000):
        off.write(ALICE)
        off.stream(ALICE, None)
        off.failed("192.0.2.1")
        off.check_failures("192.0.2.1", "guess")


def test_a_credential_may_have_other_limits_than_the_settings_say(clock: Clock) -> None:
    limits = Limits(streams_per_principal=1, writes_per_s=1, write_burst=1, clock=clock)
    much = replace(ALICE, limits=OwnLimits(streams=0, writes_per_s=10, write_burst=3))
    faster = replace(BOB, limits=OwnLimits(writes_per_s=2))

    for _ in range(5):
        limits.stream(much, None)
    for _ in range(3):
        limits.write(much)
    with pytest.raises(RateLimited, match="10 changes a second, and 3 at once"):
        limits.write(much)
    limits.write(faster)
    with pytest.raises(RateLimited, match="2 changes a second, and 1 at once"):
        limits.write(faster)
    limits.stream(faster, None)
    with pytest.raises(TooManyStreams, match="has 1 streams open"):
        limits.stream(faster, None)
    clock.advance(0.5)
    limits.write(faster)


@pytest.mark.parametrize("own", [OwnLimits(streams=2, writes_per_s=3, write_burst=2), OwnLimits(write_burst=2)])
def test_limits_of_its_own_count_where_the_settings_have_none(own: OwnLimits, clock: Clock) -> None:
    limits = Limits(write_burst=100, clock=clock)
    bound = replace(ALICE, limits=own)
    refused = 0
    for _ in range(5):
        limits.stream(BOB, None)
        limits.write(BOB)
        for ask in (lambda: limits.stream(bound, None), lambda: limits.write(bound)):
            try:
                ask()
            except (TooManyStreams, RateLimited):
                refused += 1

    assert refused == (6 if own.streams else 0)


def test_who_goes_on_after_refusals_insists_until_it_gives_way(clock: Clock) -> None:
    insisting = Insisting(clock=clock)

    assert not any(insisting.refused("alice") for _ in range(REFUSALS_AT_ONCE))
    assert insisting.refused("alice")
    assert not insisting.refused("bob")
    clock.advance(1)
    assert not insisting.refused("alice")


def test_who_insists_is_known_for_a_moment_by_what_it_presents(clock: Clock) -> None:
    insisting = Insisting(clock=clock)
    insisting.remember(1, ALICE)
    known = insisting.presenting(1)

    assert known is not None
    assert known.principal is ALICE
    assert insisting.presenting(2) is None
    clock.advance(KNOWN_S)
    assert insisting.presenting(1) is None
    assert not insisting.known
    for number in range(2 * MAX_KNOWN):
        insisting.remember(number, BOB)
    assert len(insisting.known) == MAX_KNOWN


async def test_what_is_held_is_released_in_its_order_and_no_more_than_so_much_is_held() -> None:
    held, released = Held(2, hold_s=0.01), list[str]()

    assert held.hold(lambda: released.append("first"))
    dropped = partial(released.append, "dropped")
    assert held.hold(dropped)
    assert not held.hold(lambda: released.append("too many"))
    held.drop(dropped)
    await held.wait()
    assert released == ["first"]
    assert len(held) == 0


async def test_a_server_that_stops_releases_all_that_is_held() -> None:
    held, released = Held(10, hold_s=3600), list[int]()
    waiting = asyncio.create_task(held.wait())
    for number in range(3):
        held.hold(partial(released.append, number))
    await asyncio.sleep(0)
    held.release_all()
    await waiting

    assert released == [0, 1, 2]
