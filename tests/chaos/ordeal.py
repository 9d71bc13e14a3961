"""What can happen to a cluster, and the service manager that starts again whatever has ended."""

import asyncio
import random
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import aiohttp

from tests.chaos.faults import Fault
from tests.e2e.harness.cluster import Cluster
from tests.e2e.harness.followers import Follower
from tests.e2e.harness.proxy import Proxy

_LOOK_EVERY_S: Final = 0.2


class Ordeal:
    """Faults for a cluster that runs. `manage` must run beside it."""

    def __init__(self, cluster: Cluster, followers: Sequence[Follower], chance: random.Random) -> None:
        self.unasked_exits: list[str] = []
        """Ends of servers that were ready and that nobody had asked to end."""
        self._cluster = cluster
        self._followers = list(followers)
        self._chance = chance
        self._down: set[str] = set()
        self._ready = set(cluster.hubs)

    async def suffer(self, fault: Fault) -> None:
        """Do it, wait, and undo it."""
        target, _, name = fault.target.partition(" ")
        if target == "server":
            await self._server_fault(name, fault)
        elif target == "link":
            await self._link_fault(self._cluster.links[name], fault)
        elif target == "database":
            await self._database_fault(fault)
        elif target == "redis":
            await self._redis_fault(fault)
        else:
            for follower in self._chance.sample(self._followers, len(self._followers) // 3):
                follower.cut()

    async def manage(self) -> None:
        """Start what has ended, unless a fault keeps it down; until cancelled."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            while True:
                await asyncio.sleep(_LOOK_EVERY_S)
                for name, hub in self._cluster.hubs.items():
                    if name in self._down:
                        continue
                    if not hub.running:
                        if name in self._ready and hub.process is not None:
                            self.unasked_exits.append(f"{name} exited with {hub.process.returncode}: {hub.log[-2000:]}")
                        self._ready.discard(name)
                        hub.launch()
                    elif (
                        name not in self._ready
                        and await _answers(session, hub.url)
                        and name not in self._down  # it may have been asked to end while it answered
                        and hub.running
                    ):
                        self._ready.add(name)

    async def _server_fault(self, name: str, fault: Fault) -> None:
        hub = self._cluster.hubs[name]
        signals = {"kill": signal.SIGKILL, "pause": signal.SIGSTOP, "terminate": signal.SIGTERM}
        self._down.add(name)
        self._ready.discard(name)
        if hub.running:
            hub.signal(signals[fault.kind])
        await asyncio.sleep(fault.for_s)
        if hub.running and fault.kind == "pause":
            hub.signal(signal.SIGCONT)
        elif hub.running:
            await hub.wait_exit()
        self._down.discard(name)  # the service manager starts it again

    async def _link_fault(self, link: Proxy, fault: Fault) -> None:
        if fault.kind == "cut":
            await asyncio.to_thread(link.cut)
            return
        acts = {"refuse": link.refuse, "blackhole": link.blackhole, "delay": lambda: link.delay(0.3)}
        await _during(fault, acts[fault.kind], link.heal)

    async def _database_fault(self, fault: Fault) -> None:
        postgres = self._cluster.postgres
        if fault.kind == "disconnect":
            await asyncio.to_thread(postgres.disconnect_all)
        elif fault.kind == "pause":
            await _during(fault, postgres.pause, postgres.resume)
        else:
            await _during(fault, postgres.kill if fault.kind == "kill" else postgres.stop, postgres.start)

    async def _redis_fault(self, fault: Fault) -> None:
        redis = self._cluster.redis
        if fault.kind == "kill":
            await _during(fault, redis.kill, redis.start)
        elif fault.kind == "pause":
            await _during(fault, redis.pause, redis.resume)
        else:
            commands: Mapping[str, Sequence[str | int]] = {
                "flush": ("FLUSHALL",),
                "kill pubsub": ("CLIENT", "KILL", "TYPE", "pubsub"),
                "client pause": ("CLIENT", "PAUSE", int(fault.for_s * 1000), "ALL"),
            }
            await asyncio.to_thread(self._cluster.tell_redis, *commands[fault.kind])


async def _during(fault: Fault, do: Callable[[], object], undo: Callable[[], object]) -> None:
    await asyncio.to_thread(do)
    await asyncio.sleep(fault.for_s)
    await asyncio.to_thread(undo)


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/healthz") as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False
