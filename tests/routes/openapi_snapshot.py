"""The description of the API as the repository keeps it, so that a change of it is seen as what it is.

    .venv/bin/python -m tests.routes.openapi_snapshot

writes it again.
"""

import json
from pathlib import Path
from typing import Final

from aiohttp import web

from routes.api import ROUTES
from routes.keys import SETTINGS
from routes.openapi import describe
from routes.setup import add_routes
from taskhub import __version__
from taskhub.settings.model import Settings

KEPT: Final = Path(__file__).with_name("openapi.json")


def application() -> web.Application:
    """All routes, without the services behind them."""
    app = web.Application()
    app[SETTINGS] = Settings()
    add_routes(app)
    return app


def described() -> str:
    """The document of all routes, to be read and compared by people."""
    document = describe(application()[ROUTES], __version__)
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    KEPT.write_text(described())
