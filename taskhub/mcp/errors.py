"""Failures as tool results: one sentence per problem, and the same as data, so that a model can correct its call.

Only texts that were written for callers get here; anything unexpected becomes a short sentence with an id to find it
in the log.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, get_args

from mcp_types import CallToolResult, TextContent
from pydantic import BaseModel, ValidationError

from taskhub.auth.errors import AuthError, Forbidden
from taskhub.fitting import MAX_CHARACTERS, clip, fitted
from taskhub.mcp.failures import scrubbed
from taskhub.redaction import without_keys
from taskhub.tickets.errors import (
    BatchFailed,
    InputProblem,
    InvalidInput,
    TicketError,
    TicketNotFound,
    in_words,
)
from taskhub.tickets.fields import suggested_name
from taskhub.tickets.model import ItemResult

MAX_ARGUMENTS: Final = 100
MAX_PROBLEMS: Final = 20
_ALLOWED_IN_TEXT: Final = 40
_MAX_MESSAGE: Final = 4_000
_MAX_ITEM: Final = 300
"""Characters of what is wrong with one of fifty items."""
_MAX_ECHO: Final = 80
_THE_REST: Final = "long values were cut here: get_ticket_detail reads a ticket with its history"


def failed(code: str, message: str, *, retryable: bool = False, hint: str | None = None, **data: Any) -> CallToolResult:
    """An error result within the cap. `data` is added to the structured content; a list under `allowed` is named in the
    text too."""
    message, data = without_keys(clip(message, _MAX_MESSAGE)), scrubbed(data)
    content: dict[str, Any] = {"code": code, "message": message, "retryable": retryable}
    if hint:
        content["hint"] = hint
    content.update(data)
    lines = [_sentence(message)]
    if allowed := data.get("allowed"):
        more = f" and {len(allowed) - _ALLOWED_IN_TEXT} more" if len(allowed) > _ALLOWED_IN_TEXT else ""
        lines.append(clip(f"Allowed: {', '.join(allowed[:_ALLOWED_IN_TEXT])}{more}.", _MAX_MESSAGE))
    if hint:
        lines.append(f"Hint: {hint}.")
    lines.append(f"(code {code}, {'may work when repeated' if retryable else 'not retryable as it is'})")
    text = "\n".join(lines)
    content = fitted(content, MAX_CHARACTERS - len(text), f"{hint}; {_THE_REST}" if hint else _THE_REST, keep="first")
    return CallToolResult(content=[TextContent(text=text)], structured_content=content, is_error=True)


def from_ticket_error(error: TicketError, *, writing: bool) -> CallToolResult:
    """The failure of a tool that only reads, or of one that was to change something."""
    message, hint = error.told(writing=writing)
    data = error.details()
    match error:
        case InvalidInput():
            message = "\n".join(_sentence(_problem_text(problem)) for problem in error.problems)
            data["problems"] = [_problem_data(problem) for problem in error.problems]
            if allowed := next((problem.allowed for problem in error.problems if problem.allowed), None):
                data["allowed"] = list(allowed)
        case BatchFailed():
            items = error.result.results
            data = {"results": [{"key": item.key, "ok": item.ok, **_why(item)} for item in items]}
        case TicketNotFound():
            hint = "get_ticket_list shows the keys; a key looks like TH-12"
    return failed(error.code, message, retryable=error.retryable, hint=hint, **data)


def _why(item: ItemResult) -> dict[str, str]:
    return {} if item.error is None else {"code": item.error.code, "message": clip(item.error.message, _MAX_ITEM)}


def from_auth_error(error: AuthError) -> CallToolResult:
    if isinstance(error, Forbidden):
        return failed("forbidden", str(error), hint="use a credential with that scope", scope=error.scope)
    return failed("unauthenticated", str(error) or "the credential is missing or not valid")


def invalid_arguments(error: ValidationError, model: type[BaseModel]) -> InvalidInput:
    """What pydantic found wrong with a tool's arguments, in our own words, with short values alone."""
    found = _once_per_place(error.errors())
    problems = [_from_pydantic(item, _names_at(model, item["loc"])) for item in found[:MAX_PROBLEMS]]
    if len(found) > MAX_PROBLEMS:
        problems.append(InputProblem("", f"{len(found) - MAX_PROBLEMS} more problems are not listed"))
    return InvalidInput(problems)


def too_many_arguments(count: int) -> InvalidInput:
    """Judged before they are validated: each unknown one is an error of its own, and thousands hold up every stream."""
    return InvalidInput([InputProblem("", f"{count} arguments were given; no tool has more than {MAX_ARGUMENTS}")])


def _names_at(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """What there may be beside the argument at `location`, which may be inside of a list of objects."""
    for step in location[:-1]:
        inner = model.model_fields.get(step) if isinstance(step, str) else None
        model = next(iter(_models_in(inner.annotation)), model) if inner is not None else model
    return list(model.model_fields)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _once_per_place(errors: Sequence[Any]) -> list[Any]:
    """A union reports each of its arms; the first one says enough about a place."""
    seen: dict[str, Any] = {}
    for item in errors:
        seen.setdefault(_pointer(item["loc"]), item)
    return list(seen.values())


def _pointer(location: Sequence[int | str]) -> str:
    return "".join(f"/{str(part)[:_MAX_ECHO]}" for part in location)


def _from_pydantic(item: Any, names: Sequence[str]) -> InputProblem:
    pointer = _pointer(item["loc"])
    name = str(item["loc"][-1]) if item["loc"] else ""
    match item["type"]:
        case "missing":
            return InputProblem(pointer, "is required")
        case "extra_forbidden":
            return InputProblem(pointer, "is not a parameter of this tool", tuple(names), suggested_name(name, names))
        case "literal_error":
            allowed = tuple(part.strip("'") for part in item["ctx"]["expected"].replace(" or ", ", ").split(", "))
            given = item["input"]
            named = f"{given[:_MAX_ECHO]!r} is" if isinstance(given, str) else "is"
            near = suggested_name(given, allowed) if isinstance(given, str) else None
            return InputProblem(pointer, f"{named} not one of the allowed values", allowed, near)
        case _:
            reason = item["msg"].removeprefix("Value error, ").removeprefix("Input ")
            return InputProblem(pointer, reason[:1].lower() + reason[1:])


def _problem_text(problem: InputProblem) -> str:
    return f"{problem.pointer.lstrip('/') or 'arguments'}: {in_words(problem.reason, problem.did_you_mean)}"


def _problem_data(problem: InputProblem) -> dict[str, Any]:
    data: dict[str, Any] = {"parameter": problem.pointer.lstrip("/"), "reason": problem.reason}
    if problem.allowed:
        data["allowed"] = list(problem.allowed)
    if problem.did_you_mean:
        data["did_you_mean"] = problem.did_you_mean
    return data


def _sentence(text: str) -> str:
    text = text[:1].upper() + text[1:] if not text.partition(":")[0].replace("_", "").isalnum() else text
    return text if text.endswith((".", "?", "!")) else f"{text}."
