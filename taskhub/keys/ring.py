"""The keys in use: judged again when anything about keys has changed, with what was opened by them.

Reading the database for each request would double what many of them cost, and a key that was read and kept could be
revoked meanwhile. So what is kept is good only as long as the version of all credentials is, and that is looked at in
every poll interval; whoever revokes a key tells the other instances at once besides.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from typing import Final, Literal, Protocol

from taskhub.auth.api_keys import digest
from taskhub.auth.principal import Principal, Scope
from taskhub.keys.model import Holder
from taskhub.keys.store import CredentialsVersion, KeyStore
from taskhub.storage.times import Clock, to_text, utc_now

MAX_KEPT: Final = 10_000
WARNING: Final = timedelta(seconds=60)
"""How long before its key ends a stream is told so."""
NOTE_USE_EVERY_S: Final = 60.0

Ending = Literal["revoked", "auth_expired"]


class Opened(Protocol):
    """What stays open after the request that opened it: streams of a kind."""

    def credentials(self) -> Collection[str]:
        """The ids of the keys by which something is open."""

    def warn_opened_by(self, credentials: Collection[str]) -> None:
        """Tell what was opened by these keys, once, that it will end within a minute."""

    def end_opened_by(self, credentials: Collection[str], why: Ending) -> None:
        """End what was opened by these keys."""


class KeyRing:
    """Knows the holders of keys (a KeyHolders), and ends what is open when its key is over.

    Call `look` in every poll interval, and at once when keys have changed. When the database cannot be read for
    `trust_s`, no stored key opens anything any more; what is open stays so. `on_scopes_changed` gets the keys in use
    that may more or less than before.
    """

    def __init__(
        self,
        store: KeyStore,
        opened: Sequence[Opened] = (),
        *,
        trust_s: float,
        on_scopes_changed: Callable[[Collection[str]], None] = lambda credentials: None,
        clock: Clock = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._opened = opened
        self._trust_s = trust_s
        self._on_scopes_changed = on_scopes_changed
        self._clock = clock
        self._monotonic = monotonic
        self._version: CredentialsVersion | None = None
        self._trusted_until = 0.0
        self._looking = asyncio.Lock()
        self._kept: OrderedDict[str, Holder] = OrderedDict()
        """By digest: the keys themselves are kept nowhere."""
        self._of_open: dict[str, Holder] = {}
        self._known_scopes: dict[str, frozenset[Scope]] = {}
        """What those who hold keys in use think that they may do."""
        self._used: set[str] = set()
        self._note_use_at = 0.0

    async def holder(self, secret: str) -> Principal | None:
        """Whose key this is, if it is good. Raises StorageBusy."""
        if not self._trusted():
            async with self._looking:
                if not self._trusted():  # whoever held the lock may have looked
                    await self._look()
        version, kept_as = self._version, digest(secret)
        holder = self._kept.get(kept_as)
        if holder is None:
            holder = await self._store.holder(secret)
            if holder is None:
                return None
            if version is self._version:  # else it may have been read before what has changed since
                self._keep(kept_as, holder)
        elif self._over(holder):
            return None
        else:
            self._kept.move_to_end(kept_as)
        if holder.principal.credential is not None:
            self._used.add(holder.principal.credential)
            self._known_scopes.setdefault(holder.principal.credential, holder.principal.scopes)
        return holder.principal

    async def look(self) -> None:
        """Judge what is kept and what is open anew, where anything has changed. Raises StorageBusy."""
        async with self._looking:
            await self._look()
        await self._note_use()

    def _trusted(self) -> bool:
        return self._monotonic() < self._trusted_until

    async def _look(self) -> None:
        asked_at = self._monotonic()
        version = await self._store.version()
        if version != self._version:
            self._version = version
            self._kept.clear()
            self._of_open.clear()
        # From when it was asked: an answer that took long is as old as the question.
        self._trusted_until = asked_at + self._trust_s
        await self._judge_open()

    async def _judge_open(self) -> None:
        by_kind = [(kind, set(kind.credentials())) for kind in self._opened]
        in_use: set[str] = set().union(*(keys for _, keys in by_kind))
        self._of_open = {key: holder for key, holder in self._of_open.items() if key in in_use}
        if unknown := in_use - self._of_open.keys():
            self._of_open.update(await self._store.holders(unknown))
        known, self._known_scopes = self._known_scopes, {}
        for key, holder in self._of_open.items():
            self._known_scopes[key] = holder.principal.scopes
        if changed := [key for key, scopes in self._known_scopes.items() if known.get(key, scopes) != scopes]:
            self._on_scopes_changed(changed)
        revoked = in_use - self._of_open.keys()
        expired = {key for key in in_use - revoked if self._over(self._of_open[key])}
        soon = {key for key in in_use - revoked - expired if self._over(self._of_open[key], within=WARNING)}
        for kind, keys in by_kind:
            if keys & soon:
                kind.warn_opened_by(keys & soon)
            if keys & expired:
                kind.end_opened_by(keys & expired, "auth_expired")
            if keys & revoked:
                kind.end_opened_by(keys & revoked, "revoked")

    def _over(self, holder: Holder, *, within: timedelta = timedelta(0)) -> bool:
        return holder.expires_at is not None and holder.expires_at <= to_text(self._clock() + within)

    def _keep(self, kept_as: str, holder: Holder) -> None:
        self._kept[kept_as] = holder
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)

    async def _note_use(self) -> None:
        if not self._used or self._monotonic() < self._note_use_at:
            return
        used, self._used = self._used, set()
        self._note_use_at = self._monotonic() + NOTE_USE_EVERY_S
        await self._store.used(used)
