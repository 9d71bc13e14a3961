"""MCP clients of the TypeScript SDKs in a Node process that does what it is told: tests/e2e/typescript."""

import asyncio
import itertools
import json
import subprocess
import threading
from collections import Counter
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from tests.e2e.harness.process import clean_environment
from tests.e2e.harness.tools import E2E, node
from tests.e2e.harness.waiting import DEADLINE_S, until


class Refused(Exception):
    """What the client raised. `code` is that of the protocol, or a name of the SDK's; `data` came with it."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(f"{error['name']} {error['code']}: {error['message']}")
        self.name: str = error["name"]
        self.code: int | str | None = error["code"]
        self.message: str = error["message"]
        self.data: Any = error["data"]


class Request:
    """One that was sent; await `answer`, or `cancel` it."""

    def __init__(self, node: "NodeProcess", number: int, client: str) -> None:
        self._node = node
        self._client = client
        self.number = number
        self.future: Future[Any] = Future()

    async def answer(self) -> Any:
        """What the client's method returned. Raises Refused."""
        return await asyncio.wait_for(asyncio.wrap_future(self.future), DEADLINE_S)

    async def cancel(self) -> None:
        await self._node.send(self._client, "cancel", self.number).answer()


class NodeProcess:
    """A process that holds clients by name. It may be used from one event loop after another."""

    def __init__(self, script: str, log: Path) -> None:
        self._log = log.open("ab")
        self._process = subprocess.Popen(
            [str(node()), str(E2E / "typescript" / script)],
            cwd=E2E,
            env=clean_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        self._numbers = itertools.count(1)
        self._requests: dict[int, Request] = {}
        self.updated: Counter[tuple[str, str]] = Counter()
        self.ended: dict[str, str] = {}
        self._reader = threading.Thread(target=self._read, name=script, daemon=True)
        self._reader.start()

    def send(self, client: str, action: str, parameters: Any) -> Request:
        """Tell a client what to do; see remote_control.mjs."""
        number = next(self._numbers)
        request = self._requests[number] = Request(self, number, client)
        message = {"id": number, "client": client, "do": action, "with": parameters}
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()
        return request

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(DEADLINE_S)
        finally:
            self._process.kill()
            self._process.wait()
            self._reader.join()
            self._process.stdout.close()
            self._log.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            if "updated" in message:
                self.updated[message["client"], message["updated"]] += 1
            elif "ended" in message:
                self.ended[message["client"]] = message["ended"]
            else:
                future = self._requests.pop(message["id"]).future
                if "error" in message:
                    future.set_exception(Refused(message["error"]))
                else:
                    future.set_result(message["result"])
        for request in self._requests.values():
            request.future.set_exception(ConnectionError("the Node process ended"))


class NodeClient:
    """One client. `do` calls any method of the SDK's class, by its name there."""

    def __init__(self, node: NodeProcess, name: str, era: str) -> None:
        self._node = node
        self.name = name
        self.era = era

    async def open(self, transport: str, **how: Any) -> dict[str, Any]:
        """Connect; returns the server's identity and capabilities."""
        how = {"transport": transport, "era": self.era, **how}
        opened: dict[str, Any] = await self._node.send(self.name, "open", how).answer()
        return opened

    async def do(self, method: str, *parameters: Any) -> Any:
        return await self._node.send(self.name, method, parameters).answer()

    def start_call(self, tool: str, **arguments: Any) -> Request:
        return self._node.send(self.name, "callTool", [{"name": tool, "arguments": arguments}])

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool; returns the whole result."""
        result: dict[str, Any] = await self.start_call(tool, **arguments).answer()
        return result

    async def close(self) -> None:
        await self._node.send(self.name, "close", None).answer()

    async def hears(self, uri: str, before: int = 0) -> None:
        """Return once it was told more than `before` times that the resource changed."""
        await until(lambda: self.told(uri) > before, f"update of {uri}")

    def told(self, uri: str) -> int:
        """How often it was told that the resource changed."""
        return self._node.updated[self.name, uri]

    async def subscription_end(self) -> str:
        """Why its subscription ended: `local`, `graceful` or `remote`."""
        reason: str = await until(lambda: self._node.ended.get(self.name), "end of the subscription")
        return reason
