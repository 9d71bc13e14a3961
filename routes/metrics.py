"""`/metrics`: the process in numbers, for a collector such as Prometheus."""

from typing import Final

from aiohttp import web

from routes import health
from routes.access import METRICS_PATH, caller_with
from routes.api import Route
from routes.errors import Problem
from routes.keys import CALLER, SCRAPE
from taskhub.auth.providers import DEFAULT_WORKSPACE
from taskhub.metrics.families import CONTENT_TYPE


async def metrics(request: web.Request) -> web.Response:
    """GET /metrics. Who came without a credential was let in for its address."""
    if CALLER in request and caller_with(request, "admin").principal.workspace != DEFAULT_WORKSPACE:
        raise Problem("forbidden", "the metrics are of all workspaces, for those who operate the deployment")
    app = request.app

    async def ready() -> bool:
        return health.is_ready(await health.checks(app))

    return web.Response(body=await app[SCRAPE].text(ready), headers={"Content-Type": CONTENT_TYPE})


ROUTES: Final = (
    Route(
        "GET", METRICS_PATH, metrics, "get_metrics", "Tell how the server does in numbers, for Prometheus",
        detail="From an address of `METRICS` without a credential. With several workers, those of all of them, told "
        "apart by the label `worker`.",
        scope="admin", media=("text/plain",),
    ),
)  # fmt: skip
