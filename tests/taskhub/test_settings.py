"""Settings: which source wins, what is refused, what is shown."""

from pathlib import Path

import pytest

from taskhub.settings import loading
from taskhub.settings.addresses import is_loopback, mask_url
from taskhub.settings.loading import SettingsError, load
from taskhub.settings.model import Settings, shown


@pytest.fixture(autouse=True)
def empty_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No `taskhub.toml` of the working directory counts."""
    monkeypatch.chdir(tmp_path)


def test_several_workers_in_front_of_another_taskhub_need_neither_database_nor_redis() -> None:
    settings = load({"workers": 4, "api_base_url": "http://127.0.0.1:1"}).settings

    assert settings.serving_problems() == []
    assert settings.mcp_transports == ("http",)


def test_the_command_line_goes_before_the_environment_before_the_file_before_the_default(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "taskhub.toml").write_text('host = "127.0.0.2"\nport = 1000\ndrain_s = 3\n')
    monkeypatch.setenv("TASKHUB_PORT", "2000")
    monkeypatch.setenv("TASKHUB_HOST", "127.0.0.3")

    loaded = load({"host": "127.0.0.4"})

    assert (loaded.settings.host, loaded.settings.port, loaded.settings.drain_s) == ("127.0.0.4", 2000, 3)
    assert loaded.settings.poll_interval_ms == 1000
    assert loaded.sources["host"] == "command line"
    assert loaded.sources["port"] == "environment TASKHUB_PORT"
    assert loaded.sources["drain_s"] == str(tmp_path / "taskhub.toml")
    assert loaded.sources["poll_interval_ms"] == "default"


def test_the_file_is_the_named_one_else_the_local_one_else_the_shipped_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert load().config_file == loading.SHIPPED_CONFIG
    (tmp_path / "taskhub.toml").write_text("port = 1\n")
    assert load().config_file == tmp_path / "taskhub.toml"
    (tmp_path / "other.toml").write_text("port = 2\n")
    monkeypatch.setenv("TASKHUB_CONFIG", str(tmp_path / "other.toml"))
    assert load().settings.port == 2
    (tmp_path / "third.toml").write_text("port = 3\n")
    assert load(config=tmp_path / "third.toml").settings.port == 3


def test_an_empty_variable_counts_as_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKHUB_PORT", "")
    monkeypatch.setenv("TASKHUB_API_KEY", "")

    assert load().settings.port == 8000
    assert load().settings.auth_mode == "none"


def test_plain_port_counts_unless_the_own_name_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "9001")
    assert load().settings.port == 9001
    monkeypatch.setenv("TASKHUB_PORT", "9002")
    assert load().settings.port == 9002


def test_older_names_are_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCP_API_BASE_URL", "https://taskhub.example.org")
    monkeypatch.setenv("MCP_API_KEY", "for-the-api")
    monkeypatch.setenv("MCP_MCP_API_KEY", "for-clients")
    monkeypatch.setenv("MCP_TRANSPORT_TYPE", "streamable-http")

    loaded = load()
    settings = loaded.settings

    assert settings.api_base_url == "https://taskhub.example.org"
    assert settings.outgoing_key == "for-the-api"
    assert settings.api_key is not None
    assert settings.api_key.get_secret_value() == "for-clients"
    assert settings.mcp_transports == ("http",)
    assert loaded.sources["api_key"] == "environment MCP_MCP_API_KEY"


def test_lists_are_comma_separated_in_the_environment_and_lists_in_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "taskhub.toml").write_text('allowed_origins = ["https://a.example", "https://b.example"]\n')
    monkeypatch.setenv("TASKHUB_ALLOWED_HOSTS", "one.example, two.example,")

    settings = load().settings

    assert settings.allowed_hosts == ("one.example", "two.example")
    assert settings.allowed_origins == ("https://a.example", "https://b.example")


def test_data_lives_in_an_absolute_directory_of_the_user_whatever_the_working_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    assert load().settings.data_dir == Path("/home/somebody/.local/share/taskhub")
    monkeypatch.setenv("XDG_DATA_HOME", "relative/is/ignored")
    assert load().settings.data_dir == Path("/home/somebody/.local/share/taskhub")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert load().settings.data_dir == Path("/data/taskhub")
    assert load().settings.database_address == "sqlite:////data/taskhub/taskhub.db"
    monkeypatch.setenv("TASKHUB_DATA_DIR", "here")
    assert load().settings.data_dir == tmp_path / "here"


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("TASKHUB_PORT", "70000", "PORT (environment TASKHUB_PORT): input should be less than or equal to 65535"),
        ("TASKHUB_PORT", "eighty", "PORT (environment TASKHUB_PORT)"),
        ("TASKHUB_ENV", "prod", "'development' or 'production'"),
        ("TASKHUB_AUTH", "basic", "'none', 'api_key' or 'oauth'"),
        ("TASKHUB_MCP_TRANSPORTS", "http,websocket", "'http' or 'sse'"),
        ("TASKHUB_API_BASE_URL", "taskhub.example.org", "API_BASE_URL"),
        ("TASKHUB_TRUSTED_PROXIES", "10.0.0.0/8,proxy", "TRUSTED_PROXIES"),
        ("TASKHUB_CONFIG", "/no/such/file.toml", "/no/such/file.toml does not exist"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_its_source(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)

    with pytest.raises(SettingsError) as refused:
        load()

    assert said in str(refused.value)


def test_every_wrong_value_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKHUB_PORT", "x")
    monkeypatch.setenv("TASKHUB_DRAIN_S", "y")

    with pytest.raises(SettingsError) as refused:
        load()

    assert len(refused.value.problems) == 2


def test_a_file_that_is_not_toml_is_refused(tmp_path: Path) -> None:
    (tmp_path / "taskhub.toml").write_text("port 8000")

    with pytest.raises(SettingsError, match="is not TOML"):
        load()


def test_unknown_names_are_found_with_the_nearest_known_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "taskhub.toml").write_text("allowed_host = []\n")
    monkeypatch.setenv("TASKHUB_REDIS_ULR", "redis://x")

    unknown = load().unknown

    assert unknown == [
        "TASKHUB_REDIS_ULR is not a setting; did you mean TASKHUB_REDIS_URL?",
        f"allowed_host in {tmp_path / 'taskhub.toml'} is not a setting; did you mean allowed_hosts?",
    ]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"host": "0.0.0.0", "allowed_hosts": "x.example"}, "TASKHUB_API_KEY"),
        ({"host": "0.0.0.0", "api_key": "k"}, "TASKHUB_ALLOWED_HOSTS"),
        ({"env": "production"}, "TASKHUB_AUTH"),
        ({"env": "production", "insecure": True}, "TASKHUB_AUTH"),
        ({"auth": "api_key", "api_base_url": "http://127.0.0.1:1"}, "TASKHUB_API_KEY"),
    ],
)
def test_what_is_not_safe_is_refused_and_the_setting_named(given: dict[str, object], named: str) -> None:
    problems = load(given).settings.serving_problems()

    assert len(problems) == 1
    assert named in problems[0]


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"host": "localhost"},
        {"host": "::1"},
        {"host": "0.0.0.0", "api_key": "k", "allowed_hosts": "x.example"},
        {"host": "0.0.0.0", "insecure": True, "allowed_hosts": "x.example"},
        {"env": "production", "api_key": "k"},
    ],
)
def test_what_is_safe_is_not_refused(given: dict[str, object]) -> None:
    assert load(given).settings.serving_problems() == []


OAUTH: dict[str, object] = {
    "auth": "oauth",
    "public_url": "https://taskhub.example.org",
    "oauth_issuer": "https://login.example.org",
}


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({**OAUTH, "public_url": ""}, "TASKHUB_PUBLIC_URL"),
        ({**OAUTH, "oauth_issuer": "", "oauth_user_claim": "email"}, "OAUTH_USER_CLAIM has no effect without"),
        ({**OAUTH, "oauth_registration": True}, "OAUTH_REGISTRATION has no effect with TASKHUB_OAUTH_ISSUER"),
        ({**OAUTH, "api_base_url": "https://h.example"}, "API_BASE_URL"),
        ({"oauth_issuer": "https://login.example.org"}, "TASKHUB_AUTH=oauth"),
        ({"api_key": "k", "oauth_user_claim": "email"}, "OAUTH_USER_CLAIM"),
    ],
)
def test_what_oauth_needs_and_what_needs_oauth_is_named(given: dict[str, object], named: str) -> None:
    problems = load(given).settings.serving_problems()

    assert len(problems) == 1
    assert named in problems[0]


def test_without_an_issuer_taskhub_is_the_issuer() -> None:
    settings = load({**OAUTH, "oauth_issuer": ""}).settings

    assert settings.serving_problems() == []
    assert settings.issues_tokens
    assert settings.issuer == "https://taskhub.example.org"


def test_with_oauth_a_server_may_serve_in_production() -> None:
    settings = load({**OAUTH, "env": "production", "public_url": "https://TaskHub.example.org/"}).settings

    assert settings.serving_problems() == []
    assert settings.resource == "https://taskhub.example.org/mcp"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("public_url", "taskhub.example.org"),
        ("public_url", "http://taskhub.example.org"),
        ("public_url", "https://taskhub.example.org/mcp"),
        ("public_url", "https://user@taskhub.example.org"),
        ("oauth_issuer", "http://login.example.org"),
        ("oauth_issuer", "https://login.example.org?tenant=1"),
        ("oauth_issuer", "https://login.example.org#x"),
        ("oauth_issuer", "https://[::1"),
        ("oauth_jwks_url", "file:///etc/passwd"),
        ("oauth_algorithms", "HS256"),
        ("oauth_algorithms", "none"),
        ("oauth_algorithms", ""),
        ("oauth_new_user_role", "operator"),
    ],
)
def test_an_address_or_algorithm_that_cannot_be_trusted_is_refused(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name.upper()):
        load({**OAUTH, name: value})


@pytest.mark.parametrize("value", ["http://127.0.0.1:8000", "http://localhost:9", "http://[::1]:9"])
def test_on_this_machine_addresses_need_no_encryption(value: str) -> None:
    assert load({**OAUTH, "oauth_issuer": value, "public_url": value}).settings.issuer == value


def test_sqlite_is_refused_on_cloud_run_unless_losing_it_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K_SERVICE", "taskhub")

    assert "TASKHUB_DATABASE_URL" in load().settings.serving_problems()[0]
    assert load({"ephemeral_data": True}).settings.serving_problems() == []
    assert load({"database_url": "postgresql://u:p@h/d"}).settings.serving_problems() == []
    assert load({"api_base_url": "https://h.example"}).settings.serving_problems() == []


def test_a_key_turns_authentication_on_unless_it_is_turned_off() -> None:
    assert load({"api_key": "k"}).settings.auth_mode == "api_key"
    assert load({"api_key": "k", "auth": "none"}).settings.auth_mode == "none"


def test_secrets_are_never_shown() -> None:
    settings = load(
        {
            "api_key": "hunter2",
            "remote_api_key": "hunter2",
            "database_url": "postgresql://me:hunter2@db.example/taskhub",
            "redis_url": "redis://:hunter2@redis.example:6379/0",
        }
    ).settings

    everything = [shown(name, settings) for name in Settings.model_fields]

    assert not [text for text in everything if "hunter2" in text]
    assert "hunter2" not in repr(settings)
    assert shown("database_url", settings) == "postgresql://me:********@db.example/taskhub"


def test_a_url_without_a_password_is_shown_whole() -> None:
    assert mask_url("sqlite:////data/taskhub.db") == "sqlite:////data/taskhub.db"
    assert mask_url("redis://h:1/0") == "redis://h:1/0"
    assert mask_url("postgresql://me@h/d") == "postgresql://me@h/d"
    assert mask_url("postgresql://me:p@ss@h/d") == "postgresql://me:********@h/d"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "[::1]", "localhost", "LOCALHOST"])
def test_loopback_is_recognised(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "127.0.0.1.evil.example", "taskhub.example"])
def test_what_is_not_loopback_is_recognised(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize("address", ["mysql://me:hunter2@db/x", "sqlite://", "sqlite:///:memory:", "taskhub.db",
                                     "postgresql://me:hunter2@db:port/x"])  # fmt: skip
def test_an_address_that_is_no_database_is_refused_and_not_repeated(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("TASKHUB_DATABASE_URL", address)

    with pytest.raises(
        SettingsError, match=r"DATABASE_URL \(environment TASKHUB_DATABASE_URL\): (must be|has a)"
    ) as error:
        load()

    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("address", ["sqlite:////tmp/x.db", "sqlite+aiosqlite:////tmp/x.db?mode=rw", "postgres://db/x",
                                     "postgresql+asyncpg://me:a%40b@db:5432/x?sslmode=require",
                                     "postgresql://me@/x?host=/run/pg&sslrootcert=/ca.pem"])  # fmt: skip
def test_an_address_that_is_a_database_stays_as_it_is(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("TASKHUB_DATABASE_URL", address)

    assert load().settings.database_address == address.replace("+aiosqlite", "")


def test_a_parameter_of_a_database_that_would_count_for_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKHUB_DATABASE_URL", "postgresql://me:hunter2@db/x?sslmod=verify-full")
    with pytest.raises(SettingsError, match="has a parameter sslmod that counts for nothing; did you mean sslmode"):
        load()
    monkeypatch.setenv("TASKHUB_DATABASE_URL", "postgresql://me:secret?hunter2@db/x")
    with pytest.raises(SettingsError, match="has a parameter that counts for nothing; there are host, ") as error:
        load()

    assert "hunter2" not in str(error.value)


def test_a_relative_database_file_is_the_same_from_every_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TASKHUB_DATABASE_URL", "sqlite:///mine.db")

    assert load().settings.database_address == f"sqlite:///{tmp_path}/mine.db"


@pytest.mark.parametrize(
    "address", ["redis://db", "rediss://:x@db:6379/0", "unix:///run/redis", "redis+sentinel://a/b"]
)
def test_an_address_of_redis_is_accepted(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("TASKHUB_REDIS_URL", address)

    assert load().settings.redis_url is not None


def test_an_address_that_is_no_redis_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKHUB_REDIS_URL", "http://db")

    with pytest.raises(SettingsError, match=r"REDIS_URL .*: must be an address such as redis://"):
        load()


def test_what_is_wrong_with_a_value_is_said_without_the_words_of_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TASKHUB_TRUSTED_PROXIES", "nowhere")

    with pytest.raises(SettingsError) as error:
        load()

    assert "value error" not in str(error.value).lower()


OPENID = {
    "auth": "api_key", "public_url": "https://hub.example.org", "openid_issuer": "https://accounts.google.com",
    "openid_client_id": "taskhub", "openid_client_secret": "s3cret",
}  # fmt: skip


def test_people_sign_in_at_google_with_an_issuer_and_what_it_gave() -> None:
    settings = load(OPENID).settings

    assert settings.serving_problems() == []
    assert settings.openid_label == "Google"
    assert shown("openid_client_secret", settings) == "********"
    assert load({**OPENID, "openid_issuer": "https://login.example.org/realms/one"}).settings.openid_label == (
        "login.example.org"
    )
    assert load({**OPENID, "openid_name": "Acme"}).settings.openid_label == "Acme"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"openid_issuer": ""}, "OPENID_CLIENT_ID has no effect without TASKHUB_OPENID_ISSUER"),
        ({"openid_client_secret": ""}, "OPENID_ISSUER needs TASKHUB_OPENID_CLIENT_SECRET"),
        ({"openid_client_id": ""}, "OPENID_ISSUER needs TASKHUB_OPENID_CLIENT_ID"),
        ({"public_url": ""}, "OPENID_ISSUER needs TASKHUB_PUBLIC_URL"),
        ({"auth": "none"}, "OPENID_ISSUER has no effect with AUTH=none"),
        ({"api_base_url": "https://hub.example.org"}, "with API_BASE_URL this server has none"),
        ({"openid_new_user_role": "agent"}, "everybody who has a Google account: set TASKHUB_OPENID_DOMAINS"),
    ],
)
def test_half_a_provider_is_refused_with_what_is_missing(changed: dict[str, str], said: str) -> None:
    assert said in " ".join(load({**OPENID, **changed}).settings.serving_problems())


def test_a_domain_is_no_address() -> None:
    with pytest.raises(SettingsError, match=r"'@example\.org', which is no domain such as example\.org"):
        load({**OPENID, "openid_domains": "example.com,@example.org"})
