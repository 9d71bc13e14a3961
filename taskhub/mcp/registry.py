"""The tools on offer: what each takes, answers and needs, who may see it, and what becomes of a call that fails."""

import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import structlog
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, CallToolResult, ListToolsResult, TextContent, ToolAnnotations
from mcp_types import Tool as ListedTool
from pydantic import BaseModel, ValidationError

from taskhub.auth.errors import AuthError, Forbidden
from taskhub.auth.principal import Caller, Principal, Scope
from taskhub.mcp import errors
from taskhub.mcp.confirmation import Confirmation, InputRequired, Nobody, Person, Question
from taskhub.mcp.progress import Extent, Report, reported
from taskhub.mcp.schema import arguments_schema
from taskhub.tickets.errors import TicketError

log = structlog.get_logger(__name__)

Arguments = TypeVar("Arguments", bound=BaseModel)

_NOBODY: Final = Nobody()


@dataclass(frozen=True, slots=True)
class ToolResult:
    """`data` is the structured content, one JSON object; `text` a short account of it for a model to read."""

    data: Mapping[str, Any]
    text: str


@dataclass(frozen=True, slots=True)
class Tool(Generic[Arguments]):
    """One tool. `run` gets arguments that are valid; it may raise TicketError and AuthError.

    `extent`: how much a call has before it; None for one that is soon done. `confirmation`: a person is asked before
    `run`, which gets the arguments that the question pins. `nullable`: null among the arguments is not the same as
    leaving the argument out, and the schema says so. `output` is the JSON Schema of `ToolResult.data`. No tool reaches
    beyond TaskHub: `openWorldHint` is always false.
    """

    name: str
    title: str
    description: str
    arguments: type[Arguments]
    output: Mapping[str, Any]
    scope: Scope
    toolset: str
    run: Callable[[Caller, Arguments], Awaitable[ToolResult]]
    read_only: bool = True
    destructive: bool = False
    idempotent: bool = True
    nullable: bool = False
    extent: Callable[[Arguments], Extent | None] = lambda arguments: None
    confirmation: Confirmation[Arguments, ToolResult] | None = None


class ToolRegistry:
    """Tools by name, in the order in which they are listed."""

    def __init__(self, tools: Sequence[Tool[Any]]) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._listed = {tool.name: _listed(tool) for tool in tools}
        # One entry for each set of scopes, toolsets and read-only that was seen; all three come from small closed sets.
        self._lists: dict[tuple[frozenset[Scope], bool, frozenset[str] | None], ListToolsResult] = {}
        self.before_write: Callable[[Principal], None] = lambda principal: None
        """Asked before a tool changes anything; may raise RateLimited."""
        self.toolsets = tuple(dict.fromkeys(tool.toolset for tool in tools))

    @property
    def tools(self) -> tuple[Tool[Any], ...]:
        return tuple(self._tools.values())

    def input_schema(self, name: str) -> Mapping[str, Any] | None:
        listed = self._listed.get(name)
        return None if listed is None else listed.input_schema

    def list(self, scopes: frozenset[Scope], *, read_only: bool, toolsets: frozenset[str] | None) -> ListToolsResult:
        """The tools for a caller with these scopes, who may have asked for reading ones or certain toolsets alone."""
        if toolsets is not None and (unknown := toolsets - set(self.toolsets)):
            raise MCPError(
                INVALID_PARAMS, f"unknown toolset {min(unknown)[:80]}; the toolsets are {', '.join(self.toolsets)}"
            )
        key = (scopes, read_only, toolsets)
        found = self._lists.get(key)
        if found is None:
            visible = [
                self._listed[tool.name]
                for tool in self._tools.values()
                if tool.scope in scopes
                and (tool.read_only or not read_only)
                and (toolsets is None or tool.toolset in toolsets)
            ]
            found = self._lists[key] = ListToolsResult(tools=visible)
        return found

    async def call(
        self,
        caller: Caller,
        name: str,
        arguments: Mapping[str, Any],
        *,
        read_only: bool = False,
        person: Person | None = None,
        report: Report | None = None,
    ) -> CallToolResult:
        """Call a tool. `person` can be asked at this client; `report` tells it of progress.

        Raises MCPError for a name that is no tool, and InputRequired; every other failure is an error result.
        """
        tool = self._tools.get(name)
        if tool is None:
            raise MCPError(INVALID_PARAMS, f"Unknown tool: {name[:80]}")
        try:
            if tool.scope not in caller.principal.scopes:
                raise Forbidden(tool.scope)
            if read_only and not tool.read_only:
                return errors.failed("read_only", f"{name} changes things, and this connection is read-only")
            if not tool.read_only:
                self.before_write(caller.principal)
            if len(arguments) > errors.MAX_ARGUMENTS:
                raise errors.too_many_arguments(len(arguments))
            try:
                parsed = tool.arguments.model_validate(arguments)
            except ValidationError as invalid:
                raise errors.invalid_arguments(invalid, tool.arguments) from None
            result = await _run(tool, caller, parsed, person, report)
        except InputRequired:
            raise
        except TicketError as error:
            return errors.from_ticket_error(error, writing=not tool.read_only)
        except AuthError as error:
            return errors.from_auth_error(error)
        except Exception:
            correlation_id = caller.request_id or uuid.uuid4().hex[:16]
            log.exception("tool_failed", tool=name, actor=caller.principal.actor, correlation_id=correlation_id)
            return errors.failed(
                "internal_error",
                f"{name} failed for a reason that is TaskHub's own; its log tells more under {correlation_id}",
                correlation_id=correlation_id,
            )
        return CallToolResult(content=[TextContent(text=result.text)], structured_content=dict(result.data))


async def _run(
    tool: Tool[Arguments], caller: Caller, arguments: Arguments, person: Person | None, report: Report | None
) -> ToolResult:
    asking = tool.confirmation
    said_so = person is None and getattr(arguments, "confirm", False)
    if asking is not None and asking.needed(arguments) and not said_so:
        found = await (person or _NOBODY).confirm(lambda: asking.question(caller, arguments))
        if not isinstance(found, Question):
            return found
        arguments = arguments.model_copy(update=dict(found.pinned))
    extent = tool.extent(arguments)
    if report is None or extent is None:
        return await tool.run(caller, arguments)
    async with reported(report, extent):
        return await tool.run(caller, arguments)


def _listed(tool: Tool[Any]) -> ListedTool:
    arguments: type[BaseModel] = tool.arguments
    return ListedTool(
        name=tool.name,
        title=tool.title,
        description=tool.description,
        input_schema=dict(arguments_schema(arguments, nullable=tool.nullable)),
        output_schema=dict(tool.output),
        annotations=ToolAnnotations(
            read_only_hint=tool.read_only,
            destructive_hint=tool.destructive,
            idempotent_hint=tool.idempotent,
            open_world_hint=False,
        ),
    )
