"""What is checked of every request before its work begins: the caller's scope, and its idempotency key."""

from typing import Final

from pydantic import TypeAdapter, ValidationError

from taskhub.auth.errors import Forbidden
from taskhub.auth.principal import Caller, Scope
from taskhub.tickets.errors import InputProblem, InvalidInput
from taskhub.tickets.inputs import IdempotencyKey

_KEY: Final[TypeAdapter[str]] = TypeAdapter(IdempotencyKey)


def require(caller: Caller, scope: Scope) -> None:
    """Raise Forbidden unless the caller has the scope."""
    if scope not in caller.principal.scopes:
        raise Forbidden(scope)


def checked_key(key: str) -> str:
    """An idempotency key as it may be stored. Raises InvalidInput."""
    try:
        return _KEY.validate_python(key)
    except ValidationError:
        raise InvalidInput([InputProblem("/idempotency_key", "must be 1 to 200 visible ASCII characters")]) from None
