"""Logs: readable by machines and by people, without secrets."""

import contextvars
import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage

from taskhub import logs
from taskhub.auth.secret import new_secret
from taskhub.redaction import redacted


@pytest.fixture(autouse=True)
def logging_restored() -> Iterator[None]:
    """Configuring logs is global; give the test runner its own back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(output: io.StringIO) -> list[dict[str, object]]:
    return [json.loads(line) for line in output.getvalue().splitlines()]


def test_both_kinds_of_loggers_write_json_lines_with_the_names_collectors_look_for() -> None:
    output = io.StringIO()
    logs.configure(level="info", json=True, stream=output)

    structlog.get_logger("taskhub.x").info("stream opened", stream="st_1", 名前="佐藤")
    logging.getLogger("elsewhere").warning("disk %s", "full", extra={"device": "sda"})

    ours, theirs = lines(output)
    assert ours["message"] == "stream opened"
    assert (ours["severity"], ours["stream"], ours["名前"]) == ("INFO", "st_1", "佐藤")
    assert (theirs["message"], theirs["severity"], theirs["device"]) == ("disk full", "WARNING", "sda")
    assert str(ours["time"]).endswith("Z")


def test_what_is_less_severe_than_the_level_is_not_written() -> None:
    output = io.StringIO()
    logs.configure(level="warning", json=True, stream=output)

    structlog.get_logger("taskhub.x").info("not this")
    logging.getLogger("elsewhere").info("nor this")

    assert output.getvalue() == ""


def test_a_record_names_the_request_it_was_written_in() -> None:
    output = io.StringIO()
    logs.configure(level="info", json=True, stream=output)

    def in_a_request() -> None:
        logs.request_id.set("r-1")
        structlog.get_logger("taskhub.x").info("ours")
        logging.getLogger("elsewhere").warning("theirs")

    contextvars.copy_context().run(in_a_request)
    logging.getLogger("elsewhere").warning("outside")

    assert [line.get("request_id") for line in lines(output)] == ["r-1", "r-1", None]


@pytest.mark.parametrize("as_json", [True, False])
def test_no_secret_is_written(as_json: bool) -> None:
    output = io.StringIO()
    logs.configure(level="info", json=as_json, stream=output)
    logger = structlog.get_logger("taskhub.x")

    logger.info("headers", headers={"Authorization": "Bearer hunter2", "Cookie": "s=hunter2", "X-API-Key": "hunter2"})
    logger.info("values", token="hunter2", api_key="hunter2", session_token="hunter2", password="hunter2")
    logger.info("connecting to postgresql://me:hunter2@db/taskhub", redis="redis://:hunter2@redis:6379")
    logger.info("GET /events/stream?token=hunter2&status=done", urls=["https://h/x?api_key=hunter2"])
    logger.info("texts", texts=["X-Api-Key:hunter2", "set-COOKIE:hunter2", "Bearer\thunter2", "x;token=hunter2"])
    logging.getLogger("elsewhere").warning("sent Authorization: Bearer hunter2")
    try:
        raise ValueError("no such host in postgresql://me:hunter2@db/taskhub")
    except ValueError:
        logger.exception("it failed")

    written = output.getvalue()
    assert "hunter2" not in written
    assert "ValueError" in written
    assert "status=done" in written


@pytest.mark.parametrize(
    "text",
    [
        "copy of SECRET",
        "GET /SECRET HTTP/1.1",
        r"b'x-api-key x\nSECRET\r\n'",
        '{"summary": "SECRET", "',
        "%22SECRET%22",
        "monthSECRET",
        "key=SECRETx",
    ],
)
def test_what_taskhub_hands_out_is_known_by_its_form(text: str) -> None:
    output = io.StringIO()
    logs.configure(level="info", json=True, stream=output)
    for kind in "kst":
        secret = new_secret(f"th{kind}_")
        structlog.get_logger("taskhub.x").info(text.replace("SECRET", secret), other=[text.replace("SECRET", secret)])
        logging.getLogger("elsewhere").error("failed: %r", {secret: text.replace("SECRET", secret).encode()})

        assert secret not in output.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        'the body is {"password": "hunter2"}',
        "the body is {'client_secret': 'hunter2'}",
        r'the body is "{\"api_key\": \"hunter2\"}"',
        "input_value={'token': 'hunter2', 'more': 1}",
        "Basic hunter2",
        "postgresql://me:p@ss/hunter2@db/taskhub",
        "postgresql://db/taskhub?user=me&password=hunter2&sslmode=require",
        "[('Proxy-Authorization', 'hunter2')]",
        "(b'X-Api-Key', b'hunter2')",
        "sslpassword=hunter2",
    ],
)
def test_a_secret_is_known_by_what_stands_before_it(text: str) -> None:
    assert "hunter2" not in redacted(text)


def test_no_text_takes_for_ever() -> None:
    for piece in ("a-", "a.", "a://:", "token=", "password: '", "cookie ", "th", "key=", "thk_"):
        redacted(piece * 10_000)


@pytest.mark.parametrize(
    "text", ["3 months_2026 of the_author", "tokens_used=4", "no secret: is here", "path /events/stream?status=done"]
)
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert redacted(text) == text


def test_local_variables_are_not_written() -> None:
    output = io.StringIO()
    logs.configure(level="info", json=False, stream=output)
    quiet = "hunter2"

    try:
        raise ValueError(len(quiet))
    except ValueError:
        structlog.get_logger("taskhub.x").exception("it failed")

    assert "hunter2" not in output.getvalue()


def test_names_that_only_resemble_secrets_are_kept() -> None:
    output = io.StringIO()
    logs.configure(level="info", json=True, stream=output)

    structlog.get_logger("taskhub.x").info("done", tokens_used=4, author="alice", keys=["a"], token=None)

    (line,) = lines(output)
    assert (line["tokens_used"], line["author"], line["keys"], line["token"]) == (4, "alice", ["a"], None)


@pytest.mark.parametrize("level", ["info", "debug"])
def test_what_a_client_sent_that_is_no_http_is_neither_an_error_nor_repeated(level: str) -> None:
    output = io.StringIO()
    logs.configure(level=level, json=True, stream=output)
    server = logging.getLogger("aiohttp.server")
    head = BadHttpMessage("Invalid header value char: b'X-Api-Key: k-secret'")
    body = web.RequestPayloadError("400, message: Can not decode content-encoding: gzip k-secret")
    for error in (head, body, ValueError("ours")):
        try:
            raise error
        except Exception:
            server.exception("Error handling request from %s", "127.0.0.1")

    *malformed, ours = lines(output)
    assert "k-secret" not in output.getvalue()
    assert [(line["severity"], "exception" in line) for line in malformed] == [("DEBUG", False)] * (
        2 if level == "debug" else 0
    )
    assert (ours["severity"], "ValueError: ours" in str(ours["exception"])) == ("ERROR", True)
