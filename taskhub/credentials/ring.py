"""The credentials in use: judged again when anything about them has changed, with what was opened by them.

Reading the database for each request would double what many of them cost, and a credential that was read and kept could
be revoked meanwhile. So what is kept is good only as long as the version of all credentials is, and that is looked at
in every poll interval; whoever revokes one tells the other instances at once besides.

Credentials are of several kinds, each with a store of its own. Their secrets and their ids begin with what tells the
kinds apart.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Final, Literal, Protocol

from taskhub.auth.principal import Principal, Scope
from taskhub.auth.secret import digest
from taskhub.credentials.holder import Holder
from taskhub.credentials.version import CredentialsVersion
from taskhub.storage.times import Clock, to_text, utc_now

MAX_KEPT: Final = 10_000
WARNING: Final = timedelta(seconds=60)
"""How long before its credential ends a stream is told so."""
NOTE_USE_EVERY_S: Final = 60.0

Ending = Literal["revoked", "auth_expired"]


class CredentialStore(Protocol):
    """Credentials of one kind. Each method raises StorageBusy."""

    secret_prefix: str
    """What the secrets of this kind begin with, such as `thk_`, and those of no other."""
    id_prefix: str
    """What their ids begin with, such as `key_`."""

    async def holder(self, secret: str) -> Holder | None:
        """Who has a credential, if it is good now."""

    async def holders(self, ids: Collection[str]) -> Mapping[str, Holder]:
        """The holders of those of the credentials that are not revoked, by id; they may have expired."""

    async def used(self, ids: Collection[str]) -> None:
        """Note that credentials were used about now."""


class Opened(Protocol):
    """What stays open after the request that opened it: streams of a kind."""

    def credentials(self) -> Collection[str]:
        """The ids of the credentials by which something is open."""

    def warn_opened_by(self, credentials: Collection[str]) -> None:
        """Tell what was opened by these credentials, once, that it will end within a minute."""

    def end_opened_by(self, credentials: Collection[str], why: Ending) -> None:
        """End what was opened by these credentials."""


class CredentialRing:
    """Knows the holders of credentials (a Holders), and ends what is open when its credential is over.

    Call `look` in every poll interval, and at once when credentials have changed. When the database cannot be read for
    `trust_s`, no stored credential opens anything any more; what is open stays so. `on_scopes_changed` gets those in
    use that may more or less than before.
    """

    def __init__(
        self,
        version: Callable[[], Awaitable[CredentialsVersion]],
        stores: Sequence[CredentialStore],
        opened: Sequence[Opened] = (),
        *,
        trust_s: float,
        on_scopes_changed: Callable[[Collection[str]], None] = lambda credentials: None,
        clock: Clock = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read_version = version
        self._stores = stores
        self._opened = opened
        self._trust_s = trust_s
        self._on_scopes_changed = on_scopes_changed
        self._clock = clock
        self._monotonic = monotonic
        self._version: CredentialsVersion | None = None
        self._trusted_until = 0.0
        self._looking = asyncio.Lock()
        self._kept: OrderedDict[str, Holder] = OrderedDict()
        """By digest: the secrets themselves are kept nowhere."""
        self._of_open: dict[str, Holder] = {}
        self._known_scopes: dict[str, frozenset[Scope]] = {}
        """What those who hold credentials in use think that they may do."""
        self._used: set[str] = set()
        self._note_use_at = 0.0

    async def holder(self, secret: str) -> Principal | None:
        """Whose credential this is, if it is good. Raises StorageBusy."""
        store = next((store for store in self._stores if secret.startswith(store.secret_prefix)), None)
        if store is None:
            return None
        if not self._trusted():
            async with self._looking:
                if not self._trusted():  # whoever held the lock may have looked
                    await self._look()
        version, kept_as = self._version, digest(secret)
        holder = self._kept.get(kept_as)
        # The use of a credential may have put its end off since it was read.
        if holder is None or self._over(holder):
            holder = await store.holder(secret)
            if holder is None:
                return None
            if version is self._version:  # else it may have been read before what has changed since
                self._keep(kept_as, holder)
        else:
            self._kept.move_to_end(kept_as)
        if holder.principal.credential is not None:
            self._used.add(holder.principal.credential)
            self._known_scopes.setdefault(holder.principal.credential, holder.principal.scopes)
        return holder.principal

    async def holder_of(self, credential: str) -> Holder | None:
        """Who has the credential of this id, if it is good: for what was derived from it. Raises StorageBusy."""
        holder = (await self._holders((credential,))).get(credential)
        return None if holder is None or self._over(holder) else holder

    def scopes_of(self, credential: str) -> frozenset[Scope] | None:
        """What a credential in use may do, as it was judged last; None before that."""
        return self._known_scopes.get(credential)

    async def look(self) -> None:
        """Judge what is kept and what is open anew, where anything has changed. Raises StorageBusy."""
        async with self._looking:
            await self._look()
        await self._note_use()

    def _trusted(self) -> bool:
        return self._monotonic() < self._trusted_until

    async def _look(self) -> None:
        asked_at = self._monotonic()
        version = await self._read_version()
        if version != self._version:
            self._version = version
            self._kept.clear()
            self._of_open.clear()
        # From when it was asked: an answer that took long is as old as the question.
        self._trusted_until = asked_at + self._trust_s
        await self._judge_open()

    async def _judge_open(self) -> None:
        by_kind = [(kind, set(kind.credentials())) for kind in self._opened]
        in_use: set[str] = set().union(*(ids for _, ids in by_kind))
        # Those that are about to end are read again each time: their use may have put that off.
        kept = {
            each: holder for each, holder in self._of_open.items() if each in in_use and not self._ends_soon(holder)
        }
        self._of_open = kept | await self._holders(in_use - kept.keys())
        known, self._known_scopes = self._known_scopes, {}
        for each, holder in self._of_open.items():
            self._known_scopes[each] = holder.principal.scopes
        if changed := [each for each, scopes in self._known_scopes.items() if known.get(each, scopes) != scopes]:
            self._on_scopes_changed(changed)
        revoked = in_use - self._of_open.keys()
        if revoked:
            # One may be over since the version was read. Whoever is told so must not be let in a moment later.
            kept_on = (item for item in self._kept.items() if item[1].principal.credential not in revoked)
            self._kept = OrderedDict(kept_on)
        expired = {each for each in in_use - revoked if self._over(self._of_open[each])}
        soon = {each for each in in_use - revoked - expired if self._ends_soon(self._of_open[each])}
        for kind, ids in by_kind:
            if ids & soon:
                kind.warn_opened_by(ids & soon)
            if ids & expired:
                kind.end_opened_by(ids & expired, "auth_expired")
            if ids & revoked:
                kind.end_opened_by(ids & revoked, "revoked")

    async def _holders(self, ids: Collection[str]) -> dict[str, Holder]:
        found: dict[str, Holder] = {}
        for store in self._stores:
            if own := [each for each in ids if each.startswith(store.id_prefix)]:
                found.update(await store.holders(own))
        return found

    def _ends_soon(self, holder: Holder) -> bool:
        return self._over(holder, within=WARNING)

    def _over(self, holder: Holder, *, within: timedelta = timedelta(0)) -> bool:
        return holder.expires_at is not None and holder.expires_at <= to_text(self._clock() + within)

    def _keep(self, kept_as: str, holder: Holder) -> None:
        self._kept[kept_as] = holder
        self._kept.move_to_end(kept_as)
        if len(self._kept) > MAX_KEPT:
            self._kept.popitem(last=False)

    async def _note_use(self) -> None:
        if not self._used or self._monotonic() < self._note_use_at:
            return
        used, self._used = self._used, set()
        self._note_use_at = self._monotonic() + NOTE_USE_EVERY_S
        for store in self._stores:
            if own := [each for each in used if each.startswith(store.id_prefix)]:
                await store.used(own)
