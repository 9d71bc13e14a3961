"""Errors of the authorization server.

OAuthError             told to the client, as its standards spell it: in JSON, or in the query of a redirect
UnsafeRequest          told to the person on a page alone: nobody knows where a redirect would lead
"""

from typing import Final, Literal

ErrorCode = Literal[
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "invalid_scope",
    "invalid_target",
    "unauthorized_client",
    "unsupported_grant_type",
    "unsupported_response_type",
    "access_denied",
    "temporarily_unavailable",
    "invalid_redirect_uri",
    "invalid_client_metadata",
]
"""RFC 6749 (4.1.2.1, 5.2), RFC 8707 (2), RFC 7591 (3.2.2)."""

_STATUS: Final[dict[ErrorCode, int]] = {"access_denied": 403, "temporarily_unavailable": 503}


class OAuthError(Exception):
    """What a client is told. `description` is printable ASCII without quotes and backslashes (RFC 6749, 5.2)."""

    def __init__(self, code: ErrorCode, description: str) -> None:
        super().__init__(description)
        self.code = code
        self.description = description

    @property
    def status(self) -> int:
        """Of an answer in JSON."""
        return _STATUS.get(self.code, 400)


Reason = Literal["client_id", "redirect_uri", "unknown_client", "document", "expired", "not_yours", "not_a_user"]


class UnsafeRequest(Exception):
    """A request that leads nowhere one may be sent. `reason` is a word that pages have sentences for."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
