"""The limits of one process: streams at a time, new streams, changes, wrong credentials.

Each is asked before anything that costs: before the body is read, and before the database.
"""

import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from broadcaster.stream import StreamRefused
from taskhub.auth.principal import Principal
from taskhub.limits.failures import Failures
from taskhub.limits.insisting import Insisting
from taskhub.rates import Allowance, Rate, household
from taskhub.settings.addresses import is_loopback
from taskhub.settings.model import Settings
from taskhub.settings.server import PREFIX
from taskhub.tickets.errors import RateLimited

STREAMS_PER_PRINCIPAL: Final = 50
NEW_STREAMS_PER_S: Final = 200
NEW_STREAMS_PER_S_UNAUTHENTICATED: Final = 2000
WRITES_PER_S: Final = 20
NEW_STREAMS: Final = f"{PREFIX}SSE_NEW_STREAMS_PER_S"
"""The limit that all callers of a process have together."""
FULL_RETRY_S: Final = 5.0
"""When to come again where streams have to end first; on average."""
MOST_RETRY_S: Final = 60.0


class TooManyStreams(StreamRefused):
    """A limit of streams, other than what the process can hold; `setting` is its name."""

    def __init__(self, detail: str, setting: str, retry_s: float) -> None:
        super().__init__("limit", detail, int(1000 * retry_s))
        self.setting = setting


class Place:
    """One open stream of a caller. `leave` it at its end; more than once does nothing."""

    __slots__ = ("_held", "_keys")

    def __init__(self, held: Counter[str], keys: tuple[str, ...]) -> None:
        self._held = held
        self._keys = keys
        held.update(keys)

    def leave(self) -> None:
        for key in self._keys:
            self._held[key] -= 1
            if not self._held[key]:
                del self._held[key]
        self._keys = ()


