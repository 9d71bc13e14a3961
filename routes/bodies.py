"""JSON bodies and query strings: what comes in is checked here, before anything is decided with it."""

import asyncio
import gc
import json
import re
import types
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Generic, TypeVar

import orjson
from aiohttp import hdrs, web
from multidict import CIMultiDict, istr
from pydantic import BaseModel, TypeAdapter, ValidationError

from routes.errors import MAX_FAULTS, Fault, Problem, json_pointer, validation_faults
from routes.keys import SETTINGS
from taskhub.expect import ask_for_body
from taskhub.headers import IDEMPOTENCY_HEADER
from taskhub.tickets.fields import suggested_name
from taskhub.tickets.inputs import IdempotencyKey
from taskhub.tickets.text import UNSTORABLE, unstorable

MAX_BODY_BYTES: Final = 1024 * 1024
MAX_BATCH_BYTES: Final = 32 * 1024 * 1024
MAX_DEPTH: Final = 64
# Of an integer that 64 bits may hold, its sign included.
MAX_DIGITS: Final = 20
# Parsing and checking take 10 to 100 ms per MiB: from here on they happen in a thread, where others get their turns.
THREAD_BYTES: Final = 256 * 1024
MAX_VALUES: Final = 500_000
"""Of one body over THREAD_BYTES. The parser is not interrupted, in a thread neither: so many values keep every stream
waiting for 50 to 150 ms, the eleven million that 32 MiB can hold would for seconds."""

MAX_FIELDS: Final = 100
"""Of an object that is checked against a model: far more than any model has."""

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")
_IDEMPOTENCY_HEADER: Final = istr(IDEMPOTENCY_HEADER)
_JSON_HEADERS: Final = CIMultiDict({hdrs.CONTENT_TYPE: "application/json", hdrs.CACHE_CONTROL: "no-store"})
_JSON_TYPE: Final = re.compile(r"application/(?:[\w.-]+\+)?json")


async def read_body(request: web.Request, max_bytes: int = MAX_BODY_BYTES) -> bytes:
    """The whole body. Raises Problem: body_too_large, request_timeout."""
    content = request.content
    if (request.content_length or 0) > max_bytes:
        raise _too_large(max_bytes)
    # Most bodies are here as soon as their heads: nothing to wait for, so no timer either.
    here = content.read_nowait()
    if content.at_eof() and len(here) <= max_bytes:
        return here
    body = bytearray(here)
    await ask_for_body(request)
    # aiohttp never times out a body that stops half way: without this, each one would hold a handler for ever.
    seconds = request.app[SETTINGS].body_read_s
    try:
        async with asyncio.timeout(seconds or None):
            # Counted as it comes: a chunked or compressed body does not say beforehand how large it is.
            while len(body) <= max_bytes:
                piece = await content.readany()
                if not piece:
                    return bytes(body)
                body += piece
    except TimeoutError:
        detail = f"the body did not arrive within {seconds:g} seconds"
        raise Problem("request_timeout", detail, headers={"Connection": "close"}) from None
    raise _too_large(max_bytes)


async def read_json(request: web.Request, max_bytes: int = MAX_BODY_BYTES) -> Any:
    """The body as JSON values. Raises Problem: unsupported_media_type, malformed_json, and those of `read_body`."""
    if not _JSON_TYPE.fullmatch(request.content_type.lower()) or hdrs.CONTENT_TYPE not in request.headers:
        raise Problem("unsupported_media_type", "send the body with Content-Type: application/json")
    if (charset := request.charset) is not None and charset.lower() not in ("utf-8", "utf8"):
        raise Problem("unsupported_media_type", f"JSON is UTF-8, not {charset[:40]}")
    body = await read_body(request, max_bytes)
    if len(body) > THREAD_BYTES:
        return await asyncio.to_thread(_parse_large, body)
    return parse_json(body)


def _parse_large(body: bytes) -> Any:
    """`parse_json` for a thread."""
    if _too_many_values(body):
        raise Problem("body_too_large", f"the body may have at most {MAX_VALUES} values")
    gc.disable()  # or the collector would look through all that is there again and again while so much is added to it
    try:
        return parse_json(body)
    finally:
        gc.enable()


