"""The clients of the TypeScript SDKs, old and new, over every transport."""

import json
import sys
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.e2e.harness.clients import MODERN, Api
from tests.e2e.harness.process import ROOT, TaskHubProcess, clean_environment
from tests.e2e.harness.tools import Missing, node_packages
from tests.e2e.harness.typescript import NodeClient, NodeProcess, Refused
from tests.e2e.harness.waiting import until

pytestmark = pytest.mark.needs("npm packages")

BOARD: Final = "taskhub://board"
LIBRARIES: Final = ("client.mjs", "sdk.mjs")
INVALID_PARAMS: Final = -32602
OLDER_NOT_FOUND: Final = -32002
KINDS: Final = [
    pytest.param(script, era, transport, id=f"{script.partition('.')[0]}-{era}-{transport}")
    for script, era in (("client.mjs", MODERN), ("client.mjs", "legacy"), ("sdk.mjs", "legacy"))
    for transport in ("http", "sse", "stdio")
    if not (era == MODERN and transport == "sse")
]


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, NodeProcess]]:
    """A Node process for each SDK; its clients stay open from test to test."""
    try:
        node_packages()
    except Missing as missing:  # which the mark of this file says too late: after the fixtures of the module
        pytest.skip(f"missing {missing}")
    log = tmp_path_factory.mktemp("node") / "errors.log"
    processes = {script: NodeProcess(script, log) for script in LIBRARIES}
    yield processes
    for process in processes.values():
        process.close()


@pytest.fixture(scope="module")
def opened() -> dict[tuple[str, str, str], NodeClient]:
    return {}


@pytest.fixture
async def client(
    script: str,
    era: str,
    transport: str,
    hub: TaskHubProcess,
    libraries: dict[str, NodeProcess],
    opened: dict[tuple[str, str, str], NodeClient],
) -> NodeClient:
    """A client of the kind that the test is about."""
    kind = (script, era, transport)
    if kind not in opened:
        client = NodeClient(libraries[script], f"{era} {transport}", era)
        await client.open(transport, **where(hub, transport))
        opened[kind] = client
    return opened[kind]


def where(hub: TaskHubProcess, transport: str) -> dict[str, Any]:
    if transport == "stdio":
        environment = clean_environment({"TASKHUB_DATA_DIR": str(hub.data_dir)})
        return {"command": sys.executable, "args": ["-m", "taskhub", "stdio"], "env": environment, "cwd": str(ROOT)}
    return {"url": f"{hub.url}/{'sse' if transport == 'sse' else 'mcp'}"}


@pytest.mark.parametrize(("script", "era", "transport"), KINDS)
async def test_tools_resources_and_prompts_are_listed_and_used(client: NodeClient) -> None:
    tools = (await client.do("listTools"))["tools"]
    made = await client.call("create_ticket", summary="Made with TypeScript")
    key = made["structuredContent"]["key"]
    resources = (await client.do("listResources"))["resources"]
    templates = (await client.do("listResourceTemplates"))["resourceTemplates"]
    (read,) = (await client.do("readResource", {"uri": f"taskhub://tickets/{key}"}))["contents"]
    prompts = (await client.do("listPrompts"))["prompts"]
    prompt = await client.do("getPrompt", {"name": "handover", "arguments": {"ticket": key}})
    reference = {"type": "ref/prompt", "name": "handover"}
    completed = await client.do("complete", {"ref": reference, "argument": {"name": "ticket", "value": key}})

    assert {"create_ticket", "get_ticket_detail", "get_events"} <= {tool["name"] for tool in tools}
    assert made["content"][0]["text"].startswith(key)
    assert {"taskhub://board", "taskhub://events"} == {resource["uri"] for resource in resources}
    assert "taskhub://tickets/{key}" in {template["uriTemplate"] for template in templates}
    assert json.loads(read["text"])["ticket"]["summary"] == "Made with TypeScript"
    assert {"handover", "standup"} <= {prompt["name"] for prompt in prompts}
    assert "Made with TypeScript" in prompt["messages"][0]["content"]["text"]
    assert key in completed["completion"]["values"]


