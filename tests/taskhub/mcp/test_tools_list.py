"""What clients see of the tools: names, order, schemas, size."""

import json
from typing import Any

import orjson
import pytest

from taskhub.auth.principal import ALL_SCOPES
from taskhub.mcp.tools import tool_registry
from taskhub.tickets.service import TicketService
from tests.taskhub.mcp.tools_snapshot import KEPT, described

GIVEN_NAMES = (
    "get_ticket_list", "get_ticket_detail", "create_ticket", "update_ticket", "update_task_status",
    "add_ticket_history", "get_users", "get_accounts", "get_categories", "get_category_details", "get_statuses",
    "get_request_channels",
)  # fmt: skip
WRITING = {
    "create_ticket", "update_ticket", "update_task_status", "add_ticket_history", "claim_ticket", "release_ticket",
    "report_progress", "link_tickets", "unlink_tickets", "delete_ticket", "restore_ticket", "bulk_update_tickets",
    "undo_batch",
}  # fmt: skip
REMOVING = {"update_ticket", "unlink_tickets", "delete_ticket", "bulk_update_tickets", "undo_batch"}


@pytest.fixture
def listed(tickets: TicketService) -> list[dict[str, Any]]:
    found = tool_registry(tickets).list(ALL_SCOPES, read_only=False, toolsets=None)
    dumped: dict[str, Any] = found.model_dump(by_alias=True, mode="json", exclude_none=True)
    tools: list[dict[str, Any]] = dumped["tools"]
    return tools


def every_node(schema: Any) -> list[dict[str, Any]]:
    if isinstance(schema, list):
        return [node for item in schema for node in every_node(item)]
    if not isinstance(schema, dict):
        return []
    return [schema, *(node for value in schema.values() for node in every_node(value))]


def test_the_given_tools_come_first_and_in_their_order(listed: list[dict[str, Any]]) -> None:
    names = tuple(tool["name"] for tool in listed)

    assert names[: len(GIVEN_NAMES)] == GIVEN_NAMES
    assert names[len(GIVEN_NAMES) :] == (
        "get_response_categories", "claim_ticket", "release_ticket", "report_progress", "link_tickets",
        "unlink_tickets", "delete_ticket", "restore_ticket", "bulk_update_tickets", "undo_batch",
        "get_board", "get_events",
    )  # fmt: skip


def test_the_tools_are_as_the_repository_keeps_them() -> None:
    """After a change: `.venv/bin/python -m tests.taskhub.mcp.tools_snapshot`, and read what it changed."""
    assert described() == KEPT.read_text()


def test_a_description_says_by_an_example_how_the_tool_is_called(
    listed: list[dict[str, Any]], tickets: TicketService
) -> None:
    models = {tool.name: tool.arguments for tool in tool_registry(tickets).tools}
    for tool in listed:
        before, _, example = tool["description"].partition(" E.g. ")
        assert before
        if not example:
            assert not tool["inputSchema"]["properties"] or tool["name"] in ("unlink_tickets", "restore_ticket")
            continue
        arguments, _ = json.JSONDecoder().raw_decode(example)
        assert (
            set(tool["inputSchema"].get("required", ())) <= arguments.keys() <= tool["inputSchema"]["properties"].keys()
        )
        models[tool["name"]].model_validate(arguments)


def test_the_list_fits_its_budget(listed: list[dict[str, Any]]) -> None:
    assert len(orjson.dumps(listed)) <= 24_000


def test_every_tool_has_all_four_annotations(listed: list[dict[str, Any]]) -> None:
    for tool in listed:
        annotations = tool["annotations"]
        assert annotations.keys() == {"readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"}
        assert annotations["readOnlyHint"] is (tool["name"] not in WRITING)
        assert annotations["destructiveHint"] is (tool["name"] in REMOVING)
        assert annotations["openWorldHint"] is False
        assert tool["title"]
        assert 20 <= len(tool["description"]) <= 400


def test_schemas_forbid_unknown_arguments_and_carry_no_ballast(listed: list[dict[str, Any]]) -> None:
    for tool in listed:
        schema = tool["inputSchema"]
        assert schema["type"] == "object"
        assert schema["additionalProperties"] is False
        for node in every_node(schema["properties"]):
            assert "$ref" not in node
            assert not isinstance(node.get("title"), str)
        assert "$defs" not in schema


def test_what_is_required_comes_first(listed: list[dict[str, Any]]) -> None:
    schemas = {tool["name"]: tool["inputSchema"] for tool in listed}

    assert next(iter(schemas["update_ticket"]["properties"])) == "ticket_id"
    assert schemas["update_ticket"]["required"] == ["ticket_id"]
    assert next(iter(schemas["create_ticket"]["properties"])) == "summary"
    assert schemas["update_task_status"]["required"] == ["task_id", "status"]


def test_null_is_offered_where_it_means_to_clear(listed: list[dict[str, Any]]) -> None:
    schemas = {tool["name"]: tool["inputSchema"]["properties"] for tool in listed}

    assert schemas["update_ticket"]["remarks"]["anyOf"] == [{"type": "string"}, {"type": "null"}]
    assert schemas["update_ticket"]["priority"]["anyOf"][1] == {"type": "null"}
    assert schemas["create_ticket"]["remarks"]["type"] == "string"


def test_a_node_has_one_type_since_some_model_providers_take_no_more(listed: list[dict[str, Any]]) -> None:
    for tool in listed:
        for schema in (tool["inputSchema"], tool["outputSchema"]):
            for node in every_node(schema["properties"]):
                assert not isinstance(node.get("type"), list)
                assert "enum" not in node or "type" in node


def test_filters_take_one_value_or_several(listed: list[dict[str, Any]]) -> None:
    status = listed[0]["inputSchema"]["properties"]["status"]

    assert status["anyOf"] == [{"type": "string"}, {"items": {"type": "string"}, "type": "array"}]