def parse_json(body: bytes) -> Any:
    """Strict JSON: UTF-8, no NaN, no lone surrogate, no key twice, not deeper than MAX_DEPTH. Raises Problem, also for
    an integer beyond 64 bits: it would become a float, which is another number."""
    try:
        value = orjson.loads(body)
        if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _deeper_than(value, MAX_DEPTH):
            raise Problem("malformed_json", f"the body is nested deeper than {MAX_DEPTH}")
        if _LONG_NUMBER in body.translate(_DIGITS_AS_ZEROS):
            ways = islice(_inexact(_EXACT.decode(body.decode())), MAX_FAULTS)
            if faults := [Fault(_TOO_LARGE, pointer=json_pointer(way)) for way in ways]:
                raise Problem.of("invalid_input", faults)
        elif not _complete(body, value):
            _KEYS_ONCE.decode(body.decode())
    except _KeyTwice as twice:
        raise Problem("malformed_json", f"the key {twice.key[:80]!r} occurs twice in one object") from None
    except ValueError as error:
        raise Problem("malformed_json", f"the body is not JSON: {error}"[:300]) from None
    except RecursionError:
        raise Problem("malformed_json", f"the body is nested deeper than {MAX_DEPTH}") from None
    return value


async def read_model(request: web.Request, model: type[M], max_bytes: int = MAX_BODY_BYTES) -> M:
    """The body as `model`. Raises Problem as `read_json`, and invalid_input with JSON pointers."""
    return check_model(await read_json(request, max_bytes), model)


async def read_model_if_any(request: web.Request, model: type[M]) -> M:
    """The same where a body may be left out."""
    return await read_model(request, model) if request.can_read_body else model()


def check_model(value: Any, model: type[M]) -> M:
    """JSON values as `model`. Raises Problem: invalid_input."""
    if not isinstance(value, dict):
        required = [name for name, field in model.model_fields.items() if field.is_required()]
        shape = ", ".join(
            f'"{name}": {"[…]" if _is_list(model.model_fields[name].annotation) else "…"}' for name in required
        )
        like = f": {{{shape}}}" if shape else ""
        raise Problem.of("invalid_input", [Fault(f"must be a JSON object{like}", pointer="")])
    if (overfull := _overfull(value)) is not None:
        # Judged before it is validated: each unknown field is an error of its own, and thousands hold up every stream.
        raise Problem.of("invalid_input", [Fault(f"has more than {MAX_FIELDS} fields", pointer=overfull)])
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise Problem.of("invalid_input", validation_faults(error, query=False, names=model.model_fields)) from None


def idempotency_key(request: web.Request) -> str | None:
    """The Idempotency-Key header. Raises Problem: bad_header."""
    given = request.headers.getall(_IDEMPOTENCY_HEADER, ())
    if not given:
        return None
    try:
        if len(given) == 1:
            return _IDEMPOTENCY_KEY.validate_python(given[0])
        reason = "is there more than once"
    except ValidationError:
        reason = "must be 1 to 200 printable ASCII characters without spaces"
    raise Problem.of("bad_header", [Fault(reason, header=IDEMPOTENCY_HEADER)])


def query_model(request: web.Request, model: type[M]) -> M:
    """The query string as `model`. Raises Problem: bad_parameter, naming every parameter that is wrong."""
    found, faults = parse_query(request.query.items() if request.rel_url.raw_query_string else (), model)
    if found is None:
        raise Problem.of("bad_parameter", faults)
    return found


def parse_query(
    items: Iterable[tuple[str, str]], model: type[M], *, also: Collection[str] = ()
) -> tuple[M | None, list[Fault]]:
    """Parameters as `model`, or what is wrong with them. A list field takes commas and repetition, any other field one
    value. Names in `also` are somebody else's: they are left alone, but suggested."""
    names = model.model_fields
    values: dict[str, Any] = {}
    faults: list[Fault] = []
    for name, text in items:
        if name in also:
            continue
        if len(faults) >= MAX_FAULTS:  # looking for what each of thousands was meant to be would hold up all others
            break
        if name not in names:
            instead = suggested_name(name, [*names, *also])
            faults.append(Fault("there is no such parameter", parameter=name[:80], did_you_mean=instead))
        elif _is_list(names[name].annotation):
            parts = [part for part in text.split(",") if part.strip()]
            values.setdefault(name, []).extend(parts)
            if not parts:
                faults.append(Fault("is empty", parameter=name))
        elif name in values:
            faults.append(Fault("is there more than once", parameter=name))
        elif unstorable(text):
            faults.append(Fault(UNSTORABLE, parameter=name))
        else:
            values[name] = text
    try:
        found = model.model_validate(values)
    except ValidationError as error:
        return None, faults + validation_faults(error, query=True)
    return (None, faults) if faults else (found, faults)


@dataclass(frozen=True, slots=True)
class Items(Generic[T]):
    """A whole list."""

    items: Sequence[T]


class NoParameters(BaseModel):
    """The query of a resource that has none."""


