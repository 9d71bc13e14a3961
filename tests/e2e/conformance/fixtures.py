"""What the conformance suite calls on any server, laid over the handlers of one; other names reach those as before."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, TypeVar

from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp_types import (
    BlobResourceContents,
    CallToolRequestParams,
    CompleteRequestParams,
    CompleteResult,
    Completion,
    EmbeddedResource,
    EmptyResult,
    GetPromptRequestParams,
    GetPromptResult,
    ImageContent,
    InputRequiredResult,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    Prompt,
    PromptArgument,
    PromptMessage,
    PromptReference,
    ReadResourceRequestParams,
    ReadResourceResult,
    RequestParams,
    Resource,
    ResourceTemplate,
    SetLevelRequestParams,
    SubscribeRequestParams,
    TextContent,
    TextResourceContents,
    UnsubscribeRequestParams,
)
from pydantic import BaseModel

from tests.e2e.conformance.rounds import form, next_round
from tests.e2e.conformance.samples import PNG
from tests.e2e.conformance.tools import TOOLS

Context = ServerRequestContext[Any, Any]
Parameters = TypeVar("Parameters", bound=RequestParams)
Handler = Callable[[Context, Parameters], Awaitable[Any]]
Result = TypeVar("Result", bound=BaseModel)

STATIC_TEXT: Final = "test://static-text"
STATIC_BINARY: Final = "test://static-binary"
WATCHED: Final = "test://watched-resource"
TEMPLATE_START: Final = "test://template/"
TEMPLATE_END: Final = "/data"
RESOURCES: Final = (
    Resource(uri=STATIC_TEXT, name="static-text", description="A text that never changes", mime_type="text/plain"),
    Resource(uri=STATIC_BINARY, name="static-binary", description="An image", mime_type="image/png"),
    Resource(uri=WATCHED, name="watched", description="A resource to subscribe to", mime_type="text/plain"),
)
TEMPLATE: Final = ResourceTemplate(
    uri_template=f"{TEMPLATE_START}{{id}}{TEMPLATE_END}",
    name="template",
    description="Data of an id",
    mime_type="application/json",
)

PROMPTS: Final = tuple(
    Prompt(
        name=name,
        description=f"The suite's {name}",
        arguments=[PromptArgument(name=argument, description="any text", required=True) for argument in arguments],
    )
    for name, arguments in (
        ("test_simple_prompt", ()),
        ("test_prompt_with_arguments", ("arg1", "arg2")),
        ("test_prompt_with_embedded_resource", ("resourceUri",)),
        ("test_prompt_with_image", ()),
        ("test_input_required_result_prompt", ()),
    )
)
PLACES: Final = ("paris", "park", "party")


def add_fixtures(server: Server[Any]) -> None:
    """Lay the suite's tools, resources, prompts and completions over the handlers that the server has."""

    def overlay(method: str, parameters: type[Parameters], make: Callable[[Handler[Parameters]], Any]) -> None:
        entry = server.get_request_handler(method)
        assert entry is not None, method
        server.add_request_handler(method, parameters, make(entry.handler))

    overlay("tools/list", PaginatedRequestParams, _adding(ListToolsResult, tools=[tool.listed for tool in TOOLS]))
    overlay("tools/call", CallToolRequestParams, _call_tool)
    overlay("resources/list", PaginatedRequestParams, _adding(ListResourcesResult, resources=RESOURCES))
    overlay(
        "resources/templates/list",
        PaginatedRequestParams,
        _adding(ListResourceTemplatesResult, resource_templates=[TEMPLATE]),
    )
    overlay("resources/read", ReadResourceRequestParams, _read_resource)
    overlay("resources/subscribe", SubscribeRequestParams, _accept_watched)
    overlay("resources/unsubscribe", UnsubscribeRequestParams, _accept_watched)
    overlay("prompts/list", PaginatedRequestParams, _adding(ListPromptsResult, prompts=PROMPTS))
    overlay("prompts/get", GetPromptRequestParams, _get_prompt)
    overlay("completion/complete", CompleteRequestParams, _complete)
    server.add_request_handler("logging/setLevel", SetLevelRequestParams, _set_level)

    schemas = {tool.name: tool.listed.input_schema for tool in TOOLS}
    shipped = server.get_tool_input_schema
    assert shipped is not None
    server.get_tool_input_schema = lambda name: schemas.get(name) or shipped(name)
    server.middleware.append(RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=server.name))


