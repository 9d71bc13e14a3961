"""`Settings`: all groups of settings together."""

from typing import Any

from pydantic import SecretStr

from taskhub.settings.addresses import mask_url
from taskhub.settings.limits import LimitSettings
from taskhub.settings.oauth import OAuthSettings
from taskhub.settings.openid import OpenIDSettings


class Settings(LimitSettings, OpenIDSettings, OAuthSettings):
    """What an operator may set. The description of each field is what `taskhub check` and the README say of it."""


def shown(name: str, settings: Settings) -> str:
    """A setting's effective value as text for people, secrets masked (a URL keeps all but its password)."""
    value: Any = getattr(settings, name)
    if name == "database_url":
        value = SecretStr(settings.database_address)
    elif name == "auth":
        value = settings.auth_mode
    elif name == "log_format":
        value = "json" if settings.json_logs else "console"
    if value is None or value == ():
        return "-"
    if isinstance(value, SecretStr):
        return mask_url(value.get_secret_value()) if name.endswith("_url") else "********"
    if isinstance(value, tuple):
        return ",".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)
