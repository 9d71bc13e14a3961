"""The relay and the control path over TLS."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from broadcaster.redis_relay import RedisRelay
from broadcaster.relayed_control import RelayedControl
from tests.broadcaster.test_control import PATIENT_S, PREFIX, Instance, bodies
from tests.broadcaster.test_relay import Ear, Publisher, hears, instance, is_up
from tests.certificates import make_certificates, tls_in_front_of
from tests.e2e.harness.waiting import until
from tests.servers import RedisServer


@pytest.fixture
def server() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    yield server
    server.kill()


async def test_announcements_travel_over_tls(server: RedisServer, tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    async with tls_in_front_of(server.port, certificates) as port:
        url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificates.authority}"
        async with instance(url, "a") as (a, _), instance(url, "b") as (b, ear):
            await is_up(a, b)
            announcement = Publisher().announcement(2)
            a.announce(announcement)
            await hears(ear, lambda ear: ear.heard)

            assert ear.ids == [event.id for event in announcement.events]
            assert a.statistics().trouble is None


async def test_questions_travel_over_tls(server: RedisServer, tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path)
    async with tls_in_front_of(server.port, certificates) as port:
        url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificates.authority}"
        relays = [RedisRelay(url, channel_prefix=PREFIX, instance=name, ping_interval_s=30) for name in "ab"]
        controls = [RelayedControl(relay, name, patience_s=PATIENT_S) for relay, name in zip(relays, "ab", strict=True)]
        for relay, control, name in zip(relays, controls, "ab", strict=True):
            control.start(Instance(name).answer)
            await relay.start(Ear())
        await is_up(*relays)

        answers = await controls[0].ask("name", b"")
        for relay, control in zip(relays, controls, strict=True):
            await control.stop()
            await relay.stop()

    assert (set(bodies(answers)), answers.partial) == ({"a", "b"}, False)


async def test_a_server_of_another_authority_is_refused_and_why_is_said(
    server: RedisServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    certificates = make_certificates(tmp_path)
    (tmp_path / "other").mkdir()
    other = make_certificates(tmp_path / "other")
    caplog.set_level(logging.WARNING)
    async with tls_in_front_of(server.port, certificates) as port:
        url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={other.authority}"
        async with instance(url, "a") as (a, _):
            await until(lambda: a.statistics().trouble, "refusal")

            assert a.statistics().state == "down"
            assert "certificate verify failed" in (a.statistics().trouble or "")
    assert "certificate verify failed" in caplog.text


async def test_what_keeps_a_relay_away_is_said_and_forgotten_when_it_is_back(server: RedisServer) -> None:
    async with instance(server.url, "a") as (a, _):
        await is_up(a)
        server.kill()
        await until(lambda: a.statistics().trouble, "loss")
        server.start()
        await is_up(a)

        assert a.statistics().trouble is None
