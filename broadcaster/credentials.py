"""Which streams were opened by which credential, so that they end when it does.

To the engine a credential is a name, and what it is good for is others' business.
"""

from collections.abc import Collection, Iterator

from broadcaster.subscriber import Subscriber


class StreamsByCredential:
    """The streams of each credential, and which of them were warned that it is about to end."""

    def __init__(self) -> None:
        self._streams: dict[str, dict[Subscriber, bool]] = {}

    def credentials(self) -> Collection[str]:
        return self._streams.keys()

    def add(self, subscriber: Subscriber) -> None:
        if (credential := subscriber.request.credential) is not None:
            self._streams.setdefault(credential, {})[subscriber] = False

    def remove(self, subscriber: Subscriber) -> None:
        credential = subscriber.request.credential
        if credential is None or (streams := self._streams.get(credential)) is None:
            return
        streams.pop(subscriber, None)
        if not streams:
            del self._streams[credential]

    def opened_by(self, credentials: Collection[str]) -> list[Subscriber]:
        return [subscriber for credential in credentials for subscriber in self._streams.get(credential, ())]

    def to_warn(self, credentials: Collection[str]) -> Iterator[Subscriber]:
        """Those of the streams that are live and not warned yet; each comes once."""
        for credential in credentials:
            streams = self._streams.get(credential, {})
            for subscriber, warned in list(streams.items()):
                if not warned and subscriber.state == "live":
                    streams[subscriber] = True
                    yield subscriber
