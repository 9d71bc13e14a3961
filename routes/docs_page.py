"""The description of the API as a page: HTML alone, readable without the script."""

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from html import escape
from typing import Any, Final

import orjson

from routes.dashboard import top_bar
from routes.openapi import PROBLEM_TYPE, Json

_MEASURES: Final = {
    "minimum": "at least {}", "exclusiveMinimum": "more than {}", "maximum": "at most {}",
    "minLength": "{} or more characters", "maxLength": "{} characters at most", "minItems": "{} or more",
    "maxItems": "{} at most", "default": "default {}", "pattern": "like {}",
}  # fmt: skip
_EXAMPLES: Final = {"key": "TH-1", "other": "TH-2", "no": "1", "relation": "blocks"}


def render(document: Json, origin: str, address: Callable[[str], str], *, with_key: bool) -> str:
    """The page. `origin`: where the server is, for the commands; `address`: where a file of the page is; `with_key`:
    whether the commands need a key."""
    page = _Page(document, origin, with_key)
    info = document["info"]
    key = '<label>API key <input type="password" id="key" autocomplete="off"></label>' if with_key else ""
    about = "".join(f"<p>{_prose(part)}</p>" for part in info["description"].split("\n\n"))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>TaskHub API</title>'
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
        f'<link rel="icon" type="image/svg+xml" href="{address("icon.svg")}">'
        f'<link rel="stylesheet" href="{address("base.css")}"><link rel="stylesheet" href="{address("docs.css")}">'
        f'<script src="{address("docs.js")}" defer></script>'
        f'</head><body>{top_bar("/docs", address)}<main id="main" tabindex="-1" lang="en">'
        f"<header><h1>TaskHub API <small>{escape(info['version'])}</small></h1>{about}"
        '<p><a href="/openapi.json">openapi.json</a> · <a href="/mcp">for MCP clients</a> · '
        '<a href="/capabilities">capabilities</a> · <a href="/health">health</a></p>'
        f'<form class="tools" hidden><label>Filter <input type="search" id="filter"></label>{key}</form></header>'
        f"{''.join(page.sections())}</main></body></html>"
    )