def _adding(model: type[Result], **more: Any) -> Callable[[Handler[PaginatedRequestParams]], Any]:
    """A list with more at its end."""

    def make(shipped: Handler[PaginatedRequestParams]) -> Handler[PaginatedRequestParams]:
        async def list_all(context: Context, params: PaginatedRequestParams) -> Result:
            page: Result = await shipped(context, params)
            assert isinstance(page, model)
            return page.model_copy(update={name: [*getattr(page, name), *items] for name, items in more.items()})

        return list_all

    return make


def _call_tool(shipped: Handler[CallToolRequestParams]) -> Handler[CallToolRequestParams]:
    tools = {tool.name: tool for tool in TOOLS}

    async def call_tool(context: Context, params: CallToolRequestParams) -> Any:
        tool = tools.get(params.name)
        return await (shipped(context, params) if tool is None else tool.run(context, params))

    return call_tool


def _read_resource(shipped: Handler[ReadResourceRequestParams]) -> Handler[ReadResourceRequestParams]:
    async def read_resource(context: Context, params: ReadResourceRequestParams) -> Any:
        uri = params.uri
        if uri in (STATIC_TEXT, WATCHED):
            text = "This is the content of the static text resource."
            return _read(TextResourceContents(uri=uri, mime_type="text/plain", text=text))
        if uri == STATIC_BINARY:
            return _read(BlobResourceContents(uri=uri, mime_type="image/png", blob=PNG))
        if uri.startswith(TEMPLATE_START) and uri.endswith(TEMPLATE_END):
            given = uri.removeprefix(TEMPLATE_START).removesuffix(TEMPLATE_END)
            text = f'{{"id":"{given}","templateTest":true,"data":"Data for ID: {given}"}}'
            return _read(TextResourceContents(uri=uri, mime_type="application/json", text=text))
        return await shipped(context, params)

    return read_resource


def _read(contents: TextResourceContents | BlobResourceContents) -> ReadResourceResult:
    return ReadResourceResult(contents=[contents])


def _accept_watched(shipped: Handler[Any]) -> Handler[Any]:
    """The suite subscribes to a resource that never changes, and looks at the answer alone."""

    async def accept(context: Context, params: SubscribeRequestParams | UnsubscribeRequestParams) -> Any:
        return EmptyResult() if params.uri == WATCHED else await shipped(context, params)

    return accept


def _get_prompt(shipped: Handler[GetPromptRequestParams]) -> Handler[GetPromptRequestParams]:
    async def get_prompt(context: Context, params: GetPromptRequestParams) -> Any:
        given: Mapping[str, str] = params.arguments or {}
        match params.name:
            case "test_simple_prompt":
                return _said(TextContent(text="This is a simple prompt for testing."))
            case "test_prompt_with_arguments":
                text = f"Prompt with arguments: arg1='{given['arg1']}', arg2='{given['arg2']}'"
                return _said(TextContent(text=text))
            case "test_prompt_with_embedded_resource":
                text = "Embedded resource content for testing."
                contents = TextResourceContents(uri=given["resourceUri"], mime_type="text/plain", text=text)
                after = TextContent(text="Please process the embedded resource above.")
                return _said(EmbeddedResource(resource=contents), after)
            case "test_prompt_with_image":
                image = ImageContent(data=PNG, mime_type="image/png")
                return _said(image, TextContent(text="Please analyze the image above."))
            case "test_input_required_result_prompt":
                asked = next_round(
                    [{"user_context": form("What context should the prompt use?", context="string")}], params
                )
                if isinstance(asked, InputRequiredResult):
                    return asked
                return _said(TextContent(text=f"Prompt with context: {asked['user_context']}"))
        return await shipped(context, params)

    return get_prompt


def _said(*content: TextContent | ImageContent | EmbeddedResource) -> GetPromptResult:
    return GetPromptResult(messages=[PromptMessage(role="user", content=each) for each in content])


def _complete(shipped: Handler[CompleteRequestParams]) -> Handler[CompleteRequestParams]:
    async def complete(context: Context, params: CompleteRequestParams) -> Any:
        if isinstance(params.ref, PromptReference) and params.ref.name == "test_prompt_with_arguments":
            found = [place for place in PLACES if place.startswith(params.argument.value)]
            return CompleteResult(completion=Completion(values=found, total=len(found), has_more=False))
        return await shipped(context, params)

    return complete


async def _set_level(context: Context, params: SetLevelRequestParams) -> EmptyResult:
    """The suite sets a level and looks at the answer alone."""
    return EmptyResult()
