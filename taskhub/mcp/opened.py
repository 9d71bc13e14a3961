"""The streams of MCP clients that are open: each has a line in the log when it opens and one when it ends, and those
that were opened by a stored credential end when it does."""

import asyncio
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Literal

import structlog

from taskhub import logs
from taskhub.auth.principal import Caller

Kind = Literal["sse", "session", "listen"]
"""That of the older transport, that of a session, and the answer to `subscriptions/listen`."""

log = structlog.stdlib.get_logger("taskhub.http")


class OpenedStreams:
    """Those of a process: an Opened of the credential ring."""

    def __init__(self) -> None:
        self._ends: dict[Callable[[], None], str] = {}

    @contextmanager
    def by(self, caller: Caller, kind: Kind, end: Callable[[], None]) -> Iterator[None]:
        """A stream of this caller, as long as the block lasts; `end` ends it in good order."""
        logs.note(stream=True)
        told = {"kind": kind, "actor": caller.principal.actor, "address": caller.address}
        log.info("MCP stream opened", **told)
        opened, reason = time.monotonic(), "ended"
        if (credential := caller.principal.credential) is not None:
            self._ends[end] = credential
        try:
            yield
        except asyncio.CancelledError:
            reason = "disconnected"
            raise
        finally:
            if credential is not None and self._ends.pop(end, None) is None:
                reason = "revoked"
            log.info("MCP stream closed", **told, reason=reason, duration_s=round(time.monotonic() - opened, 3))

    def credentials(self) -> Collection[str]:
        return set(self._ends.values())

    def warn_opened_by(self, credentials: Collection[str]) -> None:
        """Does nothing: the protocol has no word for it."""

    def end_opened_by(self, credentials: Collection[str], why: str) -> None:
        """Calls under way finish; what they have opened ends."""
        for end in [end for end, credential in self._ends.items() if credential in credentials]:
            del self._ends[end]
            end()
