"""The settings about access tokens (OAuth 2.1)."""

from typing import Annotated, Final, Literal

from pydantic import Field

from taskhub.settings.addresses import Issuer, WebAddress
from taskhub.settings.server import ServerSettings
from taskhub.settings.values import ManyOf, Networks, OrNone

Algorithm = Literal["ES256", "ES384", "ES512", "EdDSA", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]
"""Signatures whose verification takes no secret. `none` and HMAC are no such, and there is no way to allow them."""

_OF_OTHER_ISSUERS: Final = (
    "oauth_audience", "oauth_jwks_url", "oauth_algorithms", "oauth_user_claim", "oauth_new_user_role",
)  # fmt: skip
_OF_OWN_TOKENS: Final = ("oauth_registration", "oauth_document_networks")


class OAuthSettings(ServerSettings):
    """Whose access tokens count, and what those that TaskHub issues itself need."""

    oauth_issuer: OrNone[Issuer] = Field(
        None,
        description="Who issues access tokens (`AUTH=oauth`), exactly as its metadata and tokens say it; "
        "when absent, TaskHub itself",
    )
    oauth_audience: OrNone[str] = Field(
        None, description="What access tokens must name as their one audience; when absent, `PUBLIC_URL` with `/mcp`"
    )
    oauth_jwks_url: OrNone[WebAddress] = Field(
        None, description="Where the issuer's keys are; when absent, its metadata tells"
    )
    oauth_algorithms: Annotated[ManyOf[Algorithm], Field(min_length=1)] = Field(
        ("ES256", "EdDSA", "RS256", "PS256"), description="Algorithms by which access tokens may be signed"
    )
    oauth_user_claim: str = Field(
        "sub",
        pattern=r"^[!-~]{1,100}$",
        description="The claim that names the user: with `email`, a verified address that a user has; "
        "with another, the id or name of a user",
    )
    oauth_new_user_role: Literal["viewer", "requester", "agent", "manager"] | None = Field(
        None,
        description="The role of users who are made when the issuer knows who calls and TaskHub does not; absent: none",
    )
    oauth_registration: bool = Field(
        False, description="Let OAuth clients register themselves, where TaskHub issues access tokens itself"
    )
    oauth_document_networks: Networks = Field(
        (), description="Networks that are not public, from which documents about OAuth clients may be read"
    )
    oauth_requests_per_min: int = Field(
        600,
        ge=0,
        description="Requests per address and minute for tokens, their end and clients (`AUTH=oauth`); 0 for no limit",
    )

    @property
    def resource(self) -> str | None:
        """What access tokens are for (RFC 8707): the address of the Model Context Protocol."""
        return None if self.public_url is None else f"{self.public_url}/mcp"

    @property
    def issuer(self) -> str | None:
        """Who issues access tokens."""
        return self.oauth_issuer or self.public_url

    @property
    def issues_tokens(self) -> bool:
        """Whether that is TaskHub itself."""
        return self.auth_mode == "oauth" and self.oauth_issuer is None

    def serving_problems(self) -> list[str]:
        problems = super().serving_problems()
        if self.auth_mode != "oauth":
            return problems + self._without_effect(OAuthSettings.__annotations__, "without TASKHUB_AUTH=oauth")
        if self.api_base_url:
            problems.append("AUTH=oauth knows users by the database, and API_BASE_URL leaves this server none")
        if self.public_url is None:
            problems.append(
                "AUTH=oauth needs TASKHUB_PUBLIC_URL, such as https://taskhub.example.org: clients ask for tokens for "
                "the address by which they reach this server"
            )
        if self.oauth_issuer is None:
            return problems + self._without_effect(_OF_OTHER_ISSUERS, "without TASKHUB_OAUTH_ISSUER")
        return problems + self._without_effect(_OF_OWN_TOKENS, "with TASKHUB_OAUTH_ISSUER")
