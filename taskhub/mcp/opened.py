"""Which streams of MCP clients were opened by which credential, so that they end when it does."""

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager

from taskhub.auth.principal import Caller


class OpenedStreams:
    """The streams that are open by a stored credential: an Opened of the credential ring."""

    def __init__(self) -> None:
        self._ends: dict[Callable[[], None], str] = {}

    @contextmanager
    def by(self, caller: Caller, end: Callable[[], None]) -> Iterator[None]:
        """A stream of this caller, as long as the block lasts; `end` ends it in good order."""
        if (credential := caller.principal.credential) is None:
            yield
            return
        self._ends[end] = credential
        try:
            yield
        finally:
            del self._ends[end]

    def credentials(self) -> Collection[str]:
        return set(self._ends.values())

    def warn_opened_by(self, credentials: Collection[str]) -> None:
        """Does nothing: the protocol has no word for it."""

    def end_opened_by(self, credentials: Collection[str], why: str) -> None:
        """Calls under way finish; what they have opened ends."""
        for end in [end for end, credential in self._ends.items() if credential in credentials]:
            end()
