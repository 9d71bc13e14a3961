"""Which streams were opened by which credential, so that they end when it does.

To the engine a credential is a name, and what it is good for is others' business.
"""

from collections.abc import Callable, Collection, Iterator

from broadcaster.stream import EndReason
from broadcaster.subscriber import Subscriber


class OpenedStreams:
    """The streams of each credential, and which of them were warned that it is about to end."""

    def __init__(
        self,
        notify: Callable[[Subscriber, dict[str, str]], None],
        end: Callable[[Subscriber, EndReason], None],
    ) -> None:
        """`notify` sends a stream a notice, `end` says goodbye to it."""
        self._notify = notify
        self._end = end
        self._streams: dict[str, dict[Subscriber, bool]] = {}

    def credentials(self) -> Collection[str]:
        """The credentials by which streams are open."""
        return self._streams.keys()

    def warn_opened_by(self, credentials: Collection[str]) -> None:
        """Tell each live stream of these credentials, once, that it will soon end."""
        for subscriber in self._to_warn(credentials):
            self._notify(
                subscriber, {"code": "auth_expiring", "detail": "the API key of this stream ends within a minute"}
            )

    def end_opened_by(self, credentials: Collection[str], why: EndReason) -> None:
        """Say goodbye to every stream of these credentials."""
        for subscriber in [s for credential in credentials for s in self._streams.get(credential, ())]:
            self._end(subscriber, why)

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

    def _to_warn(self, credentials: Collection[str]) -> Iterator[Subscriber]:
        """Those of the streams that are live and not warned yet; each comes once."""
        for credential in credentials:
            streams = self._streams.get(credential, {})
            for subscriber, warned in list(streams.items()):
                if not warned and subscriber.state == "live":
                    streams[subscriber] = True
                    yield subscriber
