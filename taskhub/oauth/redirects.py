"""Where clients may have people sent back to, with what they asked for: the rules for redirect URIs.

An address is compared as it was written, character by character (RFC 9700, 2.1): whatever is done to understand it
first, a browser may do otherwise. Only the port of a loopback address is the client's choice at each start (RFC 8252,
7.3).
"""

import re
from typing import Final
from urllib.parse import unquote, urlencode

MAX_CHARACTERS: Final = 1000
APP_SCHEMES: Final = frozenset({"cursor", "vscode", "vscode-insiders", "windsurf"})
"""Of applications in wide use, whose schemes are not named after a domain as RFC 8252, 7.1 wants it."""

_CHARACTERS: Final = re.compile(r"(?:[A-Za-z0-9\-._~:/?\[\]@!$&'()*+,;=]|%[0-9A-Fa-f]{2})+", re.ASCII)
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.ASCII)
_AUTHORITY: Final = re.compile(
    r"//(?P<host>[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<rest>(?:[/?].*)?)",
    re.ASCII,
)
_LOOPBACK: Final = re.compile(
    r"http://(?P<host>127\.0\.0\.1|\[::1\]|localhost)(?::(?P<port>[0-9]{1,5}))?(?P<rest>(?:[/?].*)?)", re.ASCII
)
_DOMAIN_SCHEME: Final = re.compile(r"[a-z][a-z0-9-]*(?:\.[a-z0-9-]+)+", re.ASCII)
# They decode to what separates steps of a path, or to what no address has.
_HIDDEN: Final = re.compile(r"%(?:2f|5c|7f|[01][0-9a-f])", re.IGNORECASE)


def unusable(uri: str) -> str | None:
    """Why a client cannot have this address, in words; None when it can."""
    if "#" in uri:
        return "has a fragment"
    if len(uri) > MAX_CHARACTERS:
        return f"has more than {MAX_CHARACTERS} characters"
    if not _CHARACTERS.fullmatch(uri) or (found := _SCHEME.fullmatch(uri)) is None:
        return "is not an absolute URI"
    scheme, rest = found[1], found[2]
    if scheme in ("https", "http"):
        return _unusable_web_address(scheme, uri, rest)
    if scheme in APP_SCHEMES or _DOMAIN_SCHEME.fullmatch(scheme):
        return _unusable_path(rest.partition("?")[0])
    return "must be https, http to a loopback address, or an own scheme such as com.example.app"


def matches(registered: str, given: str) -> bool:
    """Whether an address is one that the client has."""
    if registered == given:
        return True
    own, asked = _LOOPBACK.fullmatch(registered), _LOOPBACK.fullmatch(given)
    if own is None or asked is None or not _port_exists(asked["port"]):
        return False
    return own["host"] == asked["host"] and own["rest"] == asked["rest"]


def is_loopback(uri: str) -> bool:
    """Whether it leads to the person's own machine."""
    return _LOOPBACK.fullmatch(uri) is not None


def shown(uri: str) -> str:
    """Where a usable address leads, for people: the host and the port; of an application's own scheme, the scheme."""
    scheme, _, rest = uri.partition(":")
    found = _AUTHORITY.fullmatch(rest) if scheme in ("https", "http") else None
    if found is None:
        return f"{scheme}:"
    return found["host"].lower() + (f":{found['port']}" if found["port"] else "")


def form_targets(uri: str) -> str:
    """What a form that is answered with a redirect there may lead to, for `form-action` of a content security policy.

    Browsers ask it of each further redirect as well, and applications send people on from where they come back to.
    """
    if is_loopback(uri):
        # There is no way to write [::1] in a policy.
        return "http: https:" if uri.startswith("http://[") else "http://127.0.0.1:* http://localhost:* https:"
    scheme = uri.partition(":")[0]
    return "https:" if scheme == "https" else f"{scheme}: https:"


def with_answer(uri: str, answer: dict[str, str]) -> str:
    """The address with an answer in its query."""
    return f"{uri}{'&' if '?' in uri else '?'}{urlencode(answer)}"


def _unusable_web_address(scheme: str, uri: str, rest: str) -> str | None:
    if "@" in rest.removeprefix("//").partition("/")[0].partition("?")[0]:
        return "has a user name"
    found = _AUTHORITY.fullmatch(rest)
    if found is None or not _port_exists(found["port"]):
        return "is not an absolute URI"
    if scheme == "http" and not is_loopback(uri):
        return "must be https, for http is only for 127.0.0.1, [::1] and localhost"
    return _unusable_path(found["rest"].partition("?")[0])


def _unusable_path(path: str) -> str | None:
    if _HIDDEN.search(path) or any(unquote(step) in (".", "..") for step in path.split("/")):
        return "has steps in its path that lead elsewhere"
    return None


def _port_exists(port: str | None) -> bool:
    return port is None or 0 < int(port) <= 65_535
