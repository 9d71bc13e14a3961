"""A SQLite database that has been migrated, once for all tests of a process: to copy it takes no time."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path

from taskhub.storage.migrate import migrate


@cache
def migrated_file() -> Path:
    """To be copied, never written."""
    directory = Path(tempfile.mkdtemp(prefix="taskhub-migrated-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    migrate(f"sqlite:///{directory / 'taskhub.db'}")
    return directory / "taskhub.db"
