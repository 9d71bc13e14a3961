"""Who a request comes from."""

import pytest
from multidict import CIMultiDict

from taskhub.auth.errors import Unauthenticated
from taskhub.auth.principal import ALL_SCOPES
from taskhub.auth.providers import ApiKeyAuth, NoAuth, actor_of


async def test_without_authentication_everybody_is_the_local_operator() -> None:
    principal = await NoAuth().authenticate({}, "127.0.0.1")

    assert (principal.actor, principal.workspace, principal.authenticated) == ("user:local", "default", False)
    assert principal.scopes == ALL_SCOPES


@pytest.mark.parametrize(
    ("given", "actor"),
    [
        ("triage-bot", "agent:triage_bot"),
        ("Triage Bot", "agent:triage_bot"),
        ("user:alice", "user:alice"),
        ("agent:triage-bot", "agent:triage-bot"),
        ("SERVICE:Build", "service:build"),
        ("robot:x", "agent:robot_x"),
        ("佐藤", "agent:佐藤"),
        ("a\r\nx: y", "agent:a_x_y"),
        ("  ", None),
        ("user:", None),
        ("///", None),
    ],
)
def test_a_caller_names_itself(given: str, actor: str | None) -> None:
    assert actor_of(given) == actor


def test_a_name_has_a_bounded_length() -> None:
    assert len(actor_of("x" * 10_000) or "") <= 110


async def test_the_header_names_the_actor_whatever_its_case() -> None:
    for name in ("x-taskhub-actor", "X-TASKHUB-ACTOR"):
        assert (await NoAuth().authenticate(CIMultiDict({name: "user:alice"}), None)).actor == "user:alice"


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": "right"},
        {"X-API-Key": "right"},
        {"Authorization": "Bearer right"},
        {"authorization": "bearer   right"},
    ],
)
async def test_the_key_is_accepted_in_either_header(headers: dict[str, str]) -> None:
    principal = await ApiKeyAuth("right").authenticate(CIMultiDict(headers), None)

    assert (principal.actor, principal.authenticated) == ("user:operator", True)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-api-key": ""},
        {"x-api-key": "wrong"},
        {"x-api-key": "righ"},
        {"x-api-key": "right "},
        {"x-api-key": "Right"},
        {"Authorization": "right"},
        {"Authorization": "Basic right"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer wrong"},
        {"x-api-key": "wrong", "Authorization": "Bearer right"},
        {"x-api-key": "\udcff"},
    ],
)
async def test_anything_else_is_refused_in_the_same_words(headers: dict[str, str]) -> None:
    with pytest.raises(Unauthenticated) as refused:
        await ApiKeyAuth("right").authenticate(CIMultiDict(headers), None)

    assert str(refused.value) == "an API key is needed, as `x-api-key` or `Authorization: Bearer`"


@pytest.mark.parametrize(
    ("given", "actor"),
    [
        ("agent:triage-bot", "agent:triage-bot"), ("Triage Bot", "agent:triage_bot"), ("service:ci", "service:ci"),
        ("user:alice", "user:operator"), ("USER:operator", "user:operator"), ("///", "user:operator"),
    ],
)  # fmt: skip
async def test_agents_that_share_a_key_say_which_they_are_and_none_is_another_person(given: str, actor: str) -> None:
    headers = CIMultiDict({"x-api-key": "right", "X-TaskHub-Actor": given})
    principal = await ApiKeyAuth("right").authenticate(headers, None)

    assert (principal.actor, principal.authenticated, principal.scopes) == (actor, True, ALL_SCOPES)
    assert (principal.owner or principal.actor, principal.is_person) == ("user:operator", actor == "user:operator")


async def test_a_name_alone_opens_nothing() -> None:
    with pytest.raises(Unauthenticated):
        await ApiKeyAuth("right").authenticate(CIMultiDict({"X-TaskHub-Actor": "agent:bot"}), None)
