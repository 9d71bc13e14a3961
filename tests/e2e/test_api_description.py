"""What the API's description says is what a server does: asked all that it allows, and much that it does not."""

import json
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlencode

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.specs.openapi.schemas import OpenApiSchema

from taskhub.auth.providers import ACTOR_HEADER
from tests.e2e.harness.process import TaskHubProcess
from tests.routes.openapi_snapshot import KEPT

Json = dict[str, Any]

DOCUMENT: Final[Json] = json.loads(KEPT.read_text())


def takes_query(operation: Json) -> bool:
    return any(parameter.get("in") == "query" for parameter in operation.get("parameters", ()))


def takes_json(operation: Json) -> bool:
    return "application/json" in operation.get("requestBody", {}).get("content", ())


# Nobody can make up a file from its media type alone: these have a bit of everything.
CELLS: Final = st.one_of(
    st.sampled_from(["summary", "key", "external_ticket_id", "TH-1", "old-1", "high", '"']), st.text()
)
ROWS: Final = st.dictionaries(st.sampled_from(["summary", "key", "external_ticket_id", "priority", "labels"]), CELLS)
CSV: Final = st.lists(st.lists(CELLS).map(",".join)).map("\n".join)
JSON_LINES: Final = st.lists(st.one_of(ROWS.map(json.dumps), st.text())).map("\n".join)
for media, text in (("text/csv", CSV), ("application/jsonl", JSON_LINES), ("application/x-ndjson", JSON_LINES)):
    made = text.map(lambda file: file.encode("utf-8", "surrogatepass"))
    schemathesis.openapi.media_type(media, st.one_of(made, st.binary()))

# The Model Context Protocol has its own description and its own tests.
ASKED: Final[list[Json]] = [
    operation
    for methods in DOCUMENT["paths"].values()
    for operation in methods.values()
    if operation["tags"] != ["mcp"]
]
MODES: Final = [
    (operation["operationId"], mode)
    for operation in ASKED
    for mode in GenerationMode
    # With nothing but names, headers and the texts of a form, nothing can be sent that is wrong by its form.
    if mode is GenerationMode.POSITIVE or takes_json(operation) or takes_query(operation)
]
CHECKS: Final = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
EXAMPLES: Final = 8
"""Of each operation and mode, the same in every run: a hundred and more operations have them."""
# How long a request may ask to be kept waiting: a stream, or a poll for events that do not come.
PATIENCE: Final = {"timeout": 0.05, "wait": 0}
TIMEOUT_S: Final = 60
MAX_LINE: Final = 8000
ACTORS: Final = ("user:alice", "agent:triage", None)


def exact(document: Json) -> Json:
    """The document for a reader who takes a member that it does not name for a mistake. Only problems may have more."""
    strict: Json = json.loads(json.dumps(document))
    for name, schema in strict["components"]["schemas"].items():
        if name != "Problem" and "properties" in schema:
            schema.setdefault("additionalProperties", False)
    return strict


@pytest.fixture(scope="module")
def schema() -> OpenApiSchema:
    return schemathesis.openapi.from_dict(exact(DOCUMENT))


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


@pytest.fixture
def key(session: requests.Session, hub: TaskHubProcess) -> str:
    """The key of a ticket that nobody has done anything to."""
    created = session.post(f"{hub.url}/api/v1/tickets", json={"summary": "Printer is on fire"}, timeout=TIMEOUT_S)
    return str(created.json()["key"])


@pytest.mark.parametrize(("name", "mode"), MODES)
def test_a_server_answers_as_the_description_says(
    name: str, mode: GenerationMode, schema: OpenApiSchema, session: requests.Session, hub: TaskHubProcess, key: str
) -> None:
    operation = schema.find_operation_by_id(name)
    taken = {parameter.name for parameter in operation.query}
    bounded = {parameter: bound for parameter, bound in PATIENCE.items() if parameter in taken}

    @settings(
        max_examples=EXAMPLES, derandomize=True, database=None, deadline=None,
        phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(operation.as_strategy(generation_mode=mode), st.booleans(), st.sampled_from(ACTORS))
    def ask(case: Case[Any], exists: bool, actor: str | None) -> None:
        # Most of what is made up is no ticket and nobody's name: then no more would be asked.
        if exists and "key" in case.path_parameters:
            case.path_parameters["key"] = key
        if actor is not None:
            case.headers[ACTOR_HEADER] = actor
        case.query.update(bounded)
        # What no longer is HTTP to the server is answered as such: nothing that a description could speak of.
        assume(len(urlencode(case.query, doseq=True)) < MAX_LINE)
        response = case.call(hub.url, session=session, timeout=TIMEOUT_S, allow_redirects=False)
        case.validate_response(response, checks=CHECKS)

    ask()
