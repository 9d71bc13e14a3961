"""Reading Server-Sent Events, as the HTML standard says a client does."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Frame:
    """One dispatched event: its name, its data, and the last id seen so far (this frame's, where it has one)."""

    event: str
    data: str
    last_id: str | None


class FrameReader:
    """Feed it bytes as they arrive, get the frames that are complete. `last_id` and `retry_ms` outlive a connection."""

    def __init__(self) -> None:
        self.last_id: str | None = None
        self.retry_ms: int | None = None
        self._rest = b""
        self._event = ""
        self._data: list[str] = []
        self._id: str | None = None

    def start(self) -> None:
        """A new connection: what an earlier one left unfinished is dropped."""
        self._rest = b""
        self._event = ""
        self._data = []
        self._id = self.last_id

    def feed(self, chunk: bytes) -> list[Frame]:
        """The frames that end in this chunk."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        frames: list[Frame] = []
        for raw in lines:
            line = raw.removesuffix(b"\r").decode("utf-8", "replace")
            if line:
                self._field(line)
                continue
            self.last_id = self._id  # only now: an id whose frame was cut off has not been received
            if self._data:
                frames.append(Frame(self._event or "message", "\n".join(self._data), self.last_id))
            self._event = ""
            self._data = []
        return frames

    def _field(self, line: str) -> None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            self._event = value
        elif name == "data":
            self._data.append(value)
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry_ms = int(value)
