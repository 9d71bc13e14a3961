"""`taskhub oauth`, and what of it stands in the audit log."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import orjson
import pytest

from taskhub.audit.log import AuditLog, AuditQuery
from taskhub.auth.errors import InvalidToken
from taskhub.cli.parser import run
from taskhub.oauth import signing
from taskhub.oauth.errors import OAuthError
from tests.taskhub.oauth.flow import Instance
from tests.taskhub.world import ALICE, World


@pytest.fixture
def printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("TASKHUB_DATA_DIR", str(tmp_path))

    def printed(*arguments: str, status: int = 0) -> list[str]:
        capsys.readouterr()
        assert run(["oauth", *arguments]) == status
        output = capsys.readouterr()
        return (output.err if status else output.out).splitlines()

    return printed


def test_an_operator_makes_clients_known_and_forgets_them(printed: Any) -> None:
    (client_id,) = printed("add-client", "Robot", "--redirect-uri", "http://localhost:1/cb")
    (listed,) = printed("clients", "--json")
    assert orjson.loads(listed)["redirect_uris"] == ["http://localhost:1/cb"]
    assert "Robot" in printed("clients")[0]

    printed("remove-client", client_id)

    assert printed("clients") == []
    assert "there is no client" in printed("remove-client", client_id, status=1)[0]
    assert "javascript" not in (refused := printed("add-client", "x", "--redirect-uri", "javascript:1", status=1)[0])
    assert "a redirect URI must be https" in refused
    assert printed("grants") == []
    assert "no connected application" in printed("end", "grt_unknown", status=1)[0]


def test_keys_are_rotated(printed: Any) -> None:
    assert printed("rotate-keys") == printed("rotate-keys", "--now") == []


async def test_a_new_key_is_published_before_it_signs_and_the_old_one_stays_as_long_as_its_tokens(world: World) -> None:
    here, there = Instance(world.database), Instance(world.database)
    keys = here.server.keys

    async def signed_by() -> str:
        return str(jwt.get_unverified_header(await keys.sign({}, "at+jwt"))["kid"])

    first = await signed_by()
    second = await keys.rotate()
    assert await keys.rotate() == second  # it has not signed yet
    assert {key["kid"] for key in await there.server.keys.published()} == {first, second}
    assert await signed_by() == first
    here.now += signing.LEAD
    assert await signed_by() == second
    await keys.rotate_if_due()
    assert await keys.key(first, "ES256") is not None

    here.now += signing.OVERLAP + timedelta(seconds=1)
    await keys.rotate_if_due()
    assert await keys.key(first, "ES256") is None
    here.now += signing.ROTATED_AFTER
    await keys.rotate_if_due()
    here.now += signing.LEAD
    third = await signed_by()
    assert third != second

    assert await keys.replace() not in (second, third)
    assert [key["kid"] for key in await keys.published()] == [await signed_by()]


async def test_tokens_of_a_key_that_was_replaced_at_once_are_good_no_more(world: World) -> None:
    await world.add("users", "Carol", role="agent")
    here = Instance(world.database)
    tokens = await here.tokens(await here.registered())
    await here.server.tokens.verify(tokens["access_token"])

    await here.server.keys.replace()

    with pytest.raises(InvalidToken):
        await here.server.tokens.verify(tokens["access_token"])


async def test_what_is_connected_and_disconnected_is_in_the_audit_log(world: World) -> None:
    await world.add("users", "Carol", role="agent")
    here = Instance(world.database)
    client = await here.registered(client_name="Reader")
    code = await here.code(client)
    await here.redeem(client, code)
    with pytest.raises(OAuthError):
        await here.redeem(client, code)

    log = await AuditLog(world.database).page(ALICE, AuditQuery())
    told = [(entry.action, entry.details.get("why"), entry.details["name"]) for entry in log.entries]

    assert told == [
        ("application.disconnected", "its code was shown twice", "Reader"),
        ("application.connected", None, "Reader"),
    ]
