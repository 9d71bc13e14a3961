"""Headers of the Model Context Protocol over HTTP, and what a page of another origin may do with them."""

from typing import Final

from multidict import istr

from taskhub.auth.providers import ACTOR_HEADER

# A header is looked up under an `istr` without being folded to one case for each request.
SESSION_HEADER: Final = istr("Mcp-Session-Id")
VERSION_HEADER: Final = istr("MCP-Protocol-Version")
METHOD_HEADER: Final = istr("Mcp-Method")
READ_ONLY_HEADER: Final = istr("X-MCP-Readonly")
TOOLSETS_HEADER: Final = istr("X-MCP-Toolsets")
# What a page of another origin may send and read. `Mcp-Param-*` is one header for each marked argument.
CORS_ALLOW_HEADERS: Final = (
    "Content-Type", "Accept", "Authorization", "X-API-Key", SESSION_HEADER, VERSION_HEADER, METHOD_HEADER, "Mcp-Name",
    "Last-Event-ID", ACTOR_HEADER, READ_ONLY_HEADER, TOOLSETS_HEADER,
)  # fmt: skip
CORS_ALLOW_HEADER_PREFIX: Final = "Mcp-Param-"
CORS_EXPOSE_HEADERS: Final = (SESSION_HEADER, "WWW-Authenticate")
