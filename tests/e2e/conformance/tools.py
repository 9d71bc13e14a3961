"""The tools that the conformance suite calls. What each answers is the suite's: see the scenario that it is for."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    AudioContent,
    CallToolRequestParams,
    CallToolResult,
    ContentBlock,
    ElicitRequest,
    ElicitResult,
    EmbeddedResource,
    ImageContent,
    InputRequiredResult,
    InputResponses,
    ListRootsRequest,
    SamplingMessage,
    TextContent,
    TextResourceContents,
)
from mcp_types import Tool as ListedTool

from tests.e2e.conformance.rounds import Round, form, next_round, prompt
from tests.e2e.conformance.samples import PNG, WAV

Context = ServerRequestContext[Any, Any]
Run = Callable[[Context, CallToolRequestParams], Awaitable[CallToolResult | InputRequiredResult]]
PAUSE_S: Final = 0.05
"""Between the messages of one call: the suite wants to see that they come one by one."""


@dataclass(frozen=True, slots=True)
class Fixture:
    """A tool as it is listed, and what a call of it does."""

    listed: ListedTool
    run: Run

    @property
    def name(self) -> str:
        return self.listed.name


def answer(*content: ContentBlock) -> CallToolResult:
    return CallToolResult(content=list(content))


def text(words: str) -> CallToolResult:
    return answer(TextContent(text=words))


def fixture(name: str, run: Run, schema: Mapping[str, Any] | None = None, **properties: Mapping[str, Any]) -> Fixture:
    """A tool whose arguments are all required, unless a whole schema is given."""
    described = dict(schema or {"type": "object", "properties": properties, "required": list(properties)})
    return Fixture(ListedTool(name=name, description=f"The suite's {name}", input_schema=described), run)


def answering(name: str, *content: ContentBlock) -> Fixture:
    async def run(context: Context, params: CallToolRequestParams) -> CallToolResult:
        return answer(*content)

    return fixture(name, run)


def embedded(uri: str, mime_type: str, words: str) -> EmbeddedResource:
    return EmbeddedResource(resource=TextResourceContents(uri=uri, mime_type=mime_type, text=words))


async def fail(context: Context, params: CallToolRequestParams) -> CallToolResult:
    failed = text("This tool intentionally returns an error for testing")
    return failed.model_copy(update={"is_error": True})


async def log(context: Context, params: CallToolRequestParams) -> CallToolResult:
    for message in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await context.session.send_log_message("info", message, related_request_id=context.request_id)
        await asyncio.sleep(PAUSE_S)
    return text("Logged three messages.")


async def progress(context: Context, params: CallToolRequestParams) -> CallToolResult:
    for done in (0, 50, 100):
        await context.session.report_progress(done, 100)
        await asyncio.sleep(PAUSE_S)
    return text("Reported progress three times.")


# Until the 2026 era a server asks over the stream on which it will answer.


async def sample(context: Context, params: CallToolRequestParams) -> CallToolResult:
    question = SamplingMessage(role="user", content=TextContent(text=str((params.arguments or {})["prompt"])))
    reply = await context.session.create_message([question], max_tokens=100, related_request_id=context.request_id)
    return text(f"LLM response: {reply.content}")


def eliciting(name: str, properties: Mapping[str, Any], **arguments: Mapping[str, Any]) -> Fixture:
    """Asks the user to fill in a form, and tells what they did."""
    requested = {"type": "object", "properties": dict(properties), "required": []}

    async def run(context: Context, params: CallToolRequestParams) -> CallToolResult:
        message = str((params.arguments or {}).get("message", "Please fill in"))
        reply = await context.session.elicit_form(message, requested, related_request_id=context.request_id)
        return text(f"Elicitation completed: action={reply.action}, content={reply.content}")

    return fixture(name, run, **arguments)


DEFAULTS: Final = {
    "name": {"type": "string", "default": "John Doe"},
    "age": {"type": "integer", "default": 30},
    "score": {"type": "number", "default": 95.5},
    "status": {"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
    "verified": {"type": "boolean", "default": True},
}
OPTIONS: Final = ["option1", "option2", "option3"]
TITLED: Final = [{"const": f"value{n}", "title": f"{nth} Option"} for n, nth in enumerate(("First", "Second"), 1)]
CHOICES: Final = {
    "untitledSingle": {"type": "string", "enum": OPTIONS},
    "titledSingle": {"type": "string", "oneOf": TITLED},
    "legacyEnum": {"type": "string", "enum": ["opt1", "opt2"], "enumNames": ["Option One", "Option Two"]},
    "untitledMulti": {"type": "array", "items": {"type": "string", "enum": OPTIONS}},
    "titledMulti": {"type": "array", "items": {"anyOf": TITLED}},
}


# Since then it answers with what it needs to know, and is asked again.


def tell(params: CallToolRequestParams, answers: InputResponses) -> str:
    return f"Answered: {answers}"


def asking(name: str, *rounds: Round, finish: Callable[[CallToolRequestParams, InputResponses], str] = tell) -> Fixture:
    """Asks round by round; `finish` makes the text of the result from the answers of the last one."""

    async def run(context: Context, params: CallToolRequestParams) -> CallToolResult | InputRequiredResult:
        asked = next_round(rounds, params)
        return asked if isinstance(asked, InputRequiredResult) else text(finish(params, asked))

    return fixture(name, run)


def greet(params: CallToolRequestParams, answers: InputResponses) -> str:
    reply = answers["user_name"]
    assert isinstance(reply, ElicitResult)
    return f"Hello, {(reply.content or {}).get('name')}!"


def tell_state(params: CallToolRequestParams, answers: InputResponses) -> str:
    return "state-ok" if params.request_state == "0" else "state-missing"


async def ask_what_the_client_can_answer(
    context: Context, params: CallToolRequestParams
) -> CallToolResult | InputRequiredResult:
    able = context.session.client_capabilities
    questions: dict[str, Any] = {}
    if able is not None and able.elicitation is not None:
        questions["user_name"] = NAME
    if able is not None and able.sampling is not None:
        questions["greeting"] = prompt("Generate a greeting", 50)
    asked = next_round([questions], params)
    return asked if isinstance(asked, InputRequiredResult) else text(tell(params, asked))


async def need_sampling(context: Context, params: CallToolRequestParams) -> CallToolResult:
    able = context.session.client_capabilities
    if able is None or able.sampling is None:
        required: dict[str, Any] = {"requiredCapabilities": {"sampling": {}}}
        raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, "this tool needs sampling", required)
    return text("The client can sample.")


async def echo(context: Context, params: CallToolRequestParams) -> CallToolResult:
    return text(str(params.arguments or {}))


STRING: Final = {"type": "string"}
NAME: Final[ElicitRequest] = form("What is your name?", name="string")
CONFIRM: Final = {"confirm": form("Please confirm", ok="boolean")}
ROOTS: Final = ListRootsRequest()
FORM: Final = {
    "username": {"type": "string", "description": "User's response"},
    "email": {"type": "string", "description": "User's email address"},
}
SCHEMA_2020_12: Final = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {"address": {"$anchor": "addressDef", "type": "object", "properties": {"street": STRING, "city": STRING}}},
    "properties": {
        "name": STRING,
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": STRING,
        "email": STRING,
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}
IMAGE: Final = ImageContent(data=PNG, mime_type="image/png")

TOOLS: Final[Sequence[Fixture]] = (
    answering("test_simple_text", TextContent(text="This is a simple text response for testing.")),
    answering("test_image_content", IMAGE),
    answering("test_audio_content", AudioContent(data=WAV, mime_type="audio/wav")),
    answering(
        "test_embedded_resource",
        embedded("test://embedded-resource", "text/plain", "This is an embedded resource content."),
    ),
    answering(
        "test_multiple_content_types",
        TextContent(text="Multiple content types test:"),
        IMAGE,
        embedded("test://mixed-content-resource", "application/json", '{"test":"data","value":123}'),
    ),
    fixture("test_error_handling", fail),
    fixture("test_tool_with_logging", log),
    fixture("test_logging_tool", log),
    fixture("test_tool_with_progress", progress),
    fixture("test_sampling", sample, prompt=STRING),
    eliciting("test_elicitation", FORM, message=STRING),
    eliciting("test_elicitation_sep1034_defaults", DEFAULTS),
    eliciting("test_elicitation_sep1330_enums", CHOICES),
    fixture("test_missing_capability", need_sampling),
    asking("test_streaming_elicitation", {"user_name": NAME}, finish=greet),
    asking("test_input_required_result_elicitation", {"user_name": NAME}, finish=greet),
    asking("test_input_required_result_sampling", {"capital_question": prompt("What is the capital of France?")}),
    asking("test_input_required_result_list_roots", {"client_roots": ROOTS}),
    asking("test_input_required_result_request_state", CONFIRM, finish=tell_state),
    asking(
        "test_input_required_result_multiple_inputs",
        {"user_name": NAME, "greeting": prompt("Generate a greeting", 50), "client_roots": ROOTS},
        finish=greet,
    ),
    asking(
        "test_input_required_result_multi_round",
        {"step1": form("Step 1: What is your name?", name="string")},
        {"step2": form("Step 2: What is your favorite color?", color="string")},
    ),
    asking("test_input_required_result_tampered_state", CONFIRM),
    fixture("test_input_required_result_capabilities", ask_what_the_client_can_answer),
    fixture("json_schema_2020_12_tool", echo, SCHEMA_2020_12),
    fixture("test_header_argument", echo, region={"type": "string", "x-mcp-header": "Region"}),
)
