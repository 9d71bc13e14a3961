"""`taskhub migrate`."""

import argparse

from taskhub.cli.parser import load_settings
from taskhub.cli.services import CannotRun
from taskhub.failpoints import Failpoints
from taskhub.settings.addresses import mask_url


def run(parsed: argparse.Namespace) -> int:
    """Bring the database to the newest schema; a new one gets its default workspace."""
    settings = load_settings(parsed).settings

    from taskhub.storage.migrate import NewerSchema, migrate
    from taskhub.tickets.errors import StorageBusy

    try:
        migrate(settings.database_address, Failpoints.parse(settings.failpoints))
    except (NewerSchema, StorageBusy) as error:
        raise CannotRun.on(settings, error) from None
    print(f"{mask_url(settings.database_address)} has the newest schema")
    return 0
