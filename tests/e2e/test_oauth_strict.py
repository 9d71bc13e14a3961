"""An OAuth client that takes nothing but what the standards allow signs in at TaskHub's own authorization server."""

from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import pytest

from tests.e2e.harness.consenting import Person, person, told
from tests.e2e.harness.process import TaskHubProcess
from tests.e2e.harness.tools import Missing, node_packages
from tests.e2e.harness.typescript import NodeProcess, Refused

pytestmark = pytest.mark.needs("npm packages")

CALLBACK: Final = "http://127.0.0.1:9/callback"
INITIALIZE: Final = {
    "jsonrpc": "2.0", "id": 1, "method": "initialize",
    "params": {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "strict", "version": "1"}},
}  # fmt: skip
MAKE_A_TICKET: Final = {
    "jsonrpc": "2.0", "id": 1, "method": "tools/call",
    "params": {"name": "create_ticket", "arguments": {"summary": "Made by a strict client"}},
}  # fmt: skip


class Strict:
    """A client; `do` tells it what to do, see typescript/oauth.mjs."""

    def __init__(self, node: NodeProcess, name: str, olga: Person) -> None:
        self._node = node
        self._name = name
        self._olga = olga
        self.found: dict[str, Any] = {}
        self.id = ""

    async def do(self, action: str, **said: Any) -> Any:
        return await self._node.send(self._name, action, said).answer()

    async def refused(self, action: str, **said: Any) -> dict[str, Any]:
        """What the library has read of an error of OAuth."""
        with pytest.raises(Refused) as refusal:
            await self.do(action, **said)
        assert str(refusal.value.code).startswith("OAUTH_"), refusal.value
        data: dict[str, Any] = refusal.value.data
        return data

    async def begin(self) -> None:
        """Find who issues tokens, and register there."""
        self.found = await self.do("discover", resource=f"{self._olga.hub.url}/mcp")
        self.id = (await self.do("register", redirect_uris=[CALLBACK], client_name="Strict"))["client_id"]

    async def let_in(self, **parameters: str) -> None:
        """Until the client has a code."""
        await self.do("back", address=await self._olga.lets_in(await self.do("ask", **parameters)))

    async def signed_in(self, **parameters: str) -> dict[str, Any]:
        """The tokens."""
        await self.let_in(**parameters)
        tokens: dict[str, Any] = await self.do("redeem")
        return tokens


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeProcess]:
    try:
        node_packages()
    except Missing as missing:  # which the mark of this file says too late: after the fixtures of the module
        pytest.skip(f"missing {missing}")
    process = NodeProcess("oauth.mjs", tmp_path_factory.mktemp("node") / "errors.log")
    yield process
    process.close()


@pytest.fixture
async def client(issuing: TaskHubProcess, library: NodeProcess, request: Any) -> AsyncIterator[Strict]:
    """A client that has registered."""
    if not issuing.running:
        await issuing.start()
    async with person(issuing) as olga:
        client = Strict(library, request.node.name, olga)
        await client.begin()
        yield client


async def test_what_the_server_says_of_itself_is_taken(client: Strict, issuing: TaskHubProcess) -> None:
    server, resource = client.found["server"], client.found["resource"]

    assert (server["issuer"], resource["resource"]) == (issuing.url, f"{issuing.url}/mcp")
    assert server["authorization_response_iss_parameter_supported"] is True
    assert server["code_challenge_methods_supported"] == ["S256"]
    assert (await client.refused("register", redirect_uris=["javascript:alert(1)"]))["error"] == "invalid_redirect_uri"


async def test_the_access_token_is_one_of_rfc_9068_for_the_resource(client: Strict, issuing: TaskHubProcess) -> None:
    tokens = await client.signed_in(scope="tickets:read tickets:write")
    claims = await client.do("judge", token=tokens["access_token"])
    welcomed = await client.do("call", token=tokens["access_token"], message=INITIALIZE)

    assert (tokens["token_type"], tokens["scope"]) == ("bearer", "tickets:read tickets:write")
    assert (claims["iss"], claims["aud"], claims["client_id"]) == (issuing.url, f"{issuing.url}/mcp", client.id)
    assert claims["scope"] == tokens["scope"]
    assert (welcomed["status"], '"serverInfo"' in welcomed["body"]) == (200, True), welcomed


