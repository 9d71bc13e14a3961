"""`taskhub migrate`."""

import argparse
import sys

from taskhub.cli.parser import load_settings
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
        print(f"taskhub: {mask_url(settings.database_address)}: {error}", file=sys.stderr)
        return 1
    print(f"{mask_url(settings.database_address)} has the newest schema")
    return 0