@pytest.mark.parametrize(("script", "era", "transport"), KINDS)
async def test_errors_are_told(client: NodeClient, script: str) -> None:
    failed = await client.call("get_ticket_detail", ticket_id="TH-99999")
    invalid = await client.call("create_ticket", summary="x", no_such_argument=1)
    with pytest.raises(Refused) as no_tool:
        await client.call("no_such_tool")
    with pytest.raises(Refused) as no_ticket:
        await client.do("readResource", {"uri": "taskhub://tickets/TH-99999"})
    with pytest.raises(Refused) as no_prompt:
        await client.do("getPrompt", {"name": "no_such_prompt"})

    assert (failed["isError"], failed["structuredContent"]["code"]) == (True, "not_found")
    assert invalid["isError"]
    assert "no_such_argument" in invalid["content"][0]["text"]
    assert no_tool.value.code == no_prompt.value.code == INVALID_PARAMS
    # The newer SDK recognises the code of either era, and shows that of the later one.
    assert no_ticket.value.code == (OLDER_NOT_FOUND if script == "sdk.mjs" else INVALID_PARAMS)
    assert no_ticket.value.data["uri"] == "taskhub://tickets/TH-99999"


@pytest.mark.parametrize(("script", "era", "transport"), KINDS)
async def test_a_subscriber_is_told_of_changes_that_others_make(client: NodeClient, era: str, rest: Api) -> None:
    key = (await rest.create("Watched with TypeScript"))["key"]
    ticket = f"taskhub://tickets/{key}"
    if era == MODERN:
        honoured = await client.do("listen", {"resourceSubscriptions": [ticket]})
        assert honoured == {"resourceSubscriptions": [ticket]}
    else:
        await client.do("subscribeResource", {"uri": ticket})

    await rest.change(key, priority="high")
    await client.hears(ticket)

    (read,) = (await client.do("readResource", {"uri": ticket}))["contents"]
    assert json.loads(read["text"])["ticket"]["priority"] == "high"


@pytest.mark.parametrize(("script", "era", "transport"), KINDS)
async def test_a_call_that_is_cancelled_gets_no_answer_and_the_next_one_does(client: NodeClient) -> None:
    waiting = client.start_call("get_events", after="now", wait_seconds=30)
    await client.do("readResource", {"uri": BOARD})  # answered after the server has begun the call
    await waiting.cancel()
    with pytest.raises(Refused) as cancelled:
        await waiting.answer()
    answered = await client.call("get_ticket_list")

    assert "the test wants no answer" in cancelled.value.message
    assert not answered.get("isError")


async def test_clients_go_on_after_a_restart_of_the_server(
    hub: TaskHubProcess, libraries: dict[str, NodeProcess], rest: Api
) -> None:
    ticket = f"taskhub://tickets/{(await rest.create('Watched over a restart'))['key']}"
    modern = NodeClient(libraries["client.mjs"], "before the restart", MODERN)
    older = [NodeClient(node, "in a session before the restart", "legacy") for node in libraries.values()]
    on_streams = [
        (NodeClient(node, f"on a stream of {path} before the restart", "legacy"), path)
        for node in libraries.values()
        for path in ("sse", "mcp")
    ]
    for client in (modern, *older):
        await client.open("http", **where(hub, "http"))
        await client.do("listTools")
    for client, path in on_streams:
        await client.open("sse", url=f"{hub.url}/{path}")
    await modern.do("listen", {"resourceSubscriptions": [ticket]})
    for client in older:
        await client.do("subscribeResource", {"uri": ticket})

    await hub.stop()
    ended = await modern.subscription_end()
    await hub.restart()

    made = [await client.call("create_ticket", summary="After the restart") for client in (modern, *older)]
    for client, _ in on_streams:
        await goes_on(client)
    await modern.do("listen", {"resourceSubscriptions": [ticket]})
    refusals = []
    for client in older:
        with pytest.raises(Refused) as refused:
            await client.do("subscribeResource", {"uri": ticket})
        refusals.append(refused.value.message)
    await rest.change(ticket.rpartition("/")[2], priority="high")
    await modern.hears(ticket)

    assert ended == "graceful"
    assert all(answer["structuredContent"]["key"] for answer in made)
    assert all("initialize again" in refusal for refusal in refusals), refusals


async def goes_on(client: NodeClient) -> None:
    """Return once calls get through: until a client on a stream has opened the next one, they do not."""
    refusals: list[str] = []

    async def answers() -> bool:
        try:
            return not (await client.call("get_ticket_list")).get("isError", False)
        except Refused as refused:
            refusals.append(str(refused))
            return False

    await until(answers, f"answer to {client.name}", explain=lambda: refusals[-1])