class _Page:
    def __init__(self, document: Json, origin: str, with_key: bool) -> None:
        self._document = document
        self._origin = origin
        self._with_key = with_key

    def sections(self) -> Iterator[str]:
        for tag in self._document["tags"]:
            operations = "".join(
                self._operation(method, path, operation)
                for path, methods in self._document["paths"].items()
                for method, operation in methods.items()
                if tag["name"] in operation["tags"]
            )
            name = escape(tag["name"])
            yield f'<section><h2 id="{name}">{name}</h2><p>{_prose(tag["description"])}</p>{operations}</section>'

    def _operation(self, method: str, path: str, operation: Json) -> str:
        verb, name = method.upper(), escape(operation["operationId"])
        parts = [
            f"<p>{_prose(operation['description'])}</p>" if "description" in operation else "",
            self._scope(operation),
            self._curl(verb, path, operation),
            self._parameters(operation),
            self._body(operation),
            self._answers(operation),
        ]
        summary = f"<code>{_breakable(path)}</code> <span>{escape(operation['summary'])}</span>"
        return (
            f'<details class="operation" id="{name}"><summary><span class="method {method}">{verb}</span> {summary}'
            f"</summary>{''.join(parts)}</details>"
        )

    def _scope(self, operation: Json) -> str:
        if operation.get("security") == []:
            return "<p>Needs no key.</p>"
        scopes = sorted({s for need in operation.get("security", ()) for each in need.values() for s in each})
        return f"<p>Needs the scope <code>{escape(', '.join(scopes))}</code>.</p>" if scopes else ""

    def _curl(self, verb: str, path: str, operation: Json) -> str:
        path = re.sub(r"{(\w+)}", lambda found: _EXAMPLES.get(found[1], found[1].upper()), path)
        required = [p["name"] for p in self._resolved(operation) if p["in"] == "query" and p["required"]]
        if required:
            path += "?" + "&".join(f"{name}={name.upper()}" for name in required)
        streams = "text/event-stream" in operation["responses"].get("200", {}).get("content", ())
        words = ["curl", *(["-N"] if streams else []), *([] if verb == "GET" else ["-X", verb])]
        command = f"{shlex.join(words)} {shlex.quote(self._origin + path)}"
        if self._with_key and operation.get("security") != []:
            command += ' -H "x-api-key: $TASKHUB_API_KEY"'
        for header in self._resolved(operation):
            if header["in"] == "header" and header["required"]:
                command += " -H " + shlex.quote(f"{header['name']}: {header['schema']['examples'][0]}")
        if (body := operation.get("requestBody")) is not None:
            media, content = next(iter(body["content"].items()))
            example = orjson.dumps(content["example"]).decode() if "example" in content else "@FILE"
            option = "-d" if "example" in content else "--data-binary"
            command += f" -H 'Content-Type: {media}' {option} {shlex.quote(example)}"
        tried = ""
        if verb == "GET" and not streams:
            tried = (
                f'<form class="try" hidden><input aria-label="what to ask" value="{escape(path)}"> '
                '<button>Try it</button></form><pre class="result" hidden></pre>'
            )
        return f'<div class="curl"><pre>{escape(command)}</pre><button class="copy" hidden>Copy</button></div>{tried}'

    def _parameters(self, operation: Json) -> str:
        rows = "".join(
            self._row(p["name"], p["schema"], p.get("description", ""), _notes(p["in"], required=p["required"]))
            for p in self._resolved(operation)
        )
        return f"<h3>Parameters</h3>{_table(rows)}" if rows else ""

    def _body(self, operation: Json) -> str:
        if "requestBody" not in operation:
            return ""
        content = operation["requestBody"]["content"]
        if "application/json" not in content:
            return f"<h3>Body</h3><p>{' or '.join(map(escape, content))}</p>"
        return f"<h3>Body</h3>{self._value(content['application/json']['schema'], taken=True)}"

    def _answers(self, operation: Json) -> str:
        parts: list[str] = []
        problems: list[str] = []
        for status, given in operation["responses"].items():
            response = self._lookup(given)
            content: Mapping[str, Any] = response.get("content", {})
            if PROBLEM_TYPE in content:
                codes = content[PROBLEM_TYPE]["schema"]["properties"]["code"]["enum"]
                named = " ".join(f"<code>{escape(code)}</code>" for code in codes)
                problems.append(f"<dt>{status}</dt><dd>{named}</dd>")
                continue
            headers = ", ".join(f"<code>{escape(name)}</code>" for name in response.get("headers", ()))
            sent = "; headers ".join(filter(None, [", ".join(map(escape, content)), headers]))
            parts.append(f"<h3>{status} {escape(response['description'])}</h3>{f'<p>{sent}</p>' if sent else ''}")
            if (schema := content.get("application/json", {}).get("schema")) is not None:
                parts.append(self._value(schema, taken=False))
        listed = f'<dl class="problems">{"".join(problems)}</dl>'
        return f"{''.join(parts)}<details><summary>Problems</summary>{listed}</details>"

    def _value(self, schema: Json, *, taken: bool) -> str:
        """A schema's members as a table, under what is said of it. Of what is taken, what must be there is marked; of
        what is answered, what may be absent."""
        found = self._lookup(schema)
        said = f"<p>{_prose(found['description'])}</p>" if "description" in found else ""
        rows = ""
        for name, member in found.get("properties", {}).items():
            there = name in found.get("required", ())
            notes = _notes("", required=there) if taken else "" if there else _small("if it applies")
            rows += self._row(name, member, member.get("description", ""), notes, taken=taken)
        return said + (_table(rows) if rows else "")

    def _row(self, name: str, schema: Json, said: str, notes: str, *, taken: bool = True) -> str:
        inner = next((part for part in _parts(schema) if "$ref" in part), None)
        nested = ""
        if inner is not None:
            members = self._value(inner, taken=taken)
            nested = f"<details><summary>{escape(_model(inner))}</summary>{members}</details>"
        facts = "; ".join(escape(fact) for fact in _facts(schema))
        return (
            f"<tr><th><code>{_breakable(name)}</code>{notes}</th><td>{escape(_type(schema))}</td>"
            f"<td>{_prose(said)}{_small(facts)}{nested}</td></tr>"
        )

    def _resolved(self, operation: Json) -> list[Json]:
        return [self._lookup(parameter) for parameter in operation.get("parameters", ())]

    def _lookup(self, value: Json) -> Json:
        """What a reference refers to; any other value as it is."""
        if "$ref" not in value:
            return value
        found: Any = self._document
        for step in value["$ref"].removeprefix("#/").split("/"):
            found = found[step]
        return dict(found)


def _table(rows: str) -> str:
    return f'<div class="table"><table>{rows}</table></div>'


def _notes(place: str, *, required: bool) -> str:
    return f"{_small(place if place != 'query' else '')}{' <b>required</b>' if required else ''}"


def _small(words: str) -> str:
    return f" <small>{words}</small>" if words else ""


def _parts(schema: Json) -> Iterator[Json]:
    """A schema, and those that it is made of as a union or a list."""
    yield schema
    for part in (*schema.get("anyOf", ()), *([schema["items"]] if "items" in schema else [])):
        yield from _parts(part)


def _type(schema: Json) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(part) for part in schema["anyOf"])
    if "$ref" in schema:
        return _model(schema)
    if "enum" in schema or "const" in schema:
        return " | ".join(str(value) for value in schema.get("enum", [schema.get("const")])) or "anything"
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    return str(schema.get("format") or schema.get("type") or "anything")


def _facts(schema: Json) -> Iterator[str]:
    for part in _parts(schema):
        for name, words in _MEASURES.items():
            if name in part:
                value = part[name]
                yield words.format(value if isinstance(value, str) else orjson.dumps(value).decode())


def _model(schema: Json) -> str:
    return str(schema["$ref"]).rpartition("/")[2]


def _prose(text: str) -> str:
    """Text with `code` in it."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))


def _breakable(text: str) -> str:
    """A name or path that a narrow screen may break after its marks."""
    return re.sub(r"([/_.])", r"\1<wbr>", escape(text))
