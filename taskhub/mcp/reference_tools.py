"""The tools that read reference data: the values that tickets can be given, so only those in use."""

from collections.abc import Awaitable, Callable
from typing import Any, Final

from taskhub.auth.principal import Caller
from taskhub.mcp import render
from taskhub.mcp.arguments import CategoryDetailsArguments, NoArguments, UsersArguments
from taskhub.mcp.registry import Tool, ToolResult
from taskhub.mcp.schema import result_schema
from taskhub.tickets.api import Tickets
from taskhub.tickets.model import Reference

_ALL: Final = "GET /api/v1/{} lists all of them"


def reference_tools(tickets: Tickets) -> list[Tool[Any]]:
    async def get_users(caller: Caller, arguments: UsersArguments) -> ToolResult:
        found = [user for user in await tickets.users(caller, role=arguments.role) if user.active]
        labels = [f"{user.id} ({user.name}, {user.role})" for user in found]
        return render.items("users", found, labels, f"ask for one role, or {_ALL.format('users')}")

    async def get_category_details(caller: Caller, arguments: CategoryDetailsArguments) -> ToolResult:
        every = await tickets.category_details(caller, category=arguments.category)
        found = [detail for detail in every if detail.active]
        labels = [f"{detail.id} ({detail.category.name}: {detail.name})" for detail in found]
        hint = f"ask for one category, or {_ALL.format('category-details')}"
        return render.items("category_details", found, labels, hint)

    async def get_statuses(caller: Caller, arguments: NoArguments) -> ToolResult:
        found = [status for status in await tickets.statuses(caller) if status.active]
        labels = [f"{status.id} ({status.name}, {status.phase})" for status in found]
        return render.items("statuses", found, labels, _ALL.format("statuses"))

    def simple(
        name: str, title: str, description: str, read: Callable[[Caller], Awaitable[list[Reference]]]
    ) -> Tool[NoArguments]:
        async def run(caller: Caller, arguments: NoArguments) -> ToolResult:
            found = [item for item in await read(caller) if item.active]
            labels = [f"{item.id} ({item.name})" for item in found]
            return render.items(name, found, labels, _ALL.format(name.replace("_", "-")))

        return _tool(f"get_{name}", title, description, NoArguments, name, run)

    return [
        _tool(
            "get_users",
            "List users",
            "People and agents that tickets can be assigned to or requested by, with id, name and role. "
            'E.g. {"role": "agent"}',
            UsersArguments,
            "users",
            get_users,
        ),
        simple("accounts", "List accounts", "Customers or teams that tickets are for.", tickets.accounts),
        simple("categories", "List categories", "What tickets can be about.", tickets.categories),
        _tool(
            "get_category_details",
            "List category details",
            "The finer division of the categories; a ticket's detail must belong to its category. "
            'E.g. {"category": "Incident"}',
            CategoryDetailsArguments,
            "category_details",
            get_category_details,
        ),
        _tool(
            "get_statuses",
            "List statuses",
            "The statuses of tickets, each in one phase: todo, active, waiting, review, done or cancelled.",
            NoArguments,
            "statuses",
            get_statuses,
        ),
        simple("request_channels", "List request channels", "How requests can come in.", tickets.request_channels),
        simple(
            "response_categories",
            "List response categories",
            "How a ticket's outcome can be classed.",
            tickets.response_categories,
        ),
    ]


def _tool(
    name: str,
    title: str,
    description: str,
    arguments: type[Any],
    rows: str,
    run: Callable[[Caller, Any], Awaitable[ToolResult]],
) -> Tool[Any]:
    output = result_schema({rows: {"type": "array", "items": {"type": "object"}}})
    return Tool(
        name=name,
        title=title,
        description=description,
        arguments=arguments,
        output=output,
        scope="tickets:read",
        toolset="reference",
        run=run,
    )
