"""The settings about an OpenID provider."""

import re
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, SecretStr

from taskhub.settings.addresses import Issuer
from taskhub.settings.server import ServerSettings
from taskhub.settings.values import ManyOf, OrNone

GOOGLE: Final = "https://accounts.google.com"

_DOMAIN: Final = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+")


def _domains(value: tuple[str, ...]) -> tuple[str, ...]:
    for domain in value:
        if not _DOMAIN.fullmatch(domain):
            raise ValueError(f"has {domain[:80]!r}, which is no domain such as example.org")
    return tuple(domain.lower() for domain in value)


class OpenIDSettings(ServerSettings):
    """Through whom people sign in at the board besides, and which of them get in."""

    openid_issuer: OrNone[Issuer] = Field(
        None,
        description="An OpenID provider through which people sign in at the board, such as "
        "`https://accounts.google.com`, exactly as its metadata says it",
    )
    openid_client_id: OrNone[str] = Field(
        None,
        description="The provider's id of this server, whose callback there is `PUBLIC_URL` `/login/openid/callback`",
    )
    openid_client_secret: OrNone[SecretStr] = Field(None, description="What the provider gave with the id")
    openid_name: OrNone[str] = Field(
        None,
        max_length=40,
        description="What the button calls the provider; when absent, `Google`, or the issuer's host",
    )
    openid_domains: Annotated[ManyOf[str], AfterValidator(_domains)] = Field(
        (),
        description="Domains whose people get in through the provider: of their verified address, or with Google the "
        "organisation's (`hd`); absent: any",
    )
    openid_new_user_role: Literal["viewer", "requester", "agent", "manager"] | None = Field(
        None,
        description="The role of users who are added when the provider knows who signs in and TaskHub does not; "
        "absent: only users who have the address get in",
    )

    @property
    def openid_label(self) -> str | None:
        """What people call the OpenID provider; None when there is none."""
        if self.openid_issuer is None:
            return None
        return self.openid_name or ("Google" if self.google else urlsplit(self.openid_issuer).hostname)

    @property
    def google(self) -> bool:
        """The OpenID provider is Google, where anybody can have an account."""
        return self.openid_issuer == GOOGLE

    @property
    def openid_address(self) -> str:
        """Where a sign-in through the provider begins. The provider sends people back to `callback` below it."""
        return f"{self.public_url}/login/openid"

    def serving_problems(self) -> list[str]:
        problems = super().serving_problems()
        if self.openid_issuer is None:
            return problems + self._without_effect(OpenIDSettings.__annotations__, "without TASKHUB_OPENID_ISSUER")
        if self.api_base_url:
            problems.append("OPENID_ISSUER is for the board, and with API_BASE_URL this server has none")
        if self.auth_mode == "none":
            problems.append(
                "OPENID_ISSUER has no effect with AUTH=none, where everybody is let in: set TASKHUB_AUTH=api_key"
            )
        if self.public_url is None:
            problems.append(
                "OPENID_ISSUER needs TASKHUB_PUBLIC_URL, such as https://taskhub.example.org: the provider sends "
                "people back to it"
            )
        missing = {
            "TASKHUB_OPENID_CLIENT_ID": self.openid_client_id,
            "TASKHUB_OPENID_CLIENT_SECRET": self.openid_client_secret,
        }
        problems += [
            f"OPENID_ISSUER needs {name}, which the provider gives who registers this server with it"
            for name, value in missing.items()
            if value is None
        ]
        if self.google and self.openid_new_user_role is not None and not self.openid_domains:
            problems.append(
                "OPENID_NEW_USER_ROLE would let in everybody who has a Google account: set TASKHUB_OPENID_DOMAINS to "
                "your organisation's, such as example.org"
            )
        return problems
