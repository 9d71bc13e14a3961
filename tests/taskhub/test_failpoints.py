"""Failpoints: what can be planned, what is refused, and what a write does that fails at one."""

import asyncio
import signal
import subprocess
import sys
from typing import Any

import pytest

from broadcaster.event import Event, EventDraft
from taskhub.failpoints import OFF, POINTS, FailpointReached, Failpoints
from taskhub.publishing import EventPublisher
from taskhub.settings.loading import SettingsError, load
from taskhub.settings.model import shown
from taskhub.storage.writer import Writer
from taskhub.tickets.inputs import NewTicket
from taskhub.tickets.service import TicketService
from tests.taskhub.world import ALICE, World


def test_a_point_fails_on_the_passing_that_was_named_or_on_every_one() -> None:
    once = Failpoints.parse(["write.after_commit=raise@2", "write.after_insert=raise"])

    once.reach("write.after_commit")
    with pytest.raises(FailpointReached):
        once.reach("write.after_commit")
    once.reach("write.after_commit")
    for _ in range(2):
        with pytest.raises(FailpointReached):
            once.reach("write.after_insert")
    for point in POINTS:
        OFF.reach(point)


def test_kill_ends_the_process_at_the_point_and_nothing_after_it_happens() -> None:
    program = (
        "from taskhub.failpoints import Failpoints\n"
        "points = Failpoints.parse(['retention.chunk=delay:0.001', 'retention.chunk=kill@2'])\n"
        "for n in range(3): points.reach('retention.chunk'); print(n, flush=True)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)

    assert (ended.returncode, ended.stdout) == (-signal.SIGKILL, "0\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("write.after_comit=kill", "there is no failpoint 'write.after_comit'; there are write.after_ticket, "),
        ("write.after_commit=die", "say POINT=ACTION or POINT=ACTION@N, ACTION being kill, pause, raise or delay"),
        ("write.after_commit", "is no failpoint"),
        ("write.after_commit=kill@0", "is no failpoint"),
        ("write.after_commit=delay", "is no failpoint"),
        ("write.after_commit=delay:-1", "is no failpoint"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_what_can(text: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKHUB_FAILPOINTS", f"migration.step=raise, {text}")

    with pytest.raises(SettingsError) as refused:
        load()
    (problem,) = refused.value.problems
    assert problem.startswith("FAILPOINTS (environment TASKHUB_FAILPOINTS): ")
    assert says in problem


def test_every_point_and_action_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = [f"{point}={action}" for point in POINTS for action in ("kill", "pause@3", "raise", "delay:0.5@1")]
    monkeypatch.setenv("TASKHUB_FAILPOINTS", ",".join(plans))

    assert shown("failpoints", load().settings) == ",".join(plans)


def test_production_refuses_failpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKHUB_FAILPOINTS", "write.after_commit=kill")
    monkeypatch.setenv("TASKHUB_ENV", "production")

    with pytest.raises(SettingsError, match=r"FAILPOINTS .* refused with ENV=production"):
        load()


class FailingWriter:
    """A writer of its own on the world's database, with failpoints; it heard what it told."""

    def __init__(self, world: World, *plans: str) -> None:
        self.heard: list[Event] = []
        self.writer = Writer(world.database, self._heard, clock=lambda: world.now, failpoints=Failpoints.parse(plans))
        self.tickets = TicketService(world.database, self.writer)

    def _heard(self, workspace: str, events: Any) -> None:
        self.heard += events

    async def create(self) -> Any:
        return await self.tickets.create_ticket(ALICE, NewTicket(summary="Printer"), idempotency_key="k")


@pytest.mark.parametrize("point", ["write.after_ticket", "write.after_insert", "write.after_counter"])
async def test_a_write_that_fails_before_its_commit_leaves_nothing_and_can_be_repeated(
    world: World, point: str
) -> None:
    failing = FailingWriter(world, f"{point}=raise@1")

    with pytest.raises(FailpointReached):
        await failing.create()
    assert await world.keys() == []
    assert (await world.log.bounds("default")).head == 0
    written = await failing.create()
    await failing.writer.close()

    assert (written.key, written.version, written.replayed) == ("TH-1", 1, False)
    assert [event.id for event in failing.heard] == [written.event_id]


async def test_a_write_that_fails_before_it_is_told_stays_and_is_answered(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    failing = FailingWriter(world, "write.after_commit=raise@1")
    written = await failing.create()
    await failing.writer.close()

    assert failing.heard == []
    assert [event.id for event in await world.log.read("default", 0, 10)] == [written.event_id]
    assert "committed events could not be told" in caplog.text


async def test_a_write_that_fails_before_its_answer_is_answered_when_it_is_repeated(world: World) -> None:
    failing = FailingWriter(world, "write.after_publish=raise@1")

    with pytest.raises(FailpointReached):
        await failing.create()
    again = await failing.create()
    await failing.writer.close()

    assert (again.key, again.version, again.replayed) == ("TH-1", 1, True)
    assert [event.id for event in failing.heard] == [again.event_id]


async def test_of_a_group_that_fails_every_other_write_is_made(world: World) -> None:
    """A failure at a point may have any cause, so each command of the group gets a try alone."""
    failing = FailingWriter(world, "write.after_insert=raise@2")
    publisher = EventPublisher(failing.writer)
    draft = EventDraft("build.finished", "user:ci", "rest_api", b"{}")
    await asyncio.gather(*(publisher.publish(ALICE, [draft]) for _ in range(6)))
    await failing.writer.close()

    assert [event.seq for event in failing.heard] == [1, 2, 3, 4, 5, 6]