async def test_tokens_are_refreshed_looked_at_and_revoked(client: Strict) -> None:
    first = await client.signed_in()
    second = await client.do("refresh", token=first["refresh_token"], scope="tickets:read")
    claims = await client.do("judge", token=second["access_token"])
    access = await client.do("introspect", token=second["access_token"])
    refreshing = await client.do("introspect", token=second["refresh_token"])
    await client.do("revoke", token=second["refresh_token"])
    await client.do("revoke", token="one that never was")
    over = [await client.do("introspect", token=token) for token in (second["access_token"], second["refresh_token"])]
    too_late = await client.refused("refresh", token=second["refresh_token"])

    assert first["refresh_token"] != second["refresh_token"]
    assert access["active"]
    assert refreshing["active"]
    assert access["scope"] == claims["scope"] == second["scope"] == "tickets:read"
    assert (access["sub"], access["exp"], access["client_id"]) == (claims["sub"], claims["exp"], client.id)
    assert over == [{"active": False}] * 2
    assert (too_late["error"], too_late["status"]) == ("invalid_grant", 400)


@pytest.mark.parametrize(
    ("parameters", "error"),
    [
        ({"resource": "https://elsewhere.example/mcp"}, "invalid_target"),
        ({"scope": "no_such_scope"}, "invalid_scope"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
    ],
)
async def test_a_refusal_comes_back_with_state_and_issuer(
    client: Strict, issuing: TaskHubProcess, parameters: dict[str, str], error: str
) -> None:
    async with person(issuing) as olga:
        address = await olga.sent_on(await client.do("ask", **parameters))
    refusal = await client.refused("back", address=address)

    assert refusal["error"] == error
    assert told(address)["iss"] == issuing.url
    assert refusal["description"]


async def test_codes_are_refused_with_errors_of_oauth(client: Strict) -> None:
    await client.let_in()
    guessed = await client.refused("redeem", verifier="a" * 43)
    malformed = await client.refused("redeem", verifier="short")
    tokens = await client.do("redeem")
    replayed = await client.refused("redeem")
    ended = await client.do("introspect", token=tokens["access_token"])

    assert (guessed["error"], guessed["status"]) == ("invalid_grant", 400)
    assert (malformed["error"], malformed["status"]) == ("invalid_request", 400)
    assert (replayed["error"], replayed["status"]) == ("invalid_grant", 400)
    assert ended == {"active": False}


async def test_a_client_that_nobody_knows_is_told_to_register_again(client: Strict) -> None:
    tokens = await client.signed_in()
    await client.let_in()
    await client.do("use", client_id="cli_000000000000000000000000")

    for refusal in (await client.refused("redeem"), await client.refused("refresh", token=tokens["refresh_token"])):
        assert (refusal["error"], refusal["status"], refusal["challenges"]) == ("invalid_client", 400, None)


async def test_a_client_that_comes_with_a_secret_is_answered_with_a_challenge(client: Strict) -> None:
    refusal = await client.refused("refresh", token="any", secret="one that nobody has given it")

    assert (refusal["status"], [challenge["scheme"] for challenge in refusal["challenges"]]) == (401, ["basic"])


async def test_the_challenges_of_the_resource_can_be_read(client: Strict, issuing: TaskHubProcess) -> None:
    reading = await client.signed_in(scope="tickets:read")
    nobody = await client.refused("call", message=MAKE_A_TICKET)
    forged = await client.refused("call", token="ey.ey.x", message=MAKE_A_TICKET)
    weak = await client.refused("call", token=reading["access_token"], message=MAKE_A_TICKET)

    where = f"{issuing.url}/.well-known/oauth-protected-resource/mcp"
    for refusal, status, error in (
        (nobody, 401, None),
        (forged, 401, "invalid_token"),
        (weak, 403, "insufficient_scope"),
    ):
        (challenge,) = refusal["challenges"]
        parameters = challenge["parameters"]
        assert (refusal["status"], challenge["scheme"]) == (status, "bearer")
        assert (parameters.get("error"), parameters["resource_metadata"]) == (error, where)
        assert "tickets:write" in parameters["scope"].split()
