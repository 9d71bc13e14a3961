"""Two processes over Redis and PostgreSQL: an event is published at one and heard at the other."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from tests.benchmarks.load import Figures, Load, run
from tests.benchmarks.peers import TaskHub
from tests.benchmarks.processes import CLIENT_CORE, SERVER_CORE, NotHere, Server
from tests.benchmarks.scenario import EXACTNESS, Column, Row, Scenario, each, inexactness
from tests.servers import PostgresServer, RedisServer

LATENCY: Final = Load(1, rate=50, seconds=3, pipeline=1)
PACED: Final = Load(1, rate=300, seconds=3)
FLOOD: Final = Load(1, window=1024, batch=32, seconds=3, pipeline=32)
IDLE_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Pair:
    """`here` publishes, `there` listens; `alone` is a third server with a database of its own and without Redis."""

    here: Server
    there: Server
    alone: Server


@contextlib.contextmanager
def servers(peer: TaskHub) -> Iterator[Pair]:
    """The server that publishes has the server core; the one that listens, the databases and the client the other.

    Raises NotHere.
    """
    with contextlib.ExitStack() as stack:
        try:
            postgres = PostgresServer()
        except FileNotFoundError as error:
            raise NotHere(str(error)) from error
        stack.callback(postgres.close)
        postgres.start()
        redis = RedisServer()
        stack.callback(redis.stop)
        redis.start()
        shared = {"TASKHUB_DATABASE_URL": postgres.create_database(), "TASKHUB_REDIS_URL": redis.url}
        own = {"TASKHUB_DATABASE_URL": postgres.create_database()}
        here, there, alone = (
            stack.enter_context(TaskHub(stored=peer.stored, settings=settings, core=core).serve())
            for settings, core in ((shared, SERVER_CORE), (shared, CLIENT_CORE), (own, SERVER_CORE))
        )
        yield Pair(here, there, alone)


def relay(peer: TaskHub) -> Row:
    """Latency with pauses; then CPU at a moderate rate and in a flood, on the side that sends and the one that hears.

    The sender's share is what it uses beyond a server without Redis that publishes the same to nobody. From the
    listener's, what it uses while nothing happens is taken away; the delivery to its one subscriber is in it.
    """
    with servers(peer) as pair:
        same = run(peer, pair.here, LATENCY)
        other = run(peer, pair.there, replace(LATENCY, publish_port=pair.here.port))
        idle_share = idle(pair.there)
        paced, sent_us = relayed(peer, pair, PACED)
        flood, flood_sent_us = relayed(peer, pair, FLOOD)
    return inexactness(same, other, paced, flood) | {
        "same_p50_ms": same.ms("delivery_p50"),
        "other_p50_ms": other.ms("delivery_p50"),
        "added_ms": other.ms("delivery_p50") - same.ms("delivery_p50"),
        "heard_us": per_event(paced, idle_share),
        "sent_us": sent_us,
        "flood_per_s": flood.published_per_s,
        "flood_heard_us": per_event(flood, idle_share),
        "flood_sent_us": flood_sent_us,
    }


def relayed(peer: TaskHub, pair: Pair, load: Load) -> tuple[Figures, float]:
    """The figures of the server that listens, and microseconds of CPU per event that relaying costs the other."""
    before = pair.here.usage()
    figures = run(peer, pair.there, replace(load, publish_port=pair.here.port))
    sending_us = 1e6 * (pair.here.usage().cpu_s - before.cpu_s) / figures.client["published_in_all"]
    before = pair.alone.usage()
    unheard = run(peer, pair.alone, replace(load, subscribers=0))
    alone_us = 1e6 * (pair.alone.usage().cpu_s - before.cpu_s) / unheard.client["published_in_all"]
    return figures, sending_us - alone_us


def idle(server: Server) -> float:
    """The share of a core that it uses while nothing happens."""
    before = server.usage()
    time.sleep(IDLE_S)
    after = server.usage()
    return (after.cpu_s - before.cpu_s) / (after.at - before.at)


def per_event(figures: Figures, idle_share: float) -> float:
    """Microseconds of CPU per published event, without what the server uses anyway."""
    elapsed_s = figures.measured.at - figures.measuring.at
    return figures.cpu_us_per_event - 1e6 * idle_share * elapsed_s / max(1.0, figures.client["published"])


RELAY_ADDED: Final = Column("added_ms", "added p50 ms", ",.2f", "the latter less the former")
HEARD: Final = Column("heard_us", "hears: µs/event", ",.1f", "CPU of the one that listens, at 300 events/s")
SENT: Final = Column("sent_us", "sends: µs/event", ",.1f", "CPU that relaying costs the other, at 300 events/s")
FLOOD_HEARD: Final = Column("flood_heard_us", "hears: µs/event", ",.1f", "CPU of the one that listens, in the flood")
FLOOD_SENT: Final = Column(
    "flood_sent_us", "sends: µs/event", ",.1f", "CPU that relaying costs the other, in the flood"
)

RELAY: Final = Scenario(
    "relay",
    "two processes over Redis and PostgreSQL, one subscriber",
    (
        Column("same_p50_ms", "same process p50 ms", ",.2f", "published and heard at the same process"),
        Column("other_p50_ms", "the other p50 ms", ",.2f", "published at one, heard at the other"),
        RELAY_ADDED,
        HEARD,
        SENT,
        Column("flood_per_s", "flood: events/s", ",.0f", "events that the pair got through, in batches of 32"),
        FLOOD_HEARD,
        FLOOD_SENT,
        *EXACTNESS,
    ),
    each(relay),
)
