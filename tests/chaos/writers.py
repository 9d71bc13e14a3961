"""Writers that repeat each write, under one idempotency key and through any instance, until it is answered."""

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp

from tests.e2e.harness.clients import MODERN

STATUSES: Final = ("received", "in_progress", "verifying", "completed")
PRIORITIES: Final = ("none", "low", "medium", "high", "urgent")
LABELS: Final = ("urgent", "vip", "later")
BUILDS: Final = ("build.finished", "build.started", "deploy.finished")
SUBJECTS: Final = ("repo/main", "repo/next", "site")

_META: Final = {"io.modelcontextprotocol/protocolVersion": MODERN, "io.modelcontextprotocol/clientCapabilities": {}}
_PATIENCE_S: Final = 8.0


@dataclass(slots=True, eq=False)
class Write:
    """One write: `marker` is its idempotency key and appears in its event. `event_id` is there once it is answered."""

    marker: str
    event_id: str | None = None
    attempts: int = 0


class RetryRefused(AssertionError):
    """A write was answered with something that no fault excuses."""


@dataclass(slots=True, eq=False)
class Writers:
    """All writers of a run, and what became of their writes."""

    urls: Sequence[str]
    seed: int
    pause_s: float
    writes: list[Write] = field(default_factory=list)
    refusals: dict[str, int] = field(default_factory=dict)
    """Why attempts failed, and how often."""
    _keys: list[str] = field(default_factory=list)
    _stopping: bool = False

    def stop(self) -> None:
        """Begin nothing new. Each writer ends when its last write is answered."""
        self._stopping = True

    async def run(self, number: int) -> None:
        """One writer. Raises RetryRefused."""
        chance = random.Random(f"{self.seed} {number}")
        connector = aiohttp.TCPConnector(force_close=chance.random() < 0.5)
        timeout = aiohttp.ClientTimeout(total=_PATIENCE_S)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            count = 0
            while not self._stopping:
                count += 1
                write = Write(f"{self.seed}-{number}-{count}")
                self.writes.append(write)
                await self._until_answered(session, write, self._content(write.marker, chance), chance)
                await asyncio.sleep(chance.uniform(0, 2 * self.pause_s))

    async def _until_answered(
        self,
        session: aiohttp.ClientSession,
        write: Write,
        content: tuple[str, str, dict[str, Any]],
        chance: random.Random,
    ) -> None:
        while True:
            write.attempts += 1
            method, path, body = content
            headers = {"Idempotency-Key": write.marker}
            if path == "/mcp":
                headers = {
                    "Accept": "application/json, text/event-stream", "MCP-Protocol-Version": MODERN,
                    "Mcp-Method": "tools/call", "Mcp-Name": body["params"]["name"],
                }  # fmt: skip
            try:
                url = chance.choice(self.urls) + path
                async with session.request(method, url, json=body, headers=headers) as response:
                    answer = await response.json(content_type=None)
                    found = self._result(response.status, answer, path)
            except (aiohttp.ClientError, TimeoutError, ConnectionError, ValueError) as error:
                self._refused(type(error).__name__)
                found = None
            if found is not None:
                write.event_id = found.get("event_id") or found.get("id")
                if "key" in found and path in ("/mcp", "/api/v1/tickets"):
                    self._keys.append(found["key"])
                return
            await asyncio.sleep(chance.uniform(0.02, 0.3))

    def _result(self, status: int, answer: Any, path: str) -> dict[str, Any] | None:
        """The answer of a write that was made; None when it is to be repeated. Raises RetryRefused."""
        if path == "/mcp":
            return self._tool_result(status, answer)
        if status in (200, 201):
            return dict(answer)
        if status in (503, 429):
            self._refused(f"{status} {answer['code']}: {answer['detail']}")
            return None
        raise RetryRefused(f"{path}: {status} {answer}")

    def _tool_result(self, status: int, answer: Any) -> dict[str, Any] | None:
        if status in (503, 429):
            self._refused(f"mcp {status}")
            return None
        result = answer.get("result") if isinstance(answer, dict) else None
        if status != 200 or result is None:
            raise RetryRefused(f"/mcp: {status} {answer}")
        if not result["isError"]:
            return dict(result["structuredContent"])
        error = result.get("structuredContent") or {}
        if not error.get("retryable", error.get("error", {}).get("retryable")):
            raise RetryRefused(f"/mcp: {result}")
        self._refused(f"tool: {result['content'][0]['text'][:80]}")
        return None

    def _refused(self, why: str) -> None:
        self.refusals[why] = self.refusals.get(why, 0) + 1

    def _content(self, marker: str, chance: random.Random) -> tuple[str, str, dict[str, Any]]:
        kind = chance.choice(
            ("create", "change", "change", "change", "tool create", "tool change", "tool status", "event")
        )
        if kind == "event":
            body = {"type": chance.choice(BUILDS), "subject": chance.choice(SUBJECTS), "data": {"marker": marker}}
            return "POST", "/events", body
        state = {
            "status": chance.choice(STATUSES), "priority": chance.choice(PRIORITIES),
            "labels": chance.sample(LABELS, chance.randrange(3)), "person_in_charge": chance.choice(("me", None)),
        }  # fmt: skip
        if not self._keys or "create" in kind:
            new = {"summary": marker, **state}
            if kind == "tool create":
                return _tool("create_ticket", {**new, "idempotency_key": marker})
            return "POST", "/api/v1/tickets", new
        key = chance.choice(self._keys[-20:])
        if kind == "tool status":
            arguments = {"task_id": key, "status": state["status"], "comment": marker, "idempotency_key": marker}
            return _tool("update_task_status", arguments)
        change = {name: value for name, value in state.items() if chance.random() < 0.4}
        change["comment"] = marker
        if kind == "tool change":
            return _tool("update_ticket", {"ticket_id": key, **change, "idempotency_key": marker})
        return "PATCH", f"/api/v1/tickets/{key}", change


def _tool(name: str, arguments: dict[str, Any]) -> tuple[str, str, dict[str, Any]]:
    params = {"name": name, "arguments": arguments, "_meta": _META}
    return "POST", "/mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
