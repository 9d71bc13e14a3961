"""Two TaskHub servers on one PostgreSQL and one Redis, each behind links of its own, and what can happen to them."""

import asyncio
import random
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import aiohttp
from redis import Redis

from tests.chaos.faults import SERVERS, Fault
from tests.e2e.harness.followers import Follower
from tests.e2e.harness.process import TaskHubProcess
from tests.e2e.harness.proxy import Proxy
from tests.e2e.harness.waiting import until
from tests.servers import PostgresServer, RedisServer

_LOOK_EVERY_S: Final = 0.2


class Cluster:
    """Servers that a service manager starts again whenever they have ended. You must `close` it."""

    def __init__(self, directory: Path) -> None:
        self.postgres = PostgresServer()
        self.redis = RedisServer()
        self.hubs: dict[str, TaskHubProcess] = {}
        self.links: dict[str, Proxy] = {}
        self.unasked_exits: list[str] = []
        """Ends of servers that were ready and that nobody had asked to end."""
        self.database_url = ""
        self.followers: list[Follower] = []
        self._directory = directory
        self._down: set[str] = set()
        self._ready: set[str] = set()
        self._manager: asyncio.Task[None] | None = None

    @property
    def urls(self) -> list[str]:
        return [hub.url for hub in self.hubs.values()]

    @property
    def complaints(self) -> list[str]:
        """What the servers printed of faults of their own."""
        lines = [line for hub in self.hubs.values() for line in hub.log.splitlines()]
        return [line for line in lines if "Traceback" in line or "never retrieved" in line or "[error" in line]

    async def start(self) -> None:
        await asyncio.to_thread(self.postgres.start)
        await asyncio.to_thread(self.redis.start)
        self.database_url = await asyncio.to_thread(self.postgres.create_database)
        for name in SERVERS:
            database = self.links[f"link {name} database"] = Proxy(self.postgres.port)
            redis = self.links[f"link {name} redis"] = Proxy(self.redis.port)
            environment = {
                "TASKHUB_DATABASE_URL": database.through(self.database_url),
                "TASKHUB_REDIS_URL": redis.through(self.redis.url),
                "TASKHUB_DRAIN_S": "2",
                "TASKHUB_LOG_LEVEL": "warning",
            }
            self.hubs[name] = TaskHubProcess(self._directory / name, environment=environment, name=name)
        await asyncio.gather(*(hub.start() for hub in self.hubs.values()))
        self._ready |= self.hubs.keys()
        self._manager = asyncio.create_task(self._manage())

    async def close(self) -> None:
        if self._manager is not None:
            self._manager.cancel()
            await asyncio.gather(self._manager, return_exceptions=True)
        for hub in self.hubs.values():
            hub.dispose()
        for link in self.links.values():
            await asyncio.to_thread(link.close)
        await asyncio.to_thread(self.redis.kill)
        await asyncio.to_thread(self.postgres.close)

    async def healthy(self) -> None:
        """Wait until both servers are ready, with nothing degraded."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:

            async def all_ready() -> bool:
                try:
                    for url in self.urls:
                        async with session.get(f"{url}/readyz") as response:
                            if response.status != 200 or (await response.json())["status"] != "ready":
                                return False
                except (aiohttp.ClientError, TimeoutError):
                    return False
                return True

            logs = "\n".join(hub.log[-2000:] for hub in self.hubs.values())
            await until(all_ready, "readiness of both servers", 120, explain=lambda: logs)

    async def suffer(self, fault: Fault, chance: random.Random) -> None:
        """Do it, wait, and undo it."""
        target, _, name = fault.target.partition(" ")
        if target == "server":
            await self._server_fault(name, fault)
        elif target == "link":
            await self._link_fault(self.links[fault.target], fault)
        elif target == "database":
            await self._database_fault(fault)
        elif target == "redis":
            await self._redis_fault(fault)
        else:
            for follower in chance.sample(self.followers, len(self.followers) // 3):
                follower.cut()

    async def _server_fault(self, name: str, fault: Fault) -> None:
        hub = self.hubs[name]
        self._down.add(name)
        self._ready.discard(name)
        if hub.running:
            hub.signal({"kill": signal.SIGKILL, "pause": signal.SIGSTOP, "terminate": signal.SIGTERM}[fault.kind])
        await asyncio.sleep(fault.for_s)
        if hub.running and fault.kind == "pause":
            hub.signal(signal.SIGCONT)
        elif hub.running and fault.kind == "terminate":
            await hub.wait_exit()
        self._down.discard(name)  # the service manager starts it again

    async def _link_fault(self, link: Proxy, fault: Fault) -> None:
        if fault.kind == "cut":
            await asyncio.to_thread(link.cut)
            return
        acts = {"refuse": link.refuse, "blackhole": link.blackhole, "delay": lambda: link.delay(0.3)}
        await self._during(fault, acts[fault.kind], link.heal)

    async def _database_fault(self, fault: Fault) -> None:
        postgres = self.postgres
        if fault.kind == "disconnect":
            await asyncio.to_thread(postgres.disconnect_all)
        elif fault.kind == "pause":
            await self._during(fault, postgres.pause, postgres.resume)
        else:
            await self._during(fault, postgres.kill if fault.kind == "kill" else postgres.stop, postgres.start)

    async def _redis_fault(self, fault: Fault) -> None:
        redis = self.redis
        if fault.kind in ("kill", "pause"):
            await self._during(
                fault,
                redis.kill if fault.kind == "kill" else redis.pause,
                redis.start if fault.kind == "kill" else redis.resume,
            )
            return
        commands: dict[str, Sequence[str | int]] = {
            "flush": ("FLUSHALL",),
            "kill pubsub": ("CLIENT", "KILL", "TYPE", "pubsub"),
            "client pause": ("CLIENT", "PAUSE", int(fault.for_s * 1000), "ALL"),
        }
        await asyncio.to_thread(redis_command, self.redis.url, *commands[fault.kind])

    async def _during(self, fault: Fault, do: Callable[[], object], undo: Callable[[], object]) -> None:
        await asyncio.to_thread(do)
        await asyncio.sleep(fault.for_s)
        await asyncio.to_thread(undo)

    async def _manage(self) -> None:
        """Start what has ended, unless a fault keeps it down."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            while True:
                await asyncio.sleep(_LOOK_EVERY_S)
                for name, hub in self.hubs.items():
                    if name in self._down:
                        continue
                    if not hub.running:
                        if name in self._ready and hub.process is not None:
                            self.unasked_exits.append(f"{name} exited with {hub.process.returncode}: {hub.log[-2000:]}")
                        self._ready.discard(name)
                        hub.launch()
                    elif name not in self._ready and await _answers(session, hub.url):
                        self._ready.add(name)


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with session.get(f"{url}/healthz") as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


def redis_command(url: str, *command: str | int) -> None:
    """Send Redis one command of an operator's."""
    with Redis.from_url(url, socket_timeout=30) as operator:
        operator.execute_command(*command)
