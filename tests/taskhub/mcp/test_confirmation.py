"""A person is asked before a tool does what cannot simply be done again, in both eras of the protocol."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, Literal

import pytest
from mcp.client.client import Client
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INVALID_PARAMS,
    CallToolResult,
    ElicitRequestFormParams,
    ElicitResult,
    ErrorData,
    InputRequiredResult,
)

from taskhub.mcp import server as mcp_server
from taskhub.tickets.service import TicketService
from tests.taskhub.mcp.calling import Tools
from tests.taskhub.mcp.test_sessions import TwoKeys
from tests.taskhub.mcp.world import MODERN, Served, data_of, serve_mcp, text_of

ERAS: Final = ("legacy", MODERN)
Action = Literal["accept", "decline", "cancel"]


class Somebody:
    """A person at the client who gives the same answer to every question. `meanwhile` happens before the first."""

    def __init__(self, action: Action = "accept", meanwhile: Callable[[], Awaitable[object]] | None = None) -> None:
        self.asked: list[str] = []
        self._action = action
        self._meanwhile = meanwhile

    async def __call__(self, context: object, params: Any) -> ElicitResult:
        assert isinstance(params, ElicitRequestFormParams)
        assert params.requested_schema == {"type": "object", "properties": {}}
        self.asked.append(params.message)
        if self._meanwhile is not None and len(self.asked) == 1:
            await self._meanwhile()
        return ElicitResult(action=self._action, content={} if self._action == "accept" else None)


@pytest.fixture
async def tools(tickets: TicketService) -> Tools:
    """With two tickets."""
    tools = Tools(tickets)
    await tools.create("Printer is on fire", person_in_charge="bob")
    await tools.create("Toner")
    return tools


def many(count: int = 11, **fields: Any) -> dict[str, Any]:
    return {"items": [{"ticket_id": f"TH-{n}", **(fields or {"priority": "high"})} for n in range(1, count + 1)]}


async def asking(client: Client, tool: str, arguments: dict[str, Any]) -> InputRequiredResult:
    """The answer to the first round of a call."""
    result = await client.session.call_tool(tool, arguments, allow_input_required=True)
    assert isinstance(result, InputRequiredResult), result
    return result


async def answered(
    client: Client, tool: str, arguments: dict[str, Any], state: str | None, action: Action = "accept"
) -> CallToolResult | InputRequiredResult:
    """The answer to the second round."""
    yes = ElicitResult(action=action, content={})
    return await client.session.call_tool(
        tool, arguments, input_responses={"confirm": yes}, request_state=state, allow_input_required=True
    )


@pytest.mark.parametrize("mode", [*ERAS, "sse"])
async def test_a_ticket_is_deleted_once_a_person_has_seen_which_and_said_yes(
    tools: Tools, served: Served, mode: str
) -> None:
    person = Somebody()
    async with served.client(mode, elicit=person) as client:
        result = await client.call_tool("delete_ticket", {"ticket_id": "th-1"})

    assert not result.is_error, text_of(result)
    assert (data_of(result)["key"], data_of(result)["version"]) == ("TH-1", 2)
    assert person.asked == [
        "Delete TH-1 “Printer is on fire”? It is Received, and Bob is in charge of it. It leaves every list, and what "
        "it blocks need not wait for it any longer; restore_ticket brings it back."
    ]
    assert await tools.keys() == ["TH-2"]


@pytest.mark.parametrize("mode", ERAS)
@pytest.mark.parametrize(
    ("action", "code", "retryable"),
    [("decline", "confirmation_declined", False), ("cancel", "confirmation_cancelled", True)],
)
async def test_without_a_yes_nothing_is_changed_and_the_answer_says_why(
    tools: Tools, served: Served, mode: str, action: Action, code: str, retryable: bool
) -> None:
    async with served.client(mode, elicit=Somebody(action)) as client:
        result = await client.call_tool("delete_ticket", {"ticket_id": "TH-1"})

    assert result.is_error
    assert (data_of(result)["code"], data_of(result)["retryable"]) == (code, retryable)
    assert "nothing was changed" in text_of(result)
    assert (await tools.ticket("TH-1"))["version"] == 1


async def test_a_client_that_breaks_off_the_question_changes_nothing(tools: Tools, served: Served) -> None:
    async def broken(context: object, params: object) -> ErrorData:
        return ErrorData(code=-32603, message="no window")

    async with served.client("legacy", elicit=broken) as client:
        result = await client.call_tool("delete_ticket", {"ticket_id": "TH-1"})

    assert data_of(result)["code"] == "confirmation_cancelled"
    assert (await tools.ticket("TH-1"))["version"] == 1


@pytest.mark.parametrize("mode", ERAS)
async def test_a_client_that_cannot_ask_is_told_what_to_ask_and_confirms_by_an_argument(
    tools: Tools, served: Served, mode: str
) -> None:
    async with served.client(mode) as client:
        unasked = await client.call_tool("delete_ticket", {"ticket_id": "TH-1"})
        done = await client.call_tool("delete_ticket", {"ticket_id": "TH-1", "confirm": True})

    assert data_of(unasked)["code"] == "confirmation_required"
    assert data_of(unasked)["message"].startswith("Delete TH-1 “Printer is on fire”?")
    assert not done.is_error


@pytest.mark.parametrize("mode", ERAS)
async def test_where_a_person_can_be_asked_the_agents_word_is_not_enough(
    tools: Tools, served: Served, mode: str
) -> None:
    async with served.client(mode, elicit=Somebody("decline")) as client:
        result = await client.call_tool("delete_ticket", {"ticket_id": "TH-1", "confirm": True})

    assert data_of(result)["code"] == "confirmation_declined"


@pytest.mark.parametrize("mode", ERAS)
async def test_who_changes_the_ticket_meanwhile_lets_the_person_be_asked_anew(
    tools: Tools, served: Served, mode: str
) -> None:
    person = Somebody(meanwhile=lambda: tools("update_ticket", ticket_id="TH-1", summary="Printer is out"))
    async with served.client(mode, elicit=person) as client:
        result = await client.call_tool("delete_ticket", {"ticket_id": "TH-1"})

    first, second = person.asked
    assert first.startswith("Delete TH-1 “Printer is on fire”?")
    assert second.startswith("This has changed since you were asked. Delete TH-1 “Printer is out”?")
    assert data_of(result)["version"] == 3


@pytest.mark.parametrize("mode", ERAS)
async def test_a_ticket_that_goes_meanwhile_is_an_error(tools: Tools, served: Served, mode: str) -> None:
    person = Somebody(meanwhile=lambda: tools("delete_ticket", ticket_id="TH-1", confirm=True))
    async with served.client(mode, elicit=person) as client:
        result = await client.call_tool("delete_ticket", {"ticket_id": "TH-1"})

    assert data_of(result)["code"] == "deleted"


@pytest.mark.parametrize("mode", ERAS)
async def test_a_repeat_under_one_idempotency_key_asks_nobody_and_answers_the_same(
    tools: Tools, served: Served, mode: str
) -> None:
    for _ in range(9):
        await tools.create()
    person = Somebody()
    async with served.client(mode, elicit=person) as client:
        for tool, arguments in (
            ("bulk_update_tickets", many()),
            ("delete_ticket", {"ticket_id": "TH-1"}),
            ("restore_ticket", {"ticket_id": "TH-1"}),
        ):
            first = await client.call_tool(tool, {**arguments, "idempotency_key": "k"})
            again = await client.call_tool(tool, {**arguments, "idempotency_key": "k"})

            assert not first.is_error, text_of(first)
            assert data_of(again) == {**data_of(first), "replayed": True}

    assert len(person.asked) == 3
    assert (await tools.ticket("TH-1"))["version"] == 4


@pytest.mark.parametrize("mode", ERAS)
async def test_nobody_is_asked_for_what_would_be_refused_anyway(tools: Tools, served: Served, mode: str) -> None:
    token = (await tools("claim_ticket", ticket_id="TH-1"))["lease_token"]
    person = Somebody()
    stale = {"ticket_id": "TH-1", "lease_token": token, "expected_version": 1}
    async with served.client(mode, elicit=person) as client:
        results = [
            await client.call_tool("delete_ticket", {"ticket_id": "TH-9"}),
            await client.call_tool("delete_ticket", {"ticket_id": "TH-1"}),
            await client.call_tool("delete_ticket", stale),
            await client.call_tool("bulk_update_tickets", many()),
        ]
    async with served.client(mode, elicit=person, headers={"X-MCP-Readonly": "true"}) as client:
        results.append(await client.call_tool("delete_ticket", {"ticket_id": "TH-2"}))

    codes = [data_of(result)["code"] for result in results]
    assert codes == ["not_found", "lease_held", "version_conflict", "batch_failed", "read_only"]
    assert person.asked == []


@pytest.mark.parametrize("mode", ERAS)
async def test_a_change_of_more_than_ten_tickets_is_shown_to_a_person(tools: Tools, served: Served, mode: str) -> None:
    for _ in range(9):
        await tools.create(priority="high")
    arguments = many()
    arguments["items"][1] |= {"status": "waiting", "waiting_reason": "parts", "comment": "no\ntoner"}
    person = Somebody()
    async with served.client(mode, elicit=person) as client:
        changed = await client.call_tool("bulk_update_tickets", arguments)
        same = await client.call_tool("bulk_update_tickets", many())

    assert [result["version"] for result in data_of(changed)["results"]][:3] == [2, 2, 1]
    assert data_of(same)["batch_id"] is None
    assert person.asked == [
        "Change 11 tickets in one step?\n"
        "priority none → high: TH-1\n"
        "status received → waiting, priority none → high, waiting_reason none → parts, with the comment “no toner”: "
        "TH-2\n"
        "stays as it is: TH-3, TH-4, TH-5, TH-6, TH-7, TH-8, TH-9, TH-10, TH-11\n"
        "undo_batch takes it back."
    ]


async def test_of_many_tickets_too_only_the_versions_that_were_shown_are_changed(tools: Tools, served: Served) -> None:
    for _ in range(9):
        await tools.create()
    # With a key and versions of its own: neither lets anything happen before the answer.
    arguments = {**many(priority="high", expected_version=1), "idempotency_key": "k"}
    person = Somebody("decline")
    async with served.client(MODERN, elicit=person) as client:
        await client.call_tool("bulk_update_tickets", arguments)
        before = [(await tools.ticket(f"TH-{n}"))["version"] for n in range(1, 12)]
    other = Somebody(meanwhile=lambda: tools("update_ticket", ticket_id="TH-11", priority="low"))
    async with served.client(MODERN, elicit=other) as client:
        changed = await client.call_tool("bulk_update_tickets", many())

    assert before == [1] * 11
    assert [question.startswith("This has changed since you were asked. ") for question in other.asked] == [False, True]
    assert "priority low → high: TH-11" in other.asked[1]
    assert data_of(changed)["applied"]


async def test_fifty_different_changes_make_a_question_that_can_be_read(tools: Tools, served: Served) -> None:
    for _ in range(48):
        await tools.create()
    person = Somebody()
    items = [{"ticket_id": f"TH-{n}", "description": f"{n} " + "long " * 30} for n in range(1, 51)]
    async with served.client(MODERN, elicit=person) as client:
        await client.call_tool("bulk_update_tickets", {"items": items})

    assert len(person.asked[0]) < 4_000
    assert "and 30 other changes" in person.asked[0]


@pytest.mark.parametrize("mode", ERAS)
async def test_ten_tickets_and_trials_need_no_person(tools: Tools, served: Served, mode: str) -> None:
    for _ in range(9):
        await tools.create()
    person = Somebody("decline")
    async with served.client(mode, elicit=person) as client:
        tried = await client.call_tool("bulk_update_tickets", {**many(), "dry_run": True})
        changed = await client.call_tool("bulk_update_tickets", many(10))

    assert (data_of(tried)["applied"], data_of(changed)["applied"]) == (False, True)
    assert person.asked == []


async def test_more_than_ten_tickets_are_confirmed_by_an_argument_where_nobody_can_be_asked(tools: Tools) -> None:
    for _ in range(9):
        await tools.create()

    asked = await tools.error("bulk_update_tickets", **many())
    changed = await tools("bulk_update_tickets", **many(), confirm=True)

    assert (asked["code"], asked["retryable"]) == ("confirmation_required", False)
    assert asked["message"].startswith("Change 11 tickets in one step?")
    assert changed["applied"]


@pytest.mark.parametrize("mode", ERAS)
async def test_restoring_asks_as_deleting_does(tools: Tools, served: Served, mode: str) -> None:
    await tools("delete_ticket", ticket_id="TH-1", confirm=True)
    person = Somebody()
    async with served.client(mode, elicit=person) as client:
        restored = await client.call_tool("restore_ticket", {"ticket_id": "th-1"})
        again = await client.call_tool("restore_ticket", {"ticket_id": "TH-1"})

    assert data_of(restored)["version"] == 3
    assert data_of(again)["noop"] is True
    assert [question.partition("?")[0] for question in person.asked] == ["Restore TH-1 “Printer is on fire”"]


# ── the state of a call that is under way (2026 era) ──


async def test_any_process_with_the_secret_goes_on_with_the_call(tools: Tools, tickets: TicketService) -> None:
    arguments = {"ticket_id": "TH-1"}
    async with serve_mcp(tickets) as one, one.client(MODERN, elicit=Somebody()) as client:
        asked = await asking(client, "delete_ticket", arguments)
    async with serve_mcp(tickets) as another, another.client(MODERN, elicit=Somebody()) as client:
        result = await answered(client, "delete_ticket", arguments, asked.request_state)

    assert isinstance(result, CallToolResult)
    assert not result.is_error
    assert "TH-1" not in (asked.request_state or "")
    assert await tools.keys() == ["TH-2"]


async def test_an_answer_without_its_state_and_a_state_without_an_answer_only_ask_again(
    tools: Tools, served: Served
) -> None:
    arguments = {"ticket_id": "TH-1"}
    async with served.client(MODERN, elicit=Somebody()) as client:
        asked = await asking(client, "delete_ticket", arguments)
        made_up = await answered(client, "delete_ticket", arguments, None)
        silent = await client.session.call_tool(
            "delete_ticket", arguments, request_state=asked.request_state, allow_input_required=True
        )

    assert isinstance(made_up, InputRequiredResult)
    assert isinstance(silent, InputRequiredResult)
    assert (await tools.ticket("TH-1"))["version"] == 1


async def test_a_state_counts_for_its_own_call_alone(tools: Tools, served: Served) -> None:
    async with served.client(MODERN, elicit=Somebody()) as client:
        state = (await asking(client, "delete_ticket", {"ticket_id": "TH-1"})).request_state
        assert state is not None
        cut = state[:-1] + ("A" if state[-1] != "A" else "B")
        for tool, arguments, given in (
            ("delete_ticket", {"ticket_id": "TH-1"}, cut),
            ("delete_ticket", {"ticket_id": "TH-1"}, "{}"),
            ("delete_ticket", {"ticket_id": "TH-1"}, ""),
            ("delete_ticket", {"ticket_id": "TH-2"}, state),
            ("delete_ticket", {"ticket_id": "TH-1", "confirm": False}, state),
            ("restore_ticket", {"ticket_id": "TH-1"}, state),
        ):
            await refused(client, tool, arguments, given)

    assert sorted(await tools.keys()) == ["TH-1", "TH-2"]


async def test_a_state_counts_for_its_own_principal_and_deployment_alone(tools: Tools, tickets: TicketService) -> None:
    async with serve_mcp(tickets, auth=TwoKeys()) as served:
        async with served.client(MODERN, elicit=Somebody(), headers={"X-API-Key": "ann"}) as ann:
            state = (await asking(ann, "delete_ticket", {"ticket_id": "TH-1"})).request_state
        async with served.client(MODERN, elicit=Somebody(), headers={"X-API-Key": "ben"}) as ben:
            await refused(ben, "delete_ticket", {"ticket_id": "TH-1"}, state)
    async with (
        serve_mcp(tickets, auth=TwoKeys(), secret=b"another") as elsewhere,
        elsewhere.client(MODERN, elicit=Somebody(), headers={"X-API-Key": "ann"}) as ann,
    ):
        await refused(ann, "delete_ticket", {"ticket_id": "TH-1"}, state)


async def test_a_state_ends_after_a_while(
    tools: Tools, tickets: TicketService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_server, "LIFETIME_S", 1e-6)
    async with serve_mcp(tickets) as served, served.client(MODERN, elicit=Somebody()) as client:
        state = (await asking(client, "delete_ticket", {"ticket_id": "TH-1"})).request_state

        await refused(client, "delete_ticket", {"ticket_id": "TH-1"}, state)


async def test_a_state_that_is_sent_again_deletes_no_second_time(tools: Tools, served: Served) -> None:
    arguments = {"ticket_id": "TH-1"}
    async with served.client(MODERN, elicit=Somebody()) as client:
        state = (await asking(client, "delete_ticket", arguments)).request_state
        await answered(client, "delete_ticket", arguments, state)
        gone = await answered(client, "delete_ticket", arguments, state)
        await tools("restore_ticket", ticket_id="TH-1", confirm=True)
        restored = await answered(client, "delete_ticket", arguments, state)

    assert isinstance(gone, CallToolResult)
    assert data_of(gone)["code"] == "deleted"
    assert isinstance(restored, InputRequiredResult)
    assert (await tools.ticket("TH-1"))["version"] == 3


async def refused(client: Client, tool: str, arguments: dict[str, Any], state: str | None) -> None:
    with pytest.raises(MCPError, match="not issued to you for this very call, or it is older") as error:
        await answered(client, tool, arguments, state)
    assert error.value.code == INVALID_PARAMS
    assert error.value.data == {"code": "confirmation_invalid", "retryable": False}
