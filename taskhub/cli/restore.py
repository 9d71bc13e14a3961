"""`taskhub restore`."""

import argparse
import asyncio
import sys

from taskhub import server_file
from taskhub.cli.parser import load_settings
from taskhub.settings import Settings, mask_url


def run(parsed: argparse.Namespace) -> int:
    """Make the database what a backup says; 1 when it is as it was."""
    settings = load_settings(parsed).settings

    from taskhub.storage.backup_file import BadBackup
    from taskhub.storage.migrate import NewerSchema
    from taskhub.storage.occupancy import DatabaseInUse
    from taskhub.storage.restore import NewerTables, NotEmpty, restore
    from taskhub.tickets.errors import StorageBusy

    address = mask_url(settings.database_address)
    try:
        done = asyncio.run(restore(settings.database_address, parsed.file, replace=parsed.replace))
    except DatabaseInUse as error:
        print(f"taskhub: {address}: {error}{_servers(settings)}; stop it first", file=sys.stderr)
        return 1
    except NewerSchema as error:
        newer = f"its schema ({error.revision}) is that of a newer TaskHub: update this one"
        print(f"taskhub: {parsed.file}: {newer}", file=sys.stderr)
        return 1
    except (BadBackup, OSError) as error:
        print(f"taskhub: {error}", file=sys.stderr)
        return 1
    except (NotEmpty, NewerTables, StorageBusy) as error:
        print(f"taskhub: {address}: {error}", file=sys.stderr)
        return 1
    print(f"{done.rows['tickets']} tickets and {done.rows['events']} events of {done.header.created_at} restored")
    return 0


def _servers(settings: Settings) -> str:
    """Those that say in the data directory that they run; the embedded database is theirs."""
    running = server_file.read_all(settings.data_dir) if settings.embedded else []
    return "".join(f", such as the server {server.url} (pid {server.pid})" for server in running[:1])
