"""The description of the API: it is OpenAPI, it is what runs, and nothing is missing from it."""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any, Final

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from routes.api import ROUTES, Route
from routes.docs_page import render
from routes.errors import CODES
from routes.openapi import PROBLEM_TYPE, describe
from tests.routes.conftest import Hub, Start
from tests.routes.openapi_snapshot import KEPT, application, described

SERVED: Final = application()[ROUTES]
DOCUMENT: Final = describe(SERVED, "1")
OPERATIONS: Final = [
    (path, method, operation) for path, methods in DOCUMENT["paths"].items() for method, operation in methods.items()
]


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for child in value.values():
            yield from references(child)
    elif isinstance(value, list):
        for child in value:
            yield from references(child)


def resolved(value: dict[str, Any]) -> Any:
    found: Any = DOCUMENT
    if "$ref" not in value:
        return value
    for step in value["$ref"].removeprefix("#/").split("/"):
        found = found[step]
    return found


def test_the_document_is_openapi() -> None:
    assert [error.message for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()] == []


def test_the_document_is_the_one_in_the_repository() -> None:
    renew = "the API's description has changed; if it should: python -m tests.routes.openapi_snapshot"

    assert described() == KEPT.read_text(), renew


def test_every_route_is_in_the_document_and_nothing_else() -> None:
    answers_head = {route.path for route in SERVED if route.method == "GET" and route.head}
    served = {
        (route.method, route.resource.canonical)
        for route in application().router.routes()
        if route.resource is not None and not (route.method == "HEAD" and route.resource.canonical in answers_head)
    }

    assert served == {(method.upper(), path) for path, method, _ in OPERATIONS}


def test_every_operation_has_a_name_of_its_own_that_says_verb_and_resource() -> None:
    names = [operation["operationId"] for _, _, operation in OPERATIONS]

    assert len(set(names)) == len(names)
    assert [name for name in names if not re.fullmatch(r"[a-z]+(_[a-z]+)+", name)] == []


def test_every_reference_leads_somewhere_and_every_shared_schema_is_used() -> None:
    found = set(references(DOCUMENT))
    shared = {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}

    assert all(resolved({"$ref": reference}) for reference in found)
    assert shared <= found


@pytest.mark.parametrize("route", SERVED, ids=lambda route: route.name)
def test_every_problem_that_is_described_has_a_code_and_its_status(route: Route) -> None:
    assert set(route.problems) <= set(CODES)
    operation = DOCUMENT["paths"][route.path][route.method.lower()]
    told: dict[str, int] = {}
    for status, response in operation["responses"].items():
        content = resolved(response).get("content", {})
        if PROBLEM_TYPE in content:
            told |= dict.fromkeys(content[PROBLEM_TYPE]["schema"]["properties"]["code"]["enum"], int(status))

    assert told == {code: CODES[code][0] for code in route.codes}


@pytest.mark.parametrize("route", [route for route in SERVED if route.body], ids=lambda route: route.name)
def test_every_body_has_an_example_that_is_valid(route: Route) -> None:
    assert route.body is not None
    assert route.example is not None
    route.body.model_validate(route.example)


def test_a_header_that_nothing_is_said_about_is_refused() -> None:
    with pytest.raises(KeyError):
        describe([dataclasses.replace(SERVED[0], takes=("X-Unheard-Of",))], "1")
    with pytest.raises(KeyError):
        describe([dataclasses.replace(SERVED[0], sends=("X-Unheard-Of",))], "1")


async def test_the_document_is_served_to_whoever_asks(start: Start) -> None:
    hub = await start(api_key="k-secret")
    answer = await hub.get("/openapi.json")

    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/json")
    assert answer.json["paths"] == DOCUMENT["paths"]
    assert b"k-secret" not in answer.body


async def test_who_has_the_document_gets_it_only_when_it_changed(hub: Hub) -> None:
    first = await hub.get("/openapi.json")
    again = await hub.get("/openapi.json", headers={"If-None-Match": first.headers["ETag"]})
    other = await hub.get("/openapi.json", headers={"If-None-Match": '"another"'})

    assert "no-store" not in first.headers["Cache-Control"]
    assert (again.status, again.body, again.headers["ETag"]) == (304, b"", first.headers["ETag"])
    assert other.status == 200


async def test_a_server_in_front_of_another_describes_only_what_it_has(start: Start) -> None:
    hub = await start(api_base_url="http://127.0.0.1:1")
    document = (await hub.get("/openapi.json")).json

    assert "/mcp" in document["paths"]
    assert "/api/v1/tickets" not in document["paths"]
    assert [error.message for error in OpenAPIV31SpecValidator(document).iter_errors()] == []


async def test_the_page_shows_every_operation_and_a_command_for_this_very_host(hub: Hub) -> None:
    answer = await hub.get("/docs")
    page = answer.body.decode()

    assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
    assert [o["operationId"] for _, _, o in OPERATIONS if f'id="{o["operationId"]}"' not in page] == []
    assert f"curl {hub.url}/api/v1/tickets/TH-1<" in page
    for verb in ("PATCH", "DELETE"):  # nobody else may keep a ticket for longer, or give it back
        assert f"curl -X {verb} {hub.url}/api/v1/tickets/TH-1/lease -H &#x27;TaskHub-Lease-Token: 1&#x27; " in page
    assert "x-api-key: $TASKHUB_API_KEY" not in page


async def test_where_a_key_is_needed_the_commands_have_a_place_for_it(start: Start) -> None:
    hub = await start(api_key="k-secret")
    page = (await hub.get("/docs")).body

    assert b"x-api-key: $TASKHUB_API_KEY" in page
    assert b"k-secret" not in page


async def test_the_page_needs_nothing_that_its_policy_refuses(hub: Hub) -> None:
    answer = await hub.get("/docs")
    page = answer.body.decode()
    loaded = re.findall(r'(?:script src|rel="stylesheet" href)="([^"]+)"', page)

    assert "default-src 'self'" in answer.headers["Content-Security-Policy"]
    assert [path.rpartition("/")[2] for path in loaded] == ["base.css", "docs.css", "docs.js"]
    assert not re.search(r"<script>|<style|\son[a-z]+=|\sstyle=", page)
    for path, kind in zip(loaded, ("text/css", "text/css", "text/javascript"), strict=True):
        found = await hub.get(path)
        assert (found.status, found.headers["Content-Type"].partition(";")[0]) == (200, kind)


def test_what_the_document_says_is_text_on_the_page() -> None:
    hostile = "<script>alert(1)</script>"
    route = dataclasses.replace(SERVED[0], summary=hostile, detail=hostile)
    page = render(describe([route], hostile), f"http://{hostile}", "/static/{}".format, with_key=True)

    assert hostile not in page


def test_restoring_a_ticket_never_answers_that_it_was_deleted() -> None:
    restoring = DOCUMENT["paths"]["/api/v1/tickets/{key}/restore"]["post"]

    assert "410" not in restoring["responses"]
    assert "410" in DOCUMENT["paths"]["/api/v1/tickets/{key}"]["delete"]["responses"]
