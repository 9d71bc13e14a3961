"""The pages of the authorization endpoint: the question to a person, and what is wrong with a request.

Both work without the script, which only puts them into the reader's language.
"""

from html import escape
from typing import Final

from routes.assets import Assets
from taskhub.auth.principal import Principal
from taskhub.oauth.errors import Reason
from taskhub.oauth.redirects import is_loopback, shown
from taskhub.oauth.server import Asked

_SCOPES: Final = {
    "tickets:read": "read tickets",
    "tickets:write": "create, change and delete tickets",
    "reference:write": "change users, categories, statuses and the like",
    "events:read": "follow what happens",
    "events:publish": "publish events",
    "admin": "operate TaskHub: API keys, settings, everything",
}
_REASONS: Final[dict[str, str]] = {
    "client_id": "The address that brought you here does not say which application asks.",
    "redirect_uri": "The address to go back to is not one of the application's. Somebody may want to mislead you.",
    "unknown_client": "TaskHub does not know this application, or does not know it any more.",
    "document": "What the application says about itself could not be read or used.",
    "expired": "The question is too old. Start again from the application.",
    "not_yours": "The question was put to another session. Start again from the application.",
    "not_a_user": "You are signed in as somebody who is no user of this TaskHub, and so can let nothing in.",
    "refused": "The application has asked for something that it cannot be given.",
}


def question(asked: Asked, user: Principal, sealed: str, assets: Assets) -> str:
    """Whether this user lets the application in."""
    client = asked.client
    if client.host is not None:
        vouches = '<span class="quiet" data-t="consent.document">vouches for it</span>'
        known = f"<code>{escape(client.host)}</code> {vouches}"
    else:
        words = {"operator": "an operator made it known", "registered": "by nobody: it registered itself"}[client.kind]
        known = f'<span data-t="consent.{client.kind}">{words}</span>'
    loopback = is_loopback(asked.redirect_uri)
    local = ' <span class="quiet" data-t="consent.loopback">a program on this computer</span>' if loopback else ""
    scopes = "".join(
        f'<li><label><input type="checkbox" name="scope" value="{scope}" checked>'
        f'<span data-t="consent.scope.{scope}">{_SCOPES[scope]}</span></label></li>'
        for scope in asked.scopes
    )
    warning = (
        ("consent.warning_loopback", "Allow this only if you have just started it yourself, on this computer.")
        if loopback
        else ("consent.warning", "Allow this only if you trust where you go back to, and came here from there.")
    )
    body = (
        '<h1 data-t="consent.title">Let an application in?</h1>'
        f'<p class="asks"><strong>{escape(client.name)}</strong> '
        '<span data-t="consent.asks">wants to use TaskHub in your name.</span></p>'
        '<dl><dt data-t="consent.known">Vouched for</dt>'
        f"<dd>{known}</dd>"
        '<dt data-t="consent.back">You go back to</dt>'
        f"<dd><code>{escape(shown(asked.redirect_uri))}</code>{local}</dd>"
        f'<dt data-t="consent.you">You are</dt><dd>{escape(user.user_id)}</dd></dl>'
        '<form method="post" action="/oauth/authorize">'
        f'<fieldset><legend data-t="consent.may">It may</legend><ul>{scopes}</ul></fieldset>'
        f'<p class="notice warning"><span data-t="{warning[0]}">{warning[1]}</span></p>'
        f'<input type="hidden" name="request" value="{escape(sealed)}">'
        '<div class="row"><button class="button main" name="answer" value="allow" data-t="consent.allow">Allow</button>'
        '<button class="button" name="answer" value="deny" data-t="consent.deny">Deny</button></div></form>'
    )
    return _page("Let an application in?", body, assets)


def refusal(reason: Reason | str, detail: str, assets: Assets, onward: tuple[str, str] | None = None) -> str:
    """What is wrong. `onward` is an address to go to all the same, and what to call it."""
    link = ""
    if onward is not None:
        link = (
            f'<p><a class="button" href="{escape(onward[0])}" rel="noreferrer">'
            f'<span data-t="consent.onward">Go back to</span> {escape(onward[1])}</a></p>'
        )
    body = (
        '<h1 data-t="consent.wrong">This does not work</h1>'
        f'<p class="notice error"><span data-t="consent.reason.{reason}">{_REASONS[reason]}</span></p>'
        f'<p class="quiet small">{escape(detail)}</p>{link}'
        '<p><a href="/" data-t="consent.home">To TaskHub</a></p>'
    )
    return _page("This does not work", body, assets)


def _page(title: str, body: str, assets: Assets) -> str:
    scripts = "".join(
        f'<link rel="modulepreload" href="{assets.address(name)}">'
        for name in ["consent.js", *assets.modules("consent.js")]
    )
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)} · TaskHub</title>'
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
        f'<link rel="icon" type="image/svg+xml" href="{assets.address("icon.svg")}">'
        f'<link rel="stylesheet" href="{assets.address("base.css")}">'
        f'<link rel="stylesheet" href="{assets.address("consent.css")}">'
        f'{scripts}<script type="module" src="{assets.address("consent.js")}"></script></head>'
        '<body data-page="consent">'
        '<header class="shell"><span class="brand">'
        f'<img src="{assets.address("icon.svg")}" alt="" width="20" height="20">TaskHub</span></header>'
        f'<main id="main" class="consent" tabindex="-1">{body}</main></body></html>'
    )
