"""What the registry makes of lists and calls, with tools of the test's own."""

from typing import Any, Literal

import pytest
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS
from pydantic import Field
from structlog.testing import capture_logs

from taskhub.auth.principal import ALL_SCOPES, Caller, Principal, Scope
from taskhub.mcp.registry import Tool, ToolRegistry, ToolResult
from taskhub.mcp.schema import result_schema
from taskhub.tickets.errors import InputProblem, InvalidInput, StorageBusy, VersionConflict
from taskhub.tickets.inputs import Input
from tests.taskhub.mcp.world import ALICE, data_of, text_of


class Arguments(Input):
    colour: Literal["red", "green"]
    count: int = Field(default=1, ge=1)


async def paint(caller: Caller, arguments: Arguments) -> ToolResult:
    return ToolResult({"painted": arguments.colour, "by": caller.principal.actor}, "Painted.")


def tool(
    name: str, *, run: Any = paint, scope: Scope = "tickets:read", toolset: str = "a", read_only: bool = True
) -> Tool[Any]:
    output = result_schema({"painted": {"type": "string"}})
    return Tool(name, name.title(), "Paint.", Arguments, output, scope, toolset, run, read_only=read_only)


REGISTRY = ToolRegistry(
    [tool("look"), tool("paint", scope="tickets:write", read_only=False), tool("count", scope="admin", toolset="b")]
)


def names(
    scopes: frozenset[Scope] = ALL_SCOPES, *, read_only: bool = False, toolsets: frozenset[str] | None = None
) -> list[str]:
    return [tool.name for tool in REGISTRY.list(scopes, read_only=read_only, toolsets=toolsets).tools]


def test_a_caller_sees_the_tools_that_its_scopes_allow() -> None:
    assert names() == ["look", "paint", "count"]
    assert names(frozenset({"tickets:read"})) == ["look"]


def test_a_read_only_caller_sees_no_tool_that_writes() -> None:
    assert names(read_only=True) == ["look", "count"]


def test_toolsets_narrow_the_list() -> None:
    assert names(toolsets=frozenset({"b"})) == ["count"]


def test_an_unknown_toolset_is_named_together_with_the_known_ones() -> None:
    with pytest.raises(MCPError, match="unknown toolset c; the toolsets are a, b"):
        names(toolsets=frozenset({"a", "c"}))


def test_the_list_is_made_once_for_callers_of_the_same_kind() -> None:
    assert REGISTRY.list(ALL_SCOPES, read_only=False, toolsets=None) is REGISTRY.list(
        frozenset(ALL_SCOPES), read_only=False, toolsets=None
    )


async def test_a_call_answers_data_and_one_text() -> None:
    result = await REGISTRY.call(ALICE, "look", {"colour": "red"})

    assert not result.is_error
    assert data_of(result) == {"painted": "red", "by": "user:alice"}
    assert text_of(result) == "Painted."


async def test_an_unknown_tool_is_a_protocol_error() -> None:
    with pytest.raises(MCPError) as refused:
        await REGISTRY.call(ALICE, "dance", {})

    assert refused.value.code == INVALID_PARAMS


async def test_each_wrong_argument_gets_its_sentence() -> None:
    result = await REGISTRY.call(ALICE, "look", {"colour": "rad", "count": 0, "colur": "red"})

    assert result.is_error
    data = data_of(result)
    assert data["code"] == "invalid_input"
    assert data["retryable"] is False
    assert data["allowed"] == ["red", "green"]
    assert data["problems"] == [
        {
            "parameter": "colour",
            "reason": "'rad' is not one of the allowed values",
            "allowed": ["red", "green"],
            "did_you_mean": "red",
        },
        {"parameter": "count", "reason": "should be greater than or equal to 1"},
        {
            "parameter": "colur",
            "reason": "is not a parameter of this tool",
            "allowed": ["colour", "count"],
            "did_you_mean": "colour",
        },
    ]
    assert "colour: 'rad' is not one of the allowed values; did you mean red?" in text_of(result)
    assert "colur: is not a parameter of this tool; did you mean colour?" in text_of(result)


