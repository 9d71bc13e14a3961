"""The tools for working on tickets that others work on, too: claim, report, release."""

from typing import Any, Final

from taskhub.auth.principal import Caller
from taskhub.mcp import render
from taskhub.mcp.arguments import ClaimArguments, ProgressArguments, ReleaseArguments, body_of, held
from taskhub.mcp.registry import Tool, ToolResult
from taskhub.mcp.schema import result_schema
from taskhub.tickets.api import Tickets
from taskhub.tickets.errors import InputProblem, InvalidInput
from taskhub.tickets.inputs import ClaimNext, NewClaim, ProgressReport, Release

_TEXT: Final[dict[str, Any]] = {"type": "string"}
_NUMBER: Final[dict[str, Any]] = {"type": "integer"}
_NOT_FILTERS: Final = frozenset({"ticket_id", "lease_seconds", "idempotency_key"})

# What every write answers is said in full by the tools that come first.
CLAIMED: Final = result_schema({"key": _TEXT, "version": _NUMBER, "lease_token": _NUMBER, "lease_expires_at": _TEXT})
RELEASED: Final = result_schema({"key": _TEXT, "version": _NUMBER})
REPORTED: Final = result_schema(
    {"key": _TEXT, "version": _NUMBER, "comments": {"type": "array", "items": {"type": "object"}}}
)


def lease_tools(tickets: Tickets) -> list[Tool[Any]]:
    async def claim_ticket(caller: Caller, arguments: ClaimArguments) -> ToolResult:
        key = arguments.idempotency_key
        if arguments.ticket_id is None:
            answer = await tickets.claim_next(caller, body_of(arguments, ClaimNext), idempotency_key=key)
        else:
            _check_no_filter(arguments)
            new = body_of(arguments, NewClaim)
            answer = await tickets.claim_ticket(caller, arguments.ticket_id, new, idempotency_key=key)
        return render.claimed(answer)

    async def release_ticket(caller: Caller, arguments: ReleaseArguments) -> ToolResult:
        answer = await tickets.release_ticket(
            caller, arguments.ticket_id, body_of(arguments, Release), **held(arguments)
        )
        return render.written(answer, "was released")

    async def report_progress(caller: Caller, arguments: ProgressArguments) -> ToolResult:
        answer = await tickets.report_progress(
            caller, arguments.ticket_id, body_of(arguments, ProgressReport), **held(arguments)
        )
        return render.reported(answer)

    return [
        Tool(
            name="claim_ticket",
            title="Claim a ticket",
            description="Take a ticket to work on: the one named, or else the most urgent ready one that passes the "
            "filters. It becomes yours and in progress. Keep lease_token for every write to it. The lease ends at "
            "lease_expires_at unless report_progress or a write with the token renews it. "
            'E.g. {"ticket_id": "TH-12"}, or {"priority": ["urgent", "high"]}',
            arguments=ClaimArguments,
            output=CLAIMED,
            scope="tickets:write",
            toolset="tickets",
            run=claim_ticket,
            read_only=False,
            idempotent=False,
        ),
        Tool(
            name="release_ticket",
            title="Give a ticket back",
            description="End your lease: by default the ticket is to do again, for others to claim. Say in note where "
            "you stopped. Not needed when you set a status that ends the work. "
            'E.g. {"ticket_id": "TH-12", "lease_token": 3, "note": "tests are left"}',
            arguments=ReleaseArguments,
            output=RELEASED,
            scope="tickets:write",
            toolset="tickets",
            run=release_ticket,
            read_only=False,
            idempotent=False,
        ),
        Tool(
            name="report_progress",
            title="Report progress",
            description="Say every few minutes how far your work is. Renews the lease, and answers the comments made "
            "since your claim or last report without your lease_token: heed them. "
            'E.g. {"ticket_id": "TH-12", "lease_token": 3, "percent": 40}',
            arguments=ProgressArguments,
            output=REPORTED,
            scope="tickets:write",
            toolset="tickets",
            run=report_progress,
            read_only=False,
            idempotent=False,
        ),
    ]


def _check_no_filter(arguments: ClaimArguments) -> None:
    """Raise InvalidInput for a filter beside the key of a ticket, where it would have no effect."""
    filters = [name for name, value in arguments if name not in _NOT_FILTERS and value is not None]
    if filters:
        reason = "is a filter for the next ready ticket: leave it out, or leave out ticket_id"
        raise InvalidInput([InputProblem(f"/{name}", reason) for name in filters])
