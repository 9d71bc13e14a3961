"""Traces across programs: the context that comes with a request (W3C Trace Context), and goes on with what it causes.

It is in the log lines of the request, in the events that it writes, and in the requests that follow from it. Where an
OpenTelemetry SDK is set up, spans are made through its API besides; where none is, that API is not even imported.
"""

import random
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

TRACEPARENT: Final = "traceparent"
TRACESTATE: Final = "tracestate"
MAX_STATE_BYTES: Final = 512
MAX_STATE_MEMBERS: Final = 32

# Version 00, and as much of later ones as is promised to stay (sections 3.2.2 and 3.2.4).
_TRACEPARENT: Final = re.compile(
    r"(?!ff)(?P<version>[0-9a-f]{2})-(?!0{32})(?P<trace>[0-9a-f]{32})-(?!0{16})(?P<span>[0-9a-f]{16})-"
    r"(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)
_KEY: Final = r"[a-z0-9][a-z0-9_\-*/]{0,255}(?:@[a-z][a-z0-9_\-*/]{0,13})?"
_MEMBER: Final = re.compile(rf"{_KEY}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{{0,255}}[\x21-\x2b\x2d-\x3c\x3e-\x7e]")


@dataclass(frozen=True, slots=True)
class Trace:
    """A place in a trace: ids in lower-case hexadecimal, the flags, and what others put beside them (`tracestate`)."""

    trace_id: str
    span_id: str
    flags: int = 0
    state: str = ""

    @property
    def traceparent(self) -> str:
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"

    def child(self) -> "Trace":
        """A new place below this one."""
        span_id = f"{random.getrandbits(64) or 1:016x}"  # tells spans apart, guards nothing
        return Trace(self.trace_id, span_id, self.flags, self.state)

    @property
    def headers(self) -> dict[str, str]:
        """What a request carries that is made from this place."""
        return {TRACEPARENT: self.traceparent} | ({TRACESTATE: self.state} if self.state else {})

    @classmethod
    def parse(cls, traceparent: Sequence[str], tracestate: Sequence[str] = ()) -> "Trace | None":
        """What the headers of these names say; None for anything but one `traceparent` that is well formed.

        A `tracestate` that is not is left out, and the rest counts (section 3.3).
        """
        if len(traceparent) != 1 or (found := _TRACEPARENT.fullmatch(traceparent[0].strip())) is None:
            return None
        if found["version"] == "00" and found["more"]:
            return None
        # Of the flags, those that are defined: sampled, and that the trace id is random.
        return cls(found["trace"], found["span"], int(found["flags"], 16) & 3, _state(",".join(tracestate)))


CURRENT: Final[ContextVar[Trace | None]] = ContextVar("taskhub_trace", default=None)
"""This process's own place in the trace of the request at hand; None where it came without one."""


def traceparent() -> str | None:
    """The current place, as what is written by a request carries it."""
    current = CURRENT.get()
    return None if current is None else current.traceparent


@contextmanager
def request_span(name: str, came: Trace | None, attributes: Mapping[str, Any]) -> Iterator[Any]:
    """A request that came from the place `came`: inside, CURRENT is a place of its own below that. Yields the span,
    None without an SDK."""
    if (tracer := _tracer()) is None:
        CURRENT.set(None if came is None else came.child())
        yield None
        return
    from opentelemetry import trace

    parent = trace.set_span_in_context(trace.NonRecordingSpan(_context_of(came))) if came is not None else None
    kind = trace.SpanKind.SERVER
    with tracer.start_as_current_span(name, parent, kind=kind, attributes=dict(attributes)) as span:
        # Where the SDK was not told to record anything, its spans are those that came.
        recording = span.is_recording()
        CURRENT.set(_trace_of(span) if recording else None if came is None else came.child())
        yield span


def span(name: str) -> AbstractContextManager[Any]:
    """A span below the current one, if any, where there is an SDK."""
    return _NOTHING if (tracer := _tracer()) is None else tracer.start_as_current_span(name)


def span_of_part(name: str) -> AbstractContextManager[Any]:
    """A span below the current one, where there is one: what runs by itself every second would be a trace each time."""
    if (tracer := _tracer()) is None:
        return _NOTHING
    from opentelemetry.trace import get_current_span

    return tracer.start_as_current_span(name) if get_current_span().get_span_context().is_valid else _NOTHING


def record(name: str, seconds: float, **attributes: str | int) -> None:
    """A span of its own that has just ended and took so long."""
    if (tracer := _tracer()) is not None:
        from opentelemetry.context import Context

        ended = time.time_ns()
        began = ended - int(seconds * 1e9)
        tracer.start_span(name, Context(), attributes=attributes, start_time=began).end(ended)


def sdk_loaded() -> bool:
    """Whether there is an OpenTelemetry SDK: whoever wants spans has set it up, as `opentelemetry-instrument` does,
    before there is anything to make spans of."""
    return "opentelemetry.sdk.trace" in sys.modules


def _tracer() -> "Tracer | None":
    if not sdk_loaded():
        return None
    from opentelemetry.trace import get_tracer

    return get_tracer("taskhub")


_NOTHING: Final = nullcontext()


def _state(text: str) -> str:
    members = [member.strip() for member in text.split(",") if member.strip()]
    if len(text) > MAX_STATE_BYTES or len(members) > MAX_STATE_MEMBERS:
        return ""
    return ",".join(members) if all(map(_MEMBER.fullmatch, members)) else ""


def _context_of(came: Trace) -> Any:
    from opentelemetry.trace import SpanContext, TraceFlags
    from opentelemetry.trace.span import TraceState

    state = TraceState.from_header([came.state]) if came.state else None
    return SpanContext(int(came.trace_id, 16), int(came.span_id, 16), True, TraceFlags(came.flags), state)


def _trace_of(span: Any) -> Trace:
    context = span.get_span_context()
    state = context.trace_state.to_header()
    return Trace(f"{context.trace_id:032x}", f"{context.span_id:016x}", int(context.trace_flags), state)
