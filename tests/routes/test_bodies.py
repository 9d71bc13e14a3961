"""JSON bodies and query strings: everything malformed is refused with a name for it."""

import asyncio
import gzip
import io

import pytest
from pydantic import BaseModel

from routes.bodies import MAX_DEPTH, MAX_VALUES, parse_json, parse_query
from routes.errors import MAX_FAULTS, Problem
from tests.routes.conftest import Hub, Start

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{'a': 1}",
        b'{"a":1}x',
        b'{"a":NaN}',
        b'{"a":Infinity}',
        b'{"a":1e999}',
        b'{"a":01}',
        b'{"a":"\\ud800"}',
        b'{"a":"\\udc00\\ud800"}',
        b'{"a":"\xff"}',
        b'{"a":"\xed\xa0\x80"}',
        b"\xef\xbb\xbf{}",
        '{"a":1}'.encode("utf-16"),
        b'{"a":"\n"}',
        b'{"a":1,"a":1}',
        b'{"x":{"a":1,"\\u0061":2}}',
        b'{"a":1,"a":"\\u003a"}',
        b'{"a":1,"b":"\\u003A","a":1}',
        b'{"a":"::","a":""}',
        b'{"a":"::\\\\u003a","a":""}',
        b'[{"b":[{"a":1,"a":2}]}]',
        b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1),
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b"[" * 500_000,
    ],
    ids=lambda body: repr(body[:24]),
)
def test_what_is_no_strict_json_is_refused(body: bytes) -> None:
    with pytest.raises(Problem) as refused:
        parse_json(body)

    assert refused.value.code == "malformed_json"
    assert len(refused.value.detail) <= 400


def test_strict_json_is_read_as_it_stands() -> None:
    deep = b"[" * MAX_DEPTH + b"]" * MAX_DEPTH

    assert parse_json(b'{":":"a:b\\u003ac\\u003A:"}') == {":": "a:b:c::"}

    assert parse_json('{"a":[1,2.5,null,"é\\u00e9 \\ud83d\\ude00"]}'.encode()) == {"a": [1, 2.5, None, "éé 😀"]}
    assert parse_json(b"[" + b"[]," * 500 + b"[]]") == [[]] * 501
    assert parse_json(deep) is not None


def test_integers_of_64_bits_are_kept_as_they_are() -> None:
    body = b'[18446744073709551615,-9223372036854775808,9007199254740993,1e30,"123456789012345678901234567890"]'

    assert parse_json(body) == [2**64 - 1, -(2**63), 2**53 + 1, 1e30, "123456789012345678901234567890"]


def test_a_larger_integer_is_refused_by_name_for_it_would_become_another_number() -> None:
    body = b'{"id":18446744073709551616,"a/b":[1,{"c":-9223372036854775809}],"d":' + b"9" * 300 + b"}"
    with pytest.raises(Problem) as refused:
        parse_json(body)

    assert refused.value.code == "invalid_input"
    assert [fault.pointer for fault in refused.value.errors] == ["/id", "/a~1b/1/c", "/d"]


def test_a_key_that_is_there_twice_is_found_beside_a_long_number_too() -> None:
    with pytest.raises(Problem) as refused:
        parse_json(b'{"a":1234567890123456789,"a":1}')

    assert refused.value.code == "malformed_json"


class Parameters(BaseModel):
    words: list[str] | None = None
    limit: int = 3
    switch: bool = False


def test_a_list_takes_commas_and_repetition_and_any_other_parameter_comes_once() -> None:
    found, faults = parse_query([("words", "a,b"), ("words", "c"), ("limit", "7"), ("switch", "true")], Parameters)
    nothing, wrong = parse_query(
        [("limit", "1"), ("limit", "2"), ("word", "a"), ("words", ""), ("other", "x")], Parameters, also=("other",)
    )

    assert found == Parameters(words=["a", "b", "c"], limit=7, switch=True)
    assert faults == []
    assert nothing is None
    assert [(fault.parameter, fault.did_you_mean) for fault in wrong] == [
        ("limit", None),
        ("word", "words"),
        ("words", None),
    ]


@pytest.mark.parametrize("content_type", [None, "", "text/plain", "application/x-www-form-urlencoded", "text/json",
                                          "application/json; charset=utf-16", "application/json2"])  # fmt: skip
async def test_a_body_that_does_not_say_it_is_json_is_refused(hub: Hub, content_type: str | None) -> None:
    header = "" if content_type is None else f"Content-Type: {content_type}\r\n"
    status, _, body = await hub.raw(
        f"POST /events HTTP/1.1\r\nHost: localhost\r\n{header}Content-Length: 2\r\n\r\n{{}}".encode()
    )

    assert status == 415
    assert b'"unsupported_media_type"' in body


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=UTF-8",
                                          "application/cloudevents+json"])  # fmt: skip
async def test_every_way_to_say_json_is_accepted(hub: Hub, content_type: str) -> None:
    answer = await hub.request(
        "POST", "/events", data=b'{"type":"a.b","data":{}}', headers={"Content-Type": content_type}
    )

    assert answer.status == 201


@pytest.mark.parametrize("body", [b"[]", b"null", b'"text"', b"7"])
async def test_a_body_that_is_no_object_is_refused(hub: Hub, body: bytes) -> None:
    answer = await hub.request("POST", "/api/v1/tickets", data=body, headers=JSON)

    assert (answer.status, answer.code) == (422, "invalid_input")


async def test_a_body_over_a_mebibyte_is_refused_whether_it_says_so_or_not(hub: Hub) -> None:
    async def chunks() -> object:
        for _ in range(40):
            yield b" " * 32_768

    said = await hub.request("POST", "/events", data=io.BytesIO(b" " * (2**20 + 1)), headers=JSON)
    chunked = await hub.request("POST", "/events", data=chunks(), headers=JSON)

    assert [answer.status for answer in (said, chunked)] == [413] * 2
    assert [answer.code for answer in (said, chunked)] == ["body_too_large"] * 2


