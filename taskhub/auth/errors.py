"""Errors of authentication and authorisation.

AuthError
├── Unauthenticated    no credential, or one that is not valid
│   └── InvalidToken   an access token that is not good here
└── Forbidden          a valid credential without the scope that the action needs
"""


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


class Forbidden(AuthError):
    """The principal lacks `scope`."""

    def __init__(self, scope: str) -> None:
        super().__init__(f"this needs the scope {scope}")
        self.scope = scope
