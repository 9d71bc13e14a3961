"""Errors of signing in.

AuthError
├── SignInRefused      the name or the password is wrong, or the link is over
├── TooManyAttempts    somebody tries too often
├── OpenIdRefused      an OpenID provider, or what it says of somebody, lets nobody in
├── NoSession          what needs a session was asked by a caller without one
└── SessionNotFound    no such session of this user
"""

import math
from typing import Final, Literal

from taskhub.auth.errors import AuthError

WRONG_PASSWORD: Final = "the name or the password is wrong, or this user has no password"  # noqa: S105  # says so
LINK_OVER: Final = "this link was used before, has ended, or never was one: ask for a new one"


class SignInRefused(AuthError):
    """The message is the same whatever it was that did not fit."""


class TooManyAttempts(AuthError):
    """Somebody tries too often; `wait_s`: whole seconds until it may be tried again."""

    def __init__(self, wait_s: float) -> None:
        self.wait_s = max(1, math.ceil(wait_s))
        super().__init__(f"too many attempts to sign in; try again in {self.wait_s} s")


OpenIdTrouble = Literal["declined", "expired", "refused", "unavailable", "unverified", "domain", "unknown"]
"""What a person is told: they did not agree; the sign-in took too long or is another browser's; the provider's answer
is not good; the provider is away; it has verified no address of theirs; their address is none of the allowed ones;
nobody here is who they are."""


class OpenIdRefused(AuthError):
    """`reason` is for the log, and has words of the provider in it."""

    def __init__(self, trouble: OpenIdTrouble, reason: str) -> None:
        super().__init__(f"signing in through the provider failed: {trouble}")
        self.trouble: OpenIdTrouble = trouble
        self.reason = reason


class NoSession(AuthError):
    """The caller came with something else, such as an API key."""

    def __init__(self) -> None:
        super().__init__("this is about a session, and you came without one; GET /api/v1/me tells who you are")


class SessionNotFound(AuthError):
    """No such session of this user, or it is over."""

    def __init__(self, session_id: str) -> None:
        super().__init__(f"you have no session {session_id[:80]}")
