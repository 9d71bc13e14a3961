"""Sessions as those who have them see them, and what is sent to get one."""

import unicodedata
from dataclasses import dataclass
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, StringConstraints, model_validator

MIN_PASSWORD: Final = 12
MAX_PASSWORD: Final = 256

SignedInBy = Literal["password", "link", "openid"]


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody's being signed in, in one browser. It ends at `ends_at` unless it is used before (`last_used_at` is true
    to a minute or so), and at `expires_at` at the latest; times are RFC 3339, in UTC. `current`: the one that asks."""

    id: str
    by: SignedInBy
    user_agent: str
    created_at: str
    last_used_at: str
    ends_at: str
    expires_at: str
    current: bool


@dataclass(frozen=True, slots=True)
class SignedIn:
    """Who is signed in. `user` is an id, `name` what people call it; `has_password`: whether it can sign in without a
    link."""

    actor: str
    user: str
    name: str
    has_password: bool
    session: Session


@dataclass(frozen=True, slots=True)
class Opened:
    """A new session. `secret` is what a browser keeps in its cookie, and is kept nowhere else."""

    secret: str
    signed_in: SignedIn


@dataclass(frozen=True, slots=True)
class Visitor:
    """Whose browser asks. `replacing`: the secret of the session that it had before, which ends with a new one."""

    address: str | None = None
    user_agent: str = ""
    replacing: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class SignInLink:
    """A new link, of which `secret` is the part that opens something: once, until `expires_at`."""

    secret: str
    user: str
    expires_at: str


def _one_spelling(password: SecretStr) -> SecretStr:
    """The same letters come composed or not, depending on the keyboard (NIST SP 800-63B, 3.1.1.2)."""
    text = unicodedata.normalize("NFKC", password.get_secret_value())
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("has characters that no keyboard makes") from None
    return SecretStr(text)


Password = Annotated[SecretStr, Field(min_length=1, max_length=MAX_PASSWORD), AfterValidator(_one_spelling)]
_NewPassword = Annotated[
    SecretStr, Field(min_length=MIN_PASSWORD, max_length=MAX_PASSWORD), AfterValidator(_one_spelling)
]
_Input: Final = ConfigDict(extra="forbid", frozen=True)


class SignInRequest(BaseModel):
    """Either `name` and `password`, or `link`, which knows its workspace."""

    model_config = _Input

    name: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=200)] | None = Field(
        None, description="of the user, or its id"
    )
    password: Password | None = None
    workspace: Annotated[str, StringConstraints(min_length=1, max_length=40)] | None = Field(
        None, description="of that name; when absent, `default`"
    )
    link: Annotated[SecretStr, Field(min_length=1, max_length=200)] | None = Field(
        None, description="what stands behind `#link=` in a sign-in link"
    )

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        named = (self.name, self.password, self.workspace)
        if named != (None, None, None) if self.link is not None else None in named[:2]:
            raise ValueError("needs name and password, or link")
        return self


class NewPassword(BaseModel):
    model_config = _Input

    password: _NewPassword
    current_password: Password | None = Field(
        None,
        description="needed by who has a password, unless the session began with a sign-in link a quarter of an hour "
        "ago or less",
    )
