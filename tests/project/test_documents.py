"""What a reader is told is what the program does."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from routes.errors import CODES
from routes.setup import add_routes
from routes.stream import StreamParameters
from taskhub.cli.parser import build_parser
from taskhub.settings.loading import OLDER_NAMES, load
from taskhub.settings.model import Settings
from taskhub.tickets.errors import TicketError
from taskhub.tickets.fields import FIELDS

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
DEFAULTS = (ROOT / "config" / "default.toml").read_text()


def row(name: str) -> list[str]:
    """The cells of the README's table row for a name."""
    found = re.search(rf"^\| `{re.escape(name)}` \|(.*)\|$", README, re.MULTILINE)
    assert found is not None, f"the README has no row for {name}"
    return [cell.strip() for cell in found[1].split("|")]


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_in_the_readme_with_its_description(name: str) -> None:
    assert row(name.upper())[1] == Settings.model_fields[name].description


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_in_the_default_file(name: str) -> None:
    assert re.search(rf"^# {name} = ", DEFAULTS, re.MULTILINE)


def test_the_default_file_says_the_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    absent = {
        "data_dir",
        "database_url",
        "redis_url",
        "auth",
        "api_key",
        "remote_api_key",
        "public_url",
        "oauth_issuer",
        "oauth_audience",
        "oauth_jwks_url",
        "oauth_new_user_role",
        "openid_issuer",
        "openid_client_id",
        "openid_client_secret",
        "openid_name",
        "openid_domains",
        "openid_new_user_role",
        "api_base_url",
        "log_format",
        "sse_max_streams_per_principal",
        "sse_new_streams_per_s",
        "writes_per_s",
    }
    monkeypatch.chdir(tmp_path)
    lines = [line[2:] for line in DEFAULTS.splitlines() if re.match(r"# [a-z_]+ = ", line)]
    told = {name: value for name, value in tomllib.loads("\n".join(lines)).items() if name not in absent}

    settings = load().settings

    for name, value in told.items():
        actual = getattr(settings, name)
        assert (list(actual) if isinstance(actual, tuple) else actual) == value, name


def test_the_default_file_sets_nothing() -> None:
    assert tomllib.loads(DEFAULTS) == {}


def test_the_production_file_has_only_known_settings() -> None:
    assert set(tomllib.loads((ROOT / "config" / "production.toml").read_text())) <= set(Settings.model_fields)


def test_the_readme_names_the_older_names() -> None:
    names = {name for older in OLDER_NAMES.values() for name in older}

    assert not [name for name in names if f"`{name}`" not in README]


@pytest.mark.parametrize("code", CODES)
def test_every_problem_code_is_in_the_readme_with_its_status(code: str) -> None:
    status, title = CODES[code]

    assert row(code) == [str(status), title]


def test_every_code_of_a_ticket_error_is_in_the_readme() -> None:
    kinds = [TicketError]
    for kind in kinds:
        kinds += kind.__subclasses__()

    for kind in kinds[1:]:
        assert row(kind.code)


def test_every_address_is_in_the_readme() -> None:
    from aiohttp import web

    from routes.keys import SETTINGS

    app = web.Application()
    app[SETTINGS] = Settings()
    add_routes(app)
    addresses = {resource.canonical for resource in app.router.resources()} - {
        # Nobody types these.
        "/", "/favicon.ico", "/static/{name}", "/static/{version}/{name}",
    }  # fmt: skip

    missing = [a for a in addresses if a not in README and a.removeprefix("/api/v1") not in README]

    assert missing == []


def test_every_command_and_argument_is_in_the_readme() -> None:
    (commands,) = (action for action in build_parser()._actions if action.dest == "command")
    assert isinstance(commands.choices, dict)
    for name, command in commands.choices.items():
        assert f"`taskhub {name}" in README, name
        for action in command._actions:
            # Hidden ones, and those that every command has.
            if action.help == "==SUPPRESS==" or action.dest in ("help", "config"):
                continue
            told = [option for option in action.option_strings if f"`{option}`" in README]
            assert told or not action.option_strings, f"{name} {action.option_strings}"


def test_the_call_in_the_readme_is_one_a_shell_reads() -> None:
    block = README[README.index("    curl http://127.0.0.1:8000/mcp") :].partition("\n\n")[0]
    words = shlex.split(block.replace("\\\n", " "))

    assert words[0] == "curl"
    assert '"name": "create_ticket"' in words[-1]


def test_every_parameter_of_a_stream_is_in_the_readme_with_its_bounds() -> None:
    properties = StreamParameters.model_json_schema()["properties"]
    for name, schema in properties.items():
        (told,) = re.findall(rf"^\| (?=[^|]*`{name}[`=]).*$", README, re.MULTILINE) or [""]
        assert told, name
        for kind in [schema, *schema.get("anyOf", [])]:
            for bound in ("minimum", "maximum"):
                assert bound not in kind or re.search(rf"\b{kind[bound]}\b", told), (name, kind[bound])


def test_every_field_with_two_names_is_in_the_readme() -> None:
    for field in FIELDS:
        if field.name != field.event:
            assert row(field.name) == [f"`{field.event}`"]


def test_the_newcomers_map_leads_to_places_that_exist() -> None:
    table = README[README.index("## A newcomer's map") :]
    places = re.findall(r"`((?:routes|taskhub|broadcaster|tests)/[a-z0-9_/.]*)`", table)

    assert len(places) >= 8
    assert not [place for place in places if not (ROOT / place).exists()]


def test_make_help_names_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (targets,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    told = makefile[makefile.index("\nhelp:") :].partition("\n\n")[0]

    assert not [target for target in targets.split() if target != "help" and f"make {target}" not in told]