@pytest.mark.parametrize("path", ["/events", "/api/v1/import", "/mcp"])
@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "deflate", "GZIP, gzip", "compress", "xyz", "identity, gzip"])
async def test_a_packed_body_is_refused_before_it_is_unpacked_or_taken_for_something_else(
    hub: Hub, path: str, coding: str
) -> None:
    plain = b'{"type":"a.b","data":{}}'
    for body in (plain, gzip.compress(plain), gzip.compress(plain * 10)[:-12], gzip.compress(b" " * 2**24)):
        answer = await hub.request("POST", path, data=body, headers={**JSON, "Content-Encoding": coding})

        assert (answer.status, answer.code) == (415, "unsupported_media_type")
        assert list(answer.named) == ["Content-Encoding"]
        assert answer.headers["Accept-Encoding"] == "identity"
    assert (await hub.get("/api/v1/events?after=earliest")).json["events"] == []


async def test_a_batch_may_be_larger_than_other_bodies(hub: Hub) -> None:
    events = [{"type": "a.b", "data": {"text": "x" * 60_000}}] * 30
    answer = await hub.request("POST", "/events/batch", data=io.BytesIO(str(events).encode()), headers=JSON)
    good = await hub.request(
        "POST",
        "/events/batch",
        data=io.BytesIO(b'{"events":' + str(events).replace("'", '"').encode() + b"}"),
        headers=JSON,
    )

    assert answer.code == "malformed_json"
    assert good.status == 201
    assert len(good.json["ids"]) == 30


@pytest.mark.parametrize("values", [b"{},", b"[],", b"1,", b'"",', b'{"a":1},'])
async def test_a_body_with_more_values_than_any_sender_means_is_refused(hub: Hub, values: bytes) -> None:
    body = b'{"events":[' + values * (MAX_VALUES + 1) + b"1]}"
    answer = await hub.request("POST", "/events/batch", data=io.BytesIO(body), headers=JSON)

    assert (answer.status, answer.code) == (413, "body_too_large")
    assert f"{MAX_VALUES} values" in answer.json["detail"]


async def test_commas_and_brackets_of_texts_are_no_values(hub: Hub) -> None:
    event = b'{"type":"a.b","data":{"text":"' + b'{[,\\",' * 8_000 + b'"}}'
    body = b'{"events":[' + b",".join([event] * 30) + b"]}"
    answer = await hub.request("POST", "/events/batch", data=io.BytesIO(body), headers=JSON)

    assert sum(body.count(mark) for mark in (b",", b"[", b"{")) > MAX_VALUES
    assert answer.status == 201


async def test_a_text_without_end_is_looked_through_once(hub: Hub) -> None:
    body = b'{"events":["' + b'\\",' * (MAX_VALUES + 1)
    answer = await hub.request("POST", "/events/batch", data=io.BytesIO(body), headers=JSON)

    assert (answer.status, answer.code) == (400, "malformed_json")


async def test_a_body_that_breaks_off_or_is_malformed_is_the_clients_fault(hub: Hub) -> None:
    head = b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    status, _, body = await hub.raw(head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n")

    assert status == 400
    assert b"Traceback" not in body


async def test_a_client_that_goes_away_within_its_body_leaves_no_trace(hub: Hub) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", hub.port)
    writer.write(b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
    writer.write(b'Content-Length: 100\r\n\r\n{"type":')
    await writer.drain()
    writer.close()
    await writer.wait_closed()

    assert (await hub.get("/api/v1/events?after=earliest")).json["events"] == []


async def test_a_body_that_stops_half_way_is_given_up(start: Start) -> None:
    hub = await start(body_read_s=0.1)
    status, headers, body = await hub.raw(
        b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
    )

    assert status == 408
    assert headers["connection"] == "close"
    assert b'"request_timeout"' in body


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET /version HTTP/9.9\r\nHost: localhost\r\n\r\n",
        b"GET /version HTTP/1.1\r\nHost: localhost\r\nBad Header: x\r\n\r\n",
        b"GET /version HTTP/1.1\r\nHost: localhost\r\nX: a\x00b\r\n\r\n",
        b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"GET /version HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 500 + b"\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ],
    ids=lambda sent: repr(sent[:40]),
)
async def test_what_is_no_http_gets_a_status_of_the_400s(hub: Hub, request_bytes: bytes) -> None:
    status, _, body = await hub.raw(request_bytes)

    assert 400 <= status < 500
    assert b"Traceback" not in body


@pytest.mark.parametrize(
    ("path", "body", "pointer"),
    [
        ("/api/v1/tickets", {f"f{n}": 1 for n in range(20_000)}, ""),
        ("/events/batch", {"events": [{"type": "a.b", "data": {}}, {f"f{n}": 1 for n in range(600)}]}, "/events/1"),
    ],
)
async def test_a_flood_of_unknown_fields_gets_one_short_answer(
    hub: Hub, path: str, body: dict[str, object], pointer: str
) -> None:
    answer = await hub.post(path, json=body)

    assert (answer.status, len(answer.body) < 1000) == (422, True)
    assert answer.json["errors"][0]["pointer"] == pointer


async def test_no_more_faults_are_listed_than_anybody_reads(hub: Hub) -> None:
    answer = await hub.post("/api/v1/tickets", json={f"f{n}": 1 for n in range(60)})

    assert answer.status == 422
    assert len(answer.json["errors"]) == MAX_FAULTS + 1
    assert "41 more" in answer.json["detail"]
