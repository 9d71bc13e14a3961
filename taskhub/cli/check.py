"""`taskhub check`."""

import argparse

from taskhub.cli.parser import look_at_settings
from taskhub.settings.loading import SettingsError
from taskhub.settings.model import Settings, shown
from taskhub.settings.server import PREFIX


def run(parsed: argparse.Namespace) -> int:
    """Print every setting with its value (secrets masked) and source. Raises SettingsError with all that is wrong."""
    loaded = look_at_settings(parsed)
    rows = [
        (
            f"{PREFIX}{name.upper()}",
            "(wrong)" if name in loaded.wrong else shown(name, loaded.settings),
            loaded.sources[name],
        )
        for name in Settings.model_fields
    ]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for name, value, source in rows:
        print(f"{name:<{widths[0]}}  {value:<{widths[1]}}  {source}")
    print(f"settings file: {loaded.config_file or 'none'}")
    problems = [*loaded.unknown, *loaded.problems()]
    if problems:
        raise SettingsError(problems)
    return 0
