"""Two TaskHub servers on one PostgreSQL and one Redis, each behind links of its own that can be made to fail."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import aiohttp
from redis import Redis

from tests.e2e.harness.process import TaskHubProcess
from tests.e2e.harness.proxy import Proxy
from tests.e2e.harness.waiting import until
from tests.servers import PostgresServer, RedisServer

SERVERS: Final = ("first", "second")


class Cluster:
    """`links` has a proxy for each server and service: `first database`, `second redis`. You must `close` it.

    Raises FileNotFoundError when there is no PostgreSQL here.
    """

    def __init__(self, directory: Path) -> None:
        self.postgres = PostgresServer()
        self.redis = RedisServer()
        self.hubs: dict[str, TaskHubProcess] = {}
        self.links: dict[str, Proxy] = {}
        self.database_url = ""
        """Of the database itself, past the links."""
        self._directory = directory

    @property
    def urls(self) -> list[str]:
        return [hub.url for hub in self.hubs.values()]

    async def start(self) -> None:
        await asyncio.to_thread(self.postgres.start)
        await asyncio.to_thread(self.redis.start)
        self.database_url = await asyncio.to_thread(self.postgres.create_migrated)
        for name in SERVERS:
            database = self.links[f"{name} database"] = Proxy(self.postgres.port)
            redis = self.links[f"{name} redis"] = Proxy(self.redis.port)
            environment = {
                "TASKHUB_DATABASE_URL": database.through(self.database_url),
                "TASKHUB_REDIS_URL": redis.through(self.redis.url),
                "TASKHUB_DRAIN_S": "2",
                "TASKHUB_LOG_LEVEL": "warning",
            }
            self.hubs[name] = TaskHubProcess(self._directory / name, environment=environment, name=name)
        await asyncio.gather(*(hub.start() for hub in self.hubs.values()))

    def close(self) -> None:
        for hub in self.hubs.values():
            hub.dispose()
        for link in self.links.values():
            link.close()
        self.redis.kill()
        self.postgres.close()

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

            await until(all_ready, "readiness of both servers", 120, explain=self.logs)

    def logs(self) -> str:
        """The ends of what the servers printed."""
        return "\n".join(hub.log[-8000:] for hub in self.hubs.values())

    def tell_redis(self, *command: str | int) -> None:
        """Send Redis one command of an operator's."""
        with Redis.from_url(self.redis.url, socket_timeout=30) as operator:
            operator.execute_command(*command)

    def complaints(self) -> Sequence[str]:
        """What the servers printed of faults of their own."""
        lines = [line for hub in self.hubs.values() for line in hub.log.splitlines()]
        return [line for line in lines if "Traceback" in line or "never retrieved" in line or "[error" in line]
