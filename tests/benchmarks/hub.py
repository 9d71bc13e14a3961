"""What the kit itself asks of a running TaskHub."""

import http.client
import json
import time
from typing import Any, Final

from tests.benchmarks.load import RunFailed
from tests.benchmarks.peers import API_KEY

BATCH: Final = 100
TIMEOUT_S: Final = 60.0


class Hub:
    """A client of the server on this port."""

    def __init__(self, port: int) -> None:
        self._port = port

    def debug(self) -> dict[str, Any]:
        """What `/events/debug` says."""
        return self.call("GET", "/events/debug")

    def create_ticket(self) -> str:
        """Its key."""
        key: str = self.call("POST", "/api/v1/tickets", {"summary": "something to read"})["key"]
        return key

    def publish(self, count: int, *, first: int = 1) -> str:
        """Store events as the load client publishes them, numbered from `first`; the position of the last one."""
        position = ""
        for begin in range(first, first + count, BATCH):
            numbers = range(begin, min(begin + BATCH, first + count))
            events = [
                {"type": "bench.tick", "data": {"t": time.monotonic_ns(), "q": number, "p": 0, "pad": "x" * 150}}
                for number in numbers
            ]
            position = self.call("POST", "/events/batch", {"events": events})["position"]
        return position

    def call(self, method: str, path: str, body: object = None) -> dict[str, Any]:
        """The answer's JSON. Raises RunFailed unless the status is 2xx."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_S)
        headers = {"X-API-Key": API_KEY, "Content-Type": "application/json"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            text = answer.read()
        except OSError as error:
            raise RunFailed(f"{method} {path}: {error}") from error
        finally:
            connection.close()
        if answer.status // 100 != 2:
            raise RunFailed(f"{method} {path}: {answer.status} {text[:300].decode(errors='replace')}")
        document: dict[str, Any] = json.loads(text)
        return document
