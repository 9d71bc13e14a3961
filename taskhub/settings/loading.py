"""Where settings come from: the command line, the environment (`TASKHUB_*`), a TOML file, and defaults, in this order.

Older names (`MCP_API_BASE_URL` and its relatives) and plain `PORT` count as environment, after the `TASKHUB_*` name of
the same setting. `load` answers the settings and where each came from, `look` also when some cannot be used;
`Settings.serving_problems` says what forbids serving with them.
"""

import os
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    TomlConfigSettingsSource,
)

from taskhub.settings.model import Settings
from taskhub.settings.server import PREFIX
from taskhub.settings.values import nearest

CONFIG_VARIABLE: Final = "TASKHUB_CONFIG"
LOCAL_CONFIG: Final = "taskhub.toml"
SHIPPED_CONFIG: Final = Path(__file__).resolve().parents[2] / "config" / "default.toml"


class SettingsError(Exception):
    """Settings with which TaskHub cannot start; `problems` has one sentence for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


# Names of earlier tool servers, and of hosts that know only PORT. Setting → names, of which the first one set counts.
OLDER_NAMES: Final[Mapping[str, tuple[str, ...]]] = {
    "port": ("PORT",),
    "api_base_url": ("MCP_API_BASE_URL",),
    "api_key": ("MCP_MCP_API_KEY", "MCP_API_KEY"),
    "remote_api_key": ("MCP_API_KEY",),
    "mcp_transports": ("MCP_TRANSPORT_TYPE",),
}
_OLDER_TRANSPORTS: Final = {
    "sse": "http,sse",
    "http": "http",
    "streamable-http": "http",
    "streamable_http": "http",
    "stdio": "http,sse",
}


class OlderNames(PydanticBaseSettingsSource):
    """The variables of OLDER_NAMES."""

    def variable(self, name: str) -> str | None:
        """The variable that sets this field, if one does."""
        return next((older for older in OLDER_NAMES.get(name, ()) if os.environ.get(older, "").strip()), None)

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        variable = self.variable(field_name)
        text = os.environ[variable].strip() if variable else None
        if text and variable == "MCP_TRANSPORT_TYPE":
            text = _OLDER_TRANSPORTS.get(text.lower(), text)
        return text, field_name, False

    def __call__(self) -> dict[str, Any]:
        return {
            name: value
            for name, field in Settings.model_fields.items()
            if (value := self.get_field_value(field, name)[0]) is not None
        }


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, where each came from (field → such as `environment TASKHUB_PORT`), and the names nobody knows.

    `wrong` says of each field whose value cannot be used what is wrong with it; `settings` has its default.
    """

    settings: Settings
    sources: Mapping[str, str]
    config_file: Path | None
    unknown: list[str] = field(default_factory=list)
    wrong: Mapping[str, str] = field(default_factory=dict)

    def problems(self) -> list[str]:
        """All that is wrong with the values, and what forbids serving with the others, one sentence each."""
        unsafe = self.settings.serving_problems()
        # What follows from a default that nobody asked for is not yet a problem.
        named = [re.compile(rf"\b({PREFIX})?{name.upper()}\b") for name in self.wrong]
        return [*self.wrong.values(), *(text for text in unsafe if not any(name.search(text) for name in named))]


def load(overrides: Mapping[str, Any] | None = None, *, config: Path | None = None) -> Loaded:
    """Read every source. `overrides` are fields given on the command line, `config` the TOML file named there.

    Raises SettingsError when a value cannot be used or the named file cannot be read.
    """
    loaded = look(overrides, config=config)
    if loaded.wrong:
        raise SettingsError(list(loaded.wrong.values()))
    return loaded


def look(overrides: Mapping[str, Any] | None = None, *, config: Path | None = None) -> Loaded:
    """As `load`, but values that cannot be used are answered, not raised.

    Raises SettingsError when the named file cannot be read.
    """
    path = _config_file(config)
    from_file = _toml_source(path)
    known = set(Settings.model_fields)
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    older = OlderNames(Settings)
    sources: tuple[tuple[PydanticBaseSettingsSource, Callable[[str], str]], ...] = (
        (from_file, lambda _: f"{path}"),
        (older, lambda name: f"environment {older.variable(name)}"),
        (EnvSettingsSource(Settings), lambda name: f"environment {PREFIX}{name.upper()}"),
        (InitSettingsSource(Settings, dict(overrides or {})), lambda _: "command line"),
    )
    for read, origin in sources:
        for name, value in read().items():
            if name in known:
                values[name] = value
                origins[name] = origin(name)

    if "data_dir" in values:
        values["data_dir"] = Path(os.path.expanduser(str(values["data_dir"]))).absolute()
    wrong: dict[str, str] = {}
    try:
        settings = Settings(**values)
    except ValidationError as invalid:
        for error in invalid.errors():
            wrong.setdefault(str(error["loc"][0]), _sentence(error, origins))
        settings = Settings(**{name: value for name, value in values.items() if name not in wrong})
    told = {name: origins.get(name, "default") for name in Settings.model_fields}
    if settings.auth is None and settings.api_key is not None:
        told["auth"] = f"because API_KEY is set ({origins['api_key']})"
    if settings.workers > 1 and "mcp_transports" not in values:
        settings = settings.model_copy(update={"mcp_transports": ("http",)})
        told["mcp_transports"] = f"because WORKERS is {settings.workers} ({origins['workers']})"
    return Loaded(
        settings, told, path, _unknown_variables(known) + _unknown_keys(from_file.toml_data, known, path), wrong
    )


def _config_file(named: Path | None) -> Path | None:
    if named is None and (variable := os.environ.get(CONFIG_VARIABLE)):
        named = Path(variable)
    if named is not None:
        return named.expanduser().absolute()
    for candidate in (Path(LOCAL_CONFIG).absolute(), SHIPPED_CONFIG):
        if candidate.is_file():
            return candidate
    return None


def _toml_source(path: Path | None) -> TomlConfigSettingsSource:
    if path is not None and not path.is_file():
        raise SettingsError([f"the settings file {path} does not exist"])
    try:
        return TomlConfigSettingsSource(Settings, toml_file=path)
    except OSError as error:
        raise SettingsError([f"the settings file {path} cannot be read: {error.strerror}"]) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError([f"the settings file {path} is not TOML: {error}"]) from None


def _sentence(error: Any, origins: Mapping[str, str]) -> str:
    name = str(error["loc"][0])
    reason = error["msg"].removeprefix("Value error, ")
    reason = reason[:1].lower() + reason[1:]
    return f"{name.upper()} ({origins.get(name, 'default')}): {reason}"


def _unknown_variables(known: set[str]) -> list[str]:
    accepted = [PREFIX + name.upper() for name in known] + [CONFIG_VARIABLE]
    return [
        f"{name} is not a setting{nearest(name, accepted)}"
        for name in sorted(os.environ)
        if name.upper().startswith(PREFIX) and name not in accepted
    ]


def _unknown_keys(values: Mapping[str, Any], known: set[str], path: Path | None) -> list[str]:
    return [f"{name} in {path} is not a setting{nearest(name, known)}" for name in values if name not in known]
