"""Fixtures of the end-to-end tests: servers, what they printed when a test fails, and what is missing."""

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import Final

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.e2e.harness.clients import Api, api
from tests.e2e.harness.pages import Window, launched, window
from tests.e2e.harness.process import TaskHubProcess
from tests.e2e.harness.tools import TOOLS, Missing
from tests.servers import PostgresServer, RedisServer, free_port

HUBS: Final = pytest.StashKey[list[TaskHubProcess]]()

MakeHub = Callable[..., TaskHubProcess]


@pytest.fixture(scope="session")
def hubs(request: pytest.FixtureRequest) -> list[TaskHubProcess]:
    """The servers in use, for the report of a failed test."""
    return request.config.stash.setdefault(HUBS, [])


@pytest.fixture
def make_hub(tmp_path: Path, hubs: list[TaskHubProcess]) -> Iterator[MakeHub]:
    """Make servers of the test's own: `make_hub(*arguments, name=, environment=, …)`; killed at its end."""
    made: list[TaskHubProcess] = []

    def make(*arguments: str, name: str = "taskhub", data_dir: Path | None = None, **options: object) -> TaskHubProcess:
        hub = TaskHubProcess(data_dir or tmp_path / name, *arguments, name=name, **options)  # type: ignore[arg-type]  # passed on
        made.append(hub)
        hubs.append(hub)
        return hub

    yield make
    for hub in made:
        hub.dispose()
        hubs.remove(hub)


@pytest.fixture(scope="module")
def module_hub(tmp_path_factory: pytest.TempPathFactory, hubs: list[TaskHubProcess]) -> Iterator[TaskHubProcess]:
    """A server that the tests of one module share; not started yet."""
    hub = TaskHubProcess(tmp_path_factory.mktemp("shared") / "taskhub", name="shared")
    hubs.append(hub)
    yield hub
    hub.dispose()
    hubs.remove(hub)


@pytest.fixture(scope="module")
def issuing(tmp_path_factory: pytest.TempPathFactory, hubs: list[TaskHubProcess]) -> Iterator[TaskHubProcess]:
    """A server for the tests of one module that issues tokens and lets clients register; not started yet."""
    port = free_port()
    environment = {
        "TASKHUB_AUTH": "oauth",
        "TASKHUB_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "TASKHUB_OAUTH_REGISTRATION": "true",
    }
    hub = TaskHubProcess(tmp_path_factory.mktemp("oauth") / "taskhub", name="oauth", environment=environment)
    hub.port = port
    hubs.append(hub)
    yield hub
    hub.dispose()
    hubs.remove(hub)


@pytest.fixture
def redis() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def module_redis() -> Iterator[RedisServer]:
    """A Redis for the tests of a file, on which `module_pair` is."""
    server = RedisServer()
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def module_pair(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    hubs: list[TaskHubProcess],
    postgres: PostgresServer,
    module_redis: RedisServer,
) -> Iterator[list[TaskHubProcess]]:
    """Two servers on one PostgreSQL and one Redis for the tests of a file, not started; its `PAIR` is what else is in
    their environment."""
    environment = {
        "TASKHUB_DATABASE_URL": postgres.create_migrated(),
        "TASKHUB_REDIS_URL": module_redis.url,
        **getattr(request.module, "PAIR", {}),
    }
    directory = tmp_path_factory.mktemp("pair")
    pair = [TaskHubProcess(directory / name, environment=environment, name=name) for name in ("first", "second")]
    hubs += pair
    yield pair
    for hub in pair:
        hub.dispose()
        hubs.remove(hub)


@pytest.fixture(params=["sqlite", "postgresql"])
def idle_hub(request: pytest.FixtureRequest, make_hub: MakeHub) -> TaskHubProcess:
    """A server with an empty database of its own, of each kind in turn; not started yet."""
    if request.param == "sqlite":
        return make_hub()
    postgres: PostgresServer = request.getfixturevalue("postgres")
    return make_hub(environment={"TASKHUB_DATABASE_URL": postgres.create_migrated()})


@pytest.fixture
async def hub(module_hub: TaskHubProcess) -> TaskHubProcess:
    """A running server that the tests of one module share."""
    return module_hub if module_hub.running else await module_hub.start()


@pytest.fixture
async def rest(hub: TaskHubProcess) -> AsyncIterator[Api]:
    """An HTTP client of the shared server."""
    async with api(hub.url) as client:
        yield client


# Pages are tested in one loop: a browser takes seconds to begin, and what it loaded once it need not load again.


@pytest_asyncio.fixture(loop_scope="session", scope="session")
async def chrome() -> AsyncIterator[Browser]:
    """A browser for all tests of a process."""
    async with launched() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def server(module_hub: TaskHubProcess) -> TaskHubProcess:
    """The server whose pages are looked at: one for the tests of a module."""
    return await module_hub.start()


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def module_window(chrome: Browser, server: TaskHubProcess) -> AsyncIterator[Window]:
    async with window(chrome, server.url, permissions=["clipboard-read", "clipboard-write"]) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="session")
async def pages(module_window: Window) -> AsyncIterator[Window]:
    """A window without anything that was kept; what its pages complain about fails the test."""
    yield module_window
    await module_window.tidy()


@pytest.fixture(autouse=True)
def _needed_tools(request: pytest.FixtureRequest) -> None:
    """Skip a test marked `needs("chromium", …)` when a program is missing, saying which."""
    for marker in request.node.iter_markers("needs"):
        for name in marker.args:
            try:
                TOOLS[name]()
            except Missing as missing:
                pytest.skip(f"missing {missing}")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*programs): skipped, with the reason, where a program is missing")
    config.addinivalue_line("markers", "slow: takes many seconds of real time")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the servers printed when a test fails."""
    report = yield
    if report.failed:
        for hub in item.config.stash.get(HUBS, []):
            report.sections.append((f"{hub.name} printed (its end)", hub.log[-6000:]))
    return report
