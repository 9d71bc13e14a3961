"""`taskhub workspaces create`, `list` and `rename`."""

import argparse
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

import orjson

from taskhub.cli.parser import load_settings
from taskhub.cli.services import CannotRun, caller_in, local_caller, run_with_services

if TYPE_CHECKING:
    from taskhub.opening import Services


def run(parsed: argparse.Namespace) -> int:
    """Manage the workspaces of the deployment, beside running servers."""
    return run_with_services(load_settings(parsed).settings, partial(_ACTIONS[parsed.action], parsed))


async def _create(parsed: argparse.Namespace, services: "Services") -> int:
    from taskhub.workspaces import BadWorkspace

    try:
        made = await services.workspaces.create(
            local_caller(parsed.id), parsed.id, parsed.key_prefix, parsed.id if parsed.name is None else parsed.name
        )
    except BadWorkspace as error:
        raise CannotRun(str(error)) from None
    print(
        f"{made.id} is there; `taskhub keys create --workspace {made.id} --user NAME --role operator` lets somebody in"
    )
    return 0


async def _list(parsed: argparse.Namespace, services: "Services") -> int:
    for each in await services.workspaces.list():
        print(orjson.dumps(each).decode() if parsed.json else f"{each.id}  {each.key_prefix}  {each.name}")
    return 0


async def _rename(parsed: argparse.Namespace, services: "Services") -> int:
    from taskhub.workspaces import BadWorkspace

    caller = await caller_in(services, parsed.id)
    try:
        renamed = await services.workspaces.rename(caller, parsed.id, parsed.name)
    except BadWorkspace as error:
        raise CannotRun(str(error)) from None
    print(f"{renamed.id} is called {renamed.name}")
    return 0


_ACTIONS: Final[Mapping[str, "Callable[[argparse.Namespace, Services], Awaitable[int]]"]] = {
    "create": _create,
    "list": _list,
    "rename": _rename,
}