@pytest.mark.parametrize("count", [50, 20_000])
async def test_a_flood_of_unknown_arguments_gets_one_short_answer(count: int) -> None:
    result = await REGISTRY.call(ALICE, "look", {f"argument{n}": 1 for n in range(count)})

    data = data_of(result)
    assert data["code"] == "invalid_input"
    assert len(data["problems"]) <= 21
    assert len(text_of(result)) < 3000


async def test_a_missing_argument_is_named() -> None:
    result = await REGISTRY.call(ALICE, "look", {})

    assert data_of(result)["problems"] == [{"parameter": "colour", "reason": "is required"}]


async def test_a_call_without_the_scope_says_which_scope_is_missing() -> None:
    caller = Caller(Principal("user:viewer", "default", frozenset({"tickets:read"}), authenticated=True), "mcp_tool")

    data = data_of(await REGISTRY.call(caller, "paint", {"colour": "red"}))

    assert (data["code"], data["scope"]) == ("forbidden", "tickets:write")


async def test_a_write_on_a_read_only_connection_is_refused() -> None:
    result = await REGISTRY.call(ALICE, "paint", {"colour": "red"}, read_only=True)

    assert result.is_error
    assert data_of(result)["code"] == "read_only"


def failing(error: Exception) -> ToolRegistry:
    async def run(caller: Caller, arguments: Arguments) -> ToolResult:
        raise error

    return ToolRegistry([tool("fail", run=run)])


async def test_an_unexpected_error_becomes_an_id_that_the_log_has_with_the_traceback() -> None:
    with capture_logs() as logs:
        result = await failing(RuntimeError("secret detail")).call(ALICE, "fail", {"colour": "red"})

    data = data_of(result)
    assert result.is_error
    assert data["code"] == "internal_error"
    assert "secret" not in text_of(result)
    (entry,) = logs
    assert entry["correlation_id"] == data["correlation_id"] != ""
    assert entry["exc_info"]


async def test_a_version_conflict_tells_the_current_version_and_what_changed() -> None:
    conflict = VersionConflict("TH-1", 3, 5, {"status": ["received", "completed"]}, ["user:bob"])

    data = data_of(await failing(conflict).call(ALICE, "fail", {"colour": "red"}))

    assert data["code"] == "version_conflict"
    assert data["current"] == 5
    assert data["changed"] == {"status": ["received", "completed"]}
    assert data["actors"] == ["user:bob"]
    assert data["hint"]


async def test_what_may_work_later_is_retryable() -> None:
    data = data_of(await failing(StorageBusy()).call(ALICE, "fail", {"colour": "red"}))

    assert (data["code"], data["retryable"]) == ("storage_busy", True)
    assert data["message"] == "the database is busy or away"


async def test_only_a_tool_that_writes_says_that_nothing_was_changed() -> None:
    async def fail(caller: Caller, arguments: Arguments) -> ToolResult:
        raise StorageBusy

    registry = ToolRegistry([tool("write", run=fail, scope="tickets:write", read_only=False)])
    data = data_of(await registry.call(ALICE, "write", {"colour": "red"}))

    assert data["message"] == "the database is busy or away; nothing was changed"
    assert "idempotency key" in data["hint"]


async def test_a_value_that_is_not_known_comes_with_those_that_are() -> None:
    unknown = InvalidInput([InputProblem("/status", "there is no status 'x'", ("received", "waiting"), None)])

    result = await failing(unknown).call(ALICE, "fail", {"colour": "red"})

    assert data_of(result)["allowed"] == ["received", "waiting"]
    assert "Allowed: received, waiting." in text_of(result)


@pytest.mark.parametrize("odd", ["\ud800", "a\x00b", "x" * 100_000])
async def test_an_argument_of_any_text_gets_an_answer(odd: str) -> None:
    result = await REGISTRY.call(ALICE, "look", {"colour": odd})

    assert data_of(result)["code"] == "invalid_input"
    assert len(text_of(result)) < 1000
