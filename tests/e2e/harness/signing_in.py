"""People at a browser, who sign in."""

from playwright.async_api import BrowserContext

from tests.e2e.harness.process import TaskHubProcess, run_taskhub


async def sign_in_link(hub: TaskHubProcess, name: str = "Olga", role: str = "operator") -> str:
    """A link as whoever runs the server gives it to somebody, who is added with this role if need be."""
    printed = await run_taskhub("users", "sign-in-link", name, "--role", role, environment=hub.environment)
    return printed.strip()


async def sign_in(context: BrowserContext, hub: TaskHubProcess, name: str = "Olga", role: str = "operator") -> None:
    """Give a browser a session without showing it a page."""
    secret = (await sign_in_link(hub, name, role)).partition("#link=")[2]
    answer = await context.request.post(f"{hub.url}/api/v1/session", data={"link": secret}, headers={"Origin": hub.url})
    assert answer.status == 201, await answer.text()
