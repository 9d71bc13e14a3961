"""Asking a client of the 2026 era for what a request still needs: it repeats the request with the answers."""

from collections.abc import Mapping, Sequence

from mcp_types import (
    CreateMessageRequest,
    CreateMessageRequestParams,
    ElicitRequest,
    ElicitRequestFormParams,
    InputRequiredResult,
    InputResponseRequestParams,
    InputResponses,
    ListRootsRequest,
    SamplingMessage,
    TextContent,
)

Question = ElicitRequest | CreateMessageRequest | ListRootsRequest
Round = Mapping[str, Question]
"""Questions by the keys under which their answers come."""


def form(message: str, **fields: str) -> ElicitRequest:
    """Ask the user to fill in fields, each with the JSON type given."""
    schema = {
        "type": "object",
        "properties": {name: {"type": kind} for name, kind in fields.items()},
        "required": list(fields),
    }
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=schema))


def prompt(text: str, max_tokens: int = 100) -> CreateMessageRequest:
    """Ask the client's model."""
    message = SamplingMessage(role="user", content=TextContent(text=text))
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=[message], max_tokens=max_tokens))


def next_round(rounds: Sequence[Round], params: InputResponseRequestParams) -> InputRequiredResult | InputResponses:
    """The questions to ask now, or the answers to those of the last round when none is missing.

    The state that the client sends back counts the rounds; whoever serves the request protects it.
    """
    number = int(params.request_state or 0)
    answers = params.input_responses or {}
    if all(key in answers for key in rounds[number]):
        number += 1
    if number == len(rounds):
        return answers
    return InputRequiredResult(input_requests=dict(rounds[number]), request_state=str(number))
