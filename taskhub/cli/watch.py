"""`taskhub watch`: the event stream in a terminal."""

import argparse
import asyncio
import json
import os
import random
import stat
import sys
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final, TextIO

import aiohttp

from taskhub import server_file
from taskhub.cli.parser import load_settings
from taskhub.cli.sse import Frame, FrameReader
from taskhub.settings.model import Settings

SILENCE_S: Final = 90.0
"""A stream that says nothing for so long, heartbeats included, is dead."""
MAX_BACKOFF_S: Final = 15.0
LOOK_AGAIN_S: Final = 0.5
"""Between looks for a server that runs on the data directory."""
RETRYABLE: Final = frozenset({408, 429, 500, 502, 503, 504})


class Refused(Exception):
    """The server answered that these arguments or this key will never work."""


class NobodyReads(Exception):
    """Whoever read standard output has ended, such as `head`."""


def run(parsed: argparse.Namespace) -> int:
    """Follow the stream until it ends for good or Ctrl-C. Lost connections are taken up where they broke off."""
    settings = load_settings(parsed).settings
    try:
        return asyncio.run(_follow(_watcher(parsed, settings)))
    except Refused as refusal:
        print(f"taskhub: {refusal}", file=sys.stderr)
        return 1
    except NobodyReads:
        # What is still buffered has nowhere to go; without this, the interpreter complains when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


async def _follow(watcher: "Watcher") -> int:
    """Follow until the stream ends, or the reader of standard output does, even while nothing happens."""
    following = asyncio.create_task(watcher.follow())
    reader_ended = asyncio.create_task(_reader_ended())
    await asyncio.wait({following, reader_ended}, return_when=asyncio.FIRST_COMPLETED)
    if following.done():
        reader_ended.cancel()
        return following.result()
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    raise NobodyReads


async def _reader_ended() -> None:
    """Returns when standard output is a pipe that nobody reads any more; waits for ever when it is something else."""
    ended = asyncio.Event()
    descriptor = _pipe(sys.stdout)
    if descriptor is not None:
        # Nothing can be read from this end: the only thing to be told about it is that the other end was closed.
        asyncio.get_running_loop().add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        if descriptor is not None:
            asyncio.get_running_loop().remove_reader(descriptor)


def _pipe(stream: TextIO) -> int | None:
    try:
        descriptor = stream.fileno()
        return descriptor if stat.S_ISFIFO(os.fstat(descriptor).st_mode) else None
    except OSError:
        return None


def _watcher(parsed: argparse.Namespace, settings: Settings) -> "Watcher":
    def address() -> str | None:
        if parsed.url:
            return str(parsed.url)
        running = server_file.read(settings.data_dir)
        return running.url if running else None

    parameters = [_parameter(text) for text in parsed.filters]
    if parsed.since:
        parameters.append(("since", parsed.since))
    return Watcher(
        address,
        f"no server runs on {settings.data_dir}; `taskhub serve` starts one; waiting",
        parameters,
        {"x-api-key": settings.api_key.get_secret_value()} if settings.api_key else {},
        print_json if parsed.json else print_line,
        lambda text: print(f"# {text}", file=sys.stderr, flush=True),
    )