class Limits:
    """What callers may have of this process. None stands for no limit.

    `refused` counts by setting, in lower case, how often each has kept somebody out.
    """

    def __init__(
        self,
        *,
        streams_per_principal: int | None = None,
        streams_per_address: int | None = None,
        new_streams_per_s: float | None = None,
        writes_per_s: float | None = None,
        write_burst: int = 1,
        auth_failures_per_min: float | None = None,
        oauth_requests_per_min: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._per_principal = streams_per_principal
        self._per_address = streams_per_address
        self._new_streams = (
            None if new_streams_per_s is None else Rate(new_streams_per_s, int(new_streams_per_s), clock=clock)
        )
        self._write_allowance = None if writes_per_s is None else Allowance(writes_per_s, write_burst)
        self._write_burst = write_burst
        self._writes = Rate(1, 1, clock=clock)  # each asks with the allowance that it has
        self._failures = None if auth_failures_per_min is None else Failures(auth_failures_per_min, clock=clock)
        per_min = oauth_requests_per_min
        self._oauth = None if per_min is None else Rate(per_min / 60, max(1, int(per_min)), clock=clock)
        self._held: Counter[str] = Counter()
        self._turn_at = 0.0
        """For when the last of those that were refused a new stream was told to come again."""
        self.refused: Counter[str] = Counter()
        self.insisting = Insisting(clock=clock)
        """Those who were refused too often by what they were told."""

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        """Without authentication every caller is the operator of this machine, whom a limit only counts for when it is
        set."""
        trusting = settings.auth_mode == "none"
        new_streams = NEW_STREAMS_PER_S_UNAUTHENTICATED if trusting else NEW_STREAMS_PER_S
        return cls(
            streams_per_principal=_limit(
                settings.sse_max_streams_per_principal, None if trusting else STREAMS_PER_PRINCIPAL
            ),
            streams_per_address=settings.sse_max_streams_per_address or None,
            new_streams_per_s=_limit(settings.sse_new_streams_per_s, new_streams),
            writes_per_s=_limit(settings.writes_per_s, None if trusting else WRITES_PER_S),
            write_burst=settings.write_burst,
            auth_failures_per_min=settings.auth_failures_per_min or None,
            oauth_requests_per_min=settings.oauth_requests_per_min or None,
        )

    def write(self, principal: Principal) -> None:
        """Somebody is about to change something. Raises RateLimited."""
        allowance = self._to_write(principal)
        if allowance is None or not (wait_s := self._writes.take(account_of(principal), allowance)):
            return
        text = f"{_whose(principal)} may make {allowance.per_s:g} changes a second, and {allowance.burst} at once"
        raise self._limited(text, "writes_per_s", wait_s)

    def may_write(self, principal: Principal) -> bool:
        """Whether somebody may change something now."""
        allowance = self._to_write(principal)
        return allowance is None or not self._writes.wait_s(account_of(principal), allowance)

    def _to_write(self, principal: Principal) -> Allowance | None:
        """What somebody may change; None for as much as it likes."""
        own = principal.limits
        if own is None or (own.writes_per_s is None and own.write_burst is None):
            return self._write_allowance
        usual = self._write_allowance
        per_s = own.writes_per_s if own.writes_per_s is not None else usual.per_s if usual is not None else 0
        return Allowance(per_s, own.write_burst or self._write_burst) if per_s else None

    def oauth(self, address: str) -> None:
        """A client that nobody has let in asks the authorization server for something. Raises RateLimited."""
        if self._oauth is None or not (wait_s := self._oauth.take(household(address))):
            return
        raise self._limited(
            f"{address[:60]} may ask the authorization server {self._oauth.burst} times a minute",
            "oauth_requests_per_min",
            wait_s,
        )

    def check_failures(self, address: str, presented: str) -> None:
        """Somebody presents a credential. Raises RateLimited where too many were wrong."""
        if self._failures is None or not (wait_s := self._failures.refused(address, presented)):
            return
        raise self._limited(
            f"too many wrong credentials came from {address[:60]}; {self._failures.per_min:g} a minute are looked at",
            "auth_failures_per_min",
            wait_s,
        )

    def failed(self, address: str) -> None:
        """A credential that was looked at was wrong."""
        if self._failures is not None:
            self._failures.failed(address)

    def succeeded(self, presented: str) -> None:
        """A credential was good."""
        if self._failures is not None:
            self._failures.succeeded(presented)

    def check_new_stream(self) -> None:
        """A stream is about to be opened by somebody who is not known yet. Raises TooManyStreams."""
        if self._new_streams is not None and (wait_s := self._new_streams.wait_s()):
            raise self._too_many_new(self._new_streams, wait_s)

    def stream(self, principal: Principal, address: str | None) -> Place:
        """A stream is opened. Raises TooManyStreams."""
        account = account_of(principal)
        if not self.may_open(principal):
            text = f"{_whose(principal)} has {self._most_streams(principal)} streams open, which is all it may have"
            raise self._too_many(text, "sse_max_streams_per_principal")
        keys = [account]
        # Who comes from this machine without authentication is its operator.
        if self._per_address is not None and not principal.authenticated and address and not is_loopback(address):
            keys.append(f"@{address}")
            if self._held[keys[-1]] >= self._per_address:
                text = f"{self._per_address} streams are open from {address}, which is all it may have"
                raise self._too_many(text, "sse_max_streams_per_address")
        if self._new_streams is not None and (wait_s := self._new_streams.take()):
            raise self._too_many_new(self._new_streams, wait_s)
        return Place(self._held, tuple(keys))

    def may_open(self, principal: Principal) -> bool:
        """Whether somebody has fewer streams than it may have."""
        most = self._most_streams(principal)
        return most is None or self._held[account_of(principal)] < most

    def _most_streams(self, principal: Principal) -> int | None:
        if principal.limits is None or principal.limits.streams is None:
            return self._per_principal
        return principal.limits.streams or None

    def _limited(self, limit: str, setting: str, wait_s: float) -> RateLimited:
        self.refused[setting] += 1
        return RateLimited(limit, PREFIX + setting.upper(), max(0.1, round(wait_s, 1)))

    def _too_many(self, text: str, setting: str) -> TooManyStreams:
        self.refused[setting] += 1
        retry_s = FULL_RETRY_S * random.uniform(0.5, 1.5)  # noqa: S311  # keeps clients apart, guards nothing
        return TooManyStreams(f"{text} ({PREFIX}{setting.upper()})", PREFIX + setting.upper(), retry_s)

    def _too_many_new(self, rate: Rate, wait_s: float) -> TooManyStreams:
        """Each that is refused is told a later moment, so that they come back as fast as they can be taken, and not all
        together again and again."""
        self.refused["sse_new_streams_per_s"] += 1
        now = self._clock()
        self._turn_at = max(now + wait_s, self._turn_at + 1 / rate.per_s)
        text = f"{rate.per_s:g} streams may be opened a second, and more are being opened ({NEW_STREAMS})"
        return TooManyStreams(text, NEW_STREAMS, min(MOST_RETRY_S, self._turn_at - now))


def _limit(given: float | None, default: float | None) -> Any:
    """The setting, where it was given: 0 is no limit."""
    return default if given is None else given or None


def account_of(principal: Principal) -> str:
    """Who is counted: all that go by names of their own behind one credential are one."""
    return f"{principal.workspace}/{principal.credential or principal.owner or principal.actor}"


def _whose(principal: Principal) -> str:
    return f"the credential of {principal.owner or principal.actor}"