def no_parameters(request: web.Request) -> None:
    """Raise Problem (bad_parameter) when there is a query string that says something."""
    if request.rel_url.raw_query_string:
        query_model(request, NoParameters)


def json_response(value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """A value (dataclasses included), or JSON that is encoded already, as the answer."""
    body = value if isinstance(value, bytes) else orjson.dumps(value)
    response = web.Response(status=status, body=body, headers=_JSON_HEADERS)
    if headers:
        response.headers.update(headers)
    return response


def _overfull(value: dict[str, Any]) -> str | None:
    """The pointer of the first object with too many fields: the body itself, or one in a list of objects in it."""
    if len(value) > MAX_FIELDS:
        return ""
    for name, member in value.items():
        for index, item in enumerate(member if isinstance(member, list) else ()):
            if isinstance(item, dict) and len(item) > MAX_FIELDS:
                return f"/{name[:80]}/{index}"
    return None


class _KeyTwice(Exception):
    def __init__(self, key: str) -> None:
        self.key = key


class _Inexact:
    """In place of an integer that 64 bits do not hold."""


def _integer(digits: str) -> int | _Inexact:
    if len(digits) > MAX_DIGITS:  # not even read: reading takes the square of the length
        return _Inexact()
    number = int(digits)
    return number if number in _INTEGERS else _Inexact()


def _inexact(value: Any, way: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The ways to the integers that cannot be kept."""
    if isinstance(value, _Inexact):
        yield way
    elif isinstance(value, dict | list):
        for step, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _inexact(child, (*way, step))


def _object_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _once(pairs)
    return dict(pairs)


def _once(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise _KeyTwice(key)
        seen.add(key)


_KEYS_ONCE: Final = json.JSONDecoder(object_pairs_hook=_once)
# Slower, for a call for each integer: only for bodies with a run of digits that may not fit.
_EXACT: Final = json.JSONDecoder(object_pairs_hook=_object_once, parse_int=_integer)
_DIGITS_AS_ZEROS: Final = bytes.maketrans(b"123456789", b"000000000")
_LONG_NUMBER: Final = b"0" * 19
_CONTAINERS: Final = frozenset({dict, list})
_MIB: Final = 1024 * 1024
# In front of each value but the first of a document stands one of these.
_MARKS: Final = b",[{"
_UNMARKING: Final = bytes(set(range(256)).difference(_MARKS))
# A text that does not end counts as one, too: looked for again from each quote inside, it would take for ever.
_TEXT_OR_MARK: Final = re.compile(rb'(?s)"(?:[^"\\]++|\\.)*+"?|([,\[{])')
_INTEGERS: Final = range(-(2**63), 2**64)
_TOO_LARGE: Final = "an integer beyond 64 bits cannot be kept as it is: send it as text"
_IDEMPOTENCY_KEY: Final[TypeAdapter[str]] = TypeAdapter(IdempotencyKey)


def _complete(body: bytes, value: Any) -> bool:
    """Whether every key of the body is in the value; False also when that is not certain.

    orjson keeps the last of two equal keys; who sends both means something that would get lost. A lost key has lost its
    colon: encoded again, the value has as many of them as the body, unless a text has one as an escape (`\\u003a`).
    """
    return b"\\u003" not in body and body.count(b":") == orjson.dumps(value).count(b":")


def _deeper_than(value: Any, limit: int) -> bool:
    """Whether more than `limit` objects and arrays stand in each other."""
    level = [value] if type(value) in _CONTAINERS else []
    for _ in range(limit):
        if not level:
            return False
        children = [parent.values() if type(parent) is dict else parent for parent in level]
        level = [child for each in children for child in each if type(child) in _CONTAINERS]
    return bool(level)


def _too_many_values(body: bytes) -> bool:
    """Whether parsing would make more than MAX_VALUES values."""
    if sum(len(body[at : at + _MIB].translate(None, _UNMARKING)) for at in range(0, len(body), _MIB)) <= MAX_VALUES:
        return False
    # Too many commas and brackets; those inside of texts do not count.
    marks = (mark for mark in _TEXT_OR_MARK.finditer(body) if mark.lastindex)
    return next(islice(marks, MAX_VALUES, None), None) is not None


def _too_large(max_bytes: int) -> Problem:
    return Problem("body_too_large", f"the body may have at most {max_bytes} bytes")


def _is_list(annotation: Any) -> bool:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return any(_is_list(option) for option in typing.get_args(annotation))
    if typing.get_origin(annotation) is typing.Annotated:
        return _is_list(typing.get_args(annotation)[0])
    return typing.get_origin(annotation) is list
