"""The tools as the repository keeps them, so that a change of what models are told is seen as what it is.

    .venv/bin/python -m tests.taskhub.mcp.tools_snapshot

writes it again.
"""

import json
from pathlib import Path
from typing import Final

from taskhub.auth.principal import ALL_SCOPES
from taskhub.mcp.tools import tool_registry
from taskhub.remote import RemoteTickets

KEPT: Final = Path(__file__).with_name("tools.json")


def described() -> str:
    """`tools/list` of a caller who may do everything, to be read and compared by people."""
    tickets = RemoteTickets("http://127.0.0.1:9", None)  # nobody calls them
    listed = tool_registry(tickets).list(ALL_SCOPES, read_only=False, toolsets=None)
    tools = listed.model_dump(by_alias=True, mode="json", exclude_none=True)["tools"]
    return json.dumps(tools, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    KEPT.write_text(described())