class Watcher:
    """One stream, over as many connections as it takes. `show` gets every event, `say` what happens to the stream.

    `address` is asked before each connection: a server that comes back may have another port. It answers None while no
    server runs, which `nowhere` says to people.
    """

    def __init__(
        self,
        address: Callable[[], str | None],
        nowhere: str,
        parameters: list[tuple[str, str]],
        headers: Mapping[str, str],
        show: Callable[[Mapping[str, Any]], None],
        say: Callable[[str], None],
    ) -> None:
        self._address = address
        self._nowhere = nowhere
        self._parameters = parameters
        self._headers = headers
        self._show = show
        self._say = say
        self._reader = FrameReader()
        self._failures = 0
        self._over = False
        self._last_trouble = ""

    async def follow(self) -> int:
        """Returns 0 when the server ended the stream for good. Raises Refused and NobodyReads."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=SILENCE_S)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            while True:
                address = self._address()
                if address is None:
                    self._trouble(self._nowhere)
                    await asyncio.sleep(LOOK_AGAIN_S)
                    continue
                try:
                    await self._connection(session, address)
                except (aiohttp.ClientError, TimeoutError, OSError) as error:
                    self._trouble(f"not connected to {address} ({_reason(error)}); trying again")
                    self._failures += 1
                if self._over:
                    return 0
                await asyncio.sleep(self._pause_s())

    def _trouble(self, text: str) -> None:
        """Say it once, however often it is tried."""
        if text != self._last_trouble:
            self._say(text)
        self._last_trouble = text

    async def _connection(self, session: aiohttp.ClientSession, address: str) -> None:
        self._reader.start()
        headers = {"Accept": "text/event-stream", **self._headers}
        if self._reader.last_id:
            headers["Last-Event-ID"] = self._reader.last_id
        async with session.get(f"{address}/events/stream", params=self._parameters, headers=headers) as response:
            if response.status in RETRYABLE:
                raise aiohttp.ClientError(f"the server answered {response.status}")
            if response.status != 200:
                raise Refused(await _problem(response))
            async for chunk in response.content.iter_any():
                for frame in self._reader.feed(chunk):
                    self._take(frame, address)

    def _take(self, frame: Frame, address: str) -> None:
        document = json.loads(frame.data)
        if frame.event == "hello":
            self._failures = 0
            self._last_trouble = ""
            self._say(f"connected to {address}, from {document['position']}")
        elif frame.event == "batch_update":
            for event in document["events"]:
                self._show(event)
        elif frame.event == "reset":
            self._say(_missed(document))
        elif frame.event == "notice":
            self._say(f"{document['code']}: {document['detail']}")
        elif frame.event == "goodbye":
            self._over = not document["reconnect"]
            self._say(f"goodbye: {document['reason']}")
        elif frame.event == "snapshot":
            for ticket in document["tickets"]:
                self._show({"type": "snapshot", "data": {"ticket": ticket}, "subject": ticket["key"]})
        elif "specversion" in document:
            self._show(document)

    def _pause_s(self) -> float:
        asked = (self._reader.retry_ms if self._reader.retry_ms is not None else 2000) / 1000
        backoff = min(MAX_BACKOFF_S, 2.0 ** min(self._failures, 10) / 2) if self._failures else 0.0
        return max(asked, backoff * random.uniform(0.5, 1.0))  # noqa: S311  # spread, not secrecy


def print_json(event: Mapping[str, Any]) -> None:
    """The event as it came, on one line. Raises NobodyReads."""
    _print(json.dumps(event, ensure_ascii=False, separators=(",", ":")))


def print_line(event: Mapping[str, Any]) -> None:
    """The event for people. Raises NobodyReads.

    Such as `18:03:12 user:alice TH-12 Printer is on fire · status_changed status: received → in_progress`.
    """
    data = event.get("data") or {}
    ticket = data.get("ticket") if isinstance(data, Mapping) else None
    parts = [_clock(event.get("time")), _value(event.get("actor")), _value(event.get("subject"))]
    if isinstance(ticket, Mapping):
        parts.append(_value(ticket.get("summary", "")))
    parts += ["·", str(event["type"]).removeprefix("ticket.")]
    if event.get("match") in ("enter", "leave"):
        parts.append(f"[{event['match']}]")
    if event["type"] == "snapshot" and isinstance(ticket, Mapping):
        parts += [f"{name}: {_value(ticket.get(name))}" for name in ("status", "assignee")]
    if isinstance(data, Mapping):
        changes = data.get("changes") or {}
        parts += [f"{name}: {_value(pair[0])} → {_value(pair[1])}" for name, pair in changes.items() if name != "phase"]
        if data.get("comment"):
            parts.append(f"“{_value(data['comment'])}”")
    if data and not isinstance(ticket, Mapping):
        parts.append(_value(json.dumps(data, ensure_ascii=False)))
    _print(" ".join(parts))


def _print(line: str) -> None:
    try:
        print(line, flush=True)
    except BrokenPipeError:
        raise NobodyReads from None


def _missed(reset: Mapping[str, Any]) -> str:
    """What a reset means for who watches: which events were not received."""
    why = {
        "expired": "they are no longer kept",
        "epoch_changed": "the log is another one now",
        "ahead": "the log does not reach so far",
        "invalid": "that is not a position of this log",
    }.get(reset["reason"], reset["reason"])
    requested, position = str(reset.get("requested", "")), str(reset["position"])
    epoch, _, first = requested.rpartition("-")
    now_epoch, _, last = position.rpartition("-")
    how_many = ""
    if epoch == now_epoch and first.isdecimal() and last.isdecimal() and int(last) > int(first):
        how_many = f" ({int(last) - int(first)} of all kinds)"
    return f"not received: the events after {requested}{how_many}, because {why}; going on from {position}"


def _parameter(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise Refused(f"{text!r} is not a filter; a filter looks like status=in_progress")
    return name, value


async def _problem(response: aiohttp.ClientResponse) -> str:
    """The problem document of an answer as one line."""
    try:
        problem = await response.json(content_type=None)
        return f"{response.status} {problem.get('title', '')}: {problem.get('detail', '')}"
    except (ValueError, AttributeError):
        return f"the server answered {response.status} {response.reason}"


def _reason(error: Exception) -> str:
    """Why there is no connection, in the system's words rather than those of a library."""
    if isinstance(error, aiohttp.ClientConnectorError):
        cause = error.os_error
        return os.strerror(cause.errno) if cause.errno and cause.errno > 0 else str(cause.strerror or cause)
    return str(error) or type(error).__name__


def _clock(time: str | None) -> str:
    return datetime.fromisoformat(time).astimezone().strftime("%H:%M:%S") if time else "--:--:--"


def _value(value: Any) -> str:
    """One short line without control characters: ticket texts are other people's, and this is a terminal."""
    if value is None:
        return "-"
    if isinstance(value, Mapping) and "percent" in value:
        value = f"{value['percent']} % {value.get('note') or ''}".strip()
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    clean = "".join(c if c.isprintable() else " " for c in text)
    return clean if len(clean) <= 80 else clean[:79] + "…"
