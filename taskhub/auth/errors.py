"""Errors of authentication and authorisation.

AuthError
├── Unauthenticated    no credential, or one that is not valid
│   └── InvalidToken   an access token that is not good here
├── KeysUnavailable    nobody can say at the moment what an access token is worth
├── UnknownSubject     an access token that is good, of somebody who is no user
└── Forbidden          a valid credential without the scope that the action needs
"""

from collections.abc import Iterable


class AuthError(Exception):
    """Base of this tree."""


class Unauthenticated(AuthError):
    """No credential, or one that is not valid. The message never repeats what was sent, and `reason` is for
    the audit log."""

    def __init__(self, message: str, reason: str = "no credential") -> None:
        super().__init__(message)
        self.reason = reason


class InvalidToken(Unauthenticated):
    """An access token that is not good here. Its sender is told that alone; `reason` is for the log."""

    def __init__(self, reason: str) -> None:
        super().__init__("the access token is not valid")
        self.reason = reason


class KeysUnavailable(AuthError):
    """The keys of the issuer cannot be had at the moment, so nobody can say what a token is worth."""

    def __init__(self, reason: str) -> None:
        super().__init__("access tokens cannot be checked now: the keys of their issuer cannot be read")
        self.reason = reason
        """For the log."""


class UnknownSubject(AuthError):
    """The access token is good, but the `claim` of it names no user who is active. Another token would not help."""

    def __init__(self, claim: str) -> None:
        super().__init__(
            f"the access token is valid, but no user here is who its {claim} names; an operator can make one"
        )
        self.claim = claim
        self.reason = f"nobody is who its {claim} names"


class Forbidden(AuthError):
    """The principal lacks `scope`; `needed` are all scopes that the action takes."""

    def __init__(self, scope: str, needed: Iterable[str] = ()) -> None:
        super().__init__(f"this needs the scope {scope}")
        self.scope = scope
        self.needed = tuple(needed) or (scope,)
