"""A parser of the stream's wire format that accepts exactly what the contract allows and refuses everything else.

Clients in the field are lenient, each in its own way; what one of them forgives makes a phantom event in another. So
the tests read streams with this parser and name every byte that is not as documented.
"""

import json
import re
from dataclasses import dataclass
from typing import Any, Final

ID_PATTERN: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
CONTROL_FRAMES: Final = frozenset(
    {"hello", "snapshot", "message", "batch_update", "ready", "reset", "heartbeat", "notice", "goodbye"}
)


class WireViolation(AssertionError):
    """The stream sent something that the contract does not allow."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One block of the stream. `data` is its decoded JSON; `id` and `retry` are None when the block has none."""

    event: str
    data: Any
    id: str | None
    retry: int | None

    @property
    def events(self) -> list[dict[str, Any]]:
        """The CloudEvents that the frame carries: one of a `message` or named frame, several of a `batch_update`."""
        if self.event == "batch_update":
            return list(self.data["events"])
        if self.event == "message" or self.event not in CONTROL_FRAMES:
            return [self.data]
        return []


class FrameParser:
    """Bytes in, frames out; raises WireViolation at the first byte that breaks the format.

    The rules: UTF-8 without byte order mark, LF only; a block has one `event:` and one `data:` line (JSON), at most one
    `id:` and one `retry:`, and ends with an empty line; a heartbeat is the line `:` between blocks and nothing else.
    """

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.heartbeats = 0
        self.last_event_id: str | None = None
        """What a client would send as `Last-Event-ID`: the newest id of a complete block."""
        self._rest = b""
        self._fields: dict[str, str] = {}
        self._started = False

    @property
    def at_boundary(self) -> bool:
        """Whether the bytes so far end with a whole frame or heartbeat."""
        return not self._rest and not self._fields

    def feed(self, data: bytes) -> list[Frame]:
        """Take the next bytes; return the frames that they complete."""
        if b"\r" in data:
            raise WireViolation(f"CR on the wire: {data[:200]!r}")
        if not self._started and data:
            self._started = True
            if data.startswith(b"\xef\xbb\xbf"):
                raise WireViolation("the stream begins with a byte order mark")
        first_new = len(self.frames)
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._line(line)
        return self.frames[first_new:]

    def _line(self, raw: bytes) -> None:
        try:
            line = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise WireViolation(f"not UTF-8: {raw[:200]!r}") from error
        if line == "":
            self._finish_block()
        elif line.startswith(":"):
            if line != ":":
                raise WireViolation(f"a comment that is not a bare heartbeat: {line[:200]!r}")
            if self._fields:
                raise WireViolation(f"a heartbeat inside a block: {self._fields}")
            self.heartbeats += 1
        else:
            name, colon, value = line.partition(": ")
            if not colon or name not in ("event", "data", "id", "retry"):
                raise WireViolation(f"not a field of the contract: {line[:200]!r}")
            if name in self._fields:
                raise WireViolation(f"a second {name!r} in one block: {line[:200]!r}")
            self._fields[name] = value

    def _finish_block(self) -> None:
        fields, self._fields = self._fields, {}
        if not fields:
            raise WireViolation("an empty line that ends no block")
        if "event" not in fields or "data" not in fields:
            raise WireViolation(f"a block without event or data: {fields}")
        if "id" in fields and not ID_PATTERN.fullmatch(fields["id"]):
            raise WireViolation(f"not an id: {fields['id']!r}")
        if not re.fullmatch("[0-9]{1,9}", fields.get("retry", "0")):
            raise WireViolation(f"not a retry: {fields['retry']!r}")
        try:
            data = json.loads(fields["data"])
        except ValueError as error:
            raise WireViolation(f"data is not JSON: {fields['data'][:200]!r}") from error
        if not isinstance(data, dict):
            raise WireViolation(f"data is not an object: {fields['data'][:200]!r}")
        retry = int(fields["retry"]) if "retry" in fields else None
        frame = Frame(fields["event"], data, fields.get("id"), retry)
        self._check_order(frame)
        self.frames.append(frame)
        if frame.id is not None:
            self.last_event_id = frame.id

    def _check_order(self, frame: Frame) -> None:
        if not self.frames and frame.event not in ("hello", "goodbye"):
            raise WireViolation(f"the stream does not begin with hello: {frame}")
        if self.frames and frame.event == "hello":
            raise WireViolation("a second hello on one connection")
        if self.frames and self.frames[-1].event == "goodbye":
            raise WireViolation(f"something after goodbye: {frame}")
        if frame.event == "hello" and frame.retry is None:
            raise WireViolation("hello without retry")


class ChunkDecoder:
    """HTTP/1.1 chunked transfer coding, keeping the borders: one chunk is one write of the server."""

    def __init__(self) -> None:
        self._rest = b""
        self.finished = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take the next bytes; return the payloads of the chunks that they complete."""
        self._rest += data
        payloads: list[bytes] = []
        while not self.finished:
            head, found, rest = self._rest.partition(b"\r\n")
            if not found:
                break
            try:
                size = int(head.split(b";")[0], 16)
            except ValueError as error:
                raise WireViolation(f"not a chunk size: {head[:80]!r}") from error
            if len(rest) < size + 2:
                break
            payload, ending, self._rest = rest[:size], rest[size : size + 2], rest[size + 2 :]
            if ending != b"\r\n":
                raise WireViolation(f"a chunk that does not end where it said: {ending!r}")
            if size == 0:
                self.finished = True
            else:
                payloads.append(payload)
        return payloads
