"""`/`, and what else people look at: pages that use the same API as everybody."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Final

from aiohttp import hdrs, web

from routes.access import wants_page
from routes.api import PAGE, Route
from routes.assets import ASSETS, Assets
from routes.keys import AUTH, SETTINGS
from routes.pages import overview
from taskhub import __version__
from taskhub.settings.model import Settings


@dataclass(frozen=True, slots=True)
class View:
    """A page. Its script and its style have its name."""

    path: str
    name: str
    title: str


BOARD: Final = View("/", "board", "Board")
FEED: Final = View("/feed", "feed", "Feed")
OPERATOR: Final = View("/events/debug", "operator", "Operator")
LOGIN: Final = View("/login", "login", "Sign in")
NAVIGATION: Final = (
    *((view.path, view.name, view.title) for view in (BOARD, FEED, OPERATOR)),
    ("/docs", "docs", "API"),
)
"""Where each page leads: address, name (the languages' files have its words as `nav.NAME`), and English words."""

LANGUAGES: Final = ("en", "ja")
EARLY: Final = "early.js"
"""Asks for what a page shows first while its other modules are still on their way: it comes before them, and runs when
it is there (which `async` would put off until something is painted)."""


async def board(request: web.Request) -> web.Response:
    """GET /: the board for browsers; for programs, the endpoints by name."""
    response = await page(request, BOARD) if wants_page(request) else overview(request)
    response.headers.add(hdrs.VARY, hdrs.ACCEPT)
    return response


async def feed(request: web.Request) -> web.Response:
    """GET /feed: events as they come."""
    return await page(request, FEED)


async def login(request: web.Request) -> web.Response:
    """GET /login: where people sign in, and nowhere to go to where nobody has to."""
    if request.app[AUTH].name == "none":
        return web.Response(status=303, content_type=PAGE[0], headers={hdrs.LOCATION: "/"})
    return await page(request, LOGIN)


async def page(request: web.Request, view: View) -> web.Response:
    """A page's frame, which the page's script fills."""
    assets = request.app[ASSETS]
    await asyncio.to_thread(lambda: assets.digest)
    text = _html(
        view,
        assets,
        _language(request),
        with_key=request.app[AUTH].name != "none",
        openid=_openid(request.app[SETTINGS]),
    )
    varied = f"{hdrs.ACCEPT_ENCODING}, {hdrs.ACCEPT_LANGUAGE}"
    # It names the version of what it loads.
    headers = {hdrs.CACHE_CONTROL: "no-cache", hdrs.VARY: varied}
    response = web.Response(text=text, content_type=PAGE[0], headers=headers)
    response.enable_compression()
    return response


def _language(request: web.Request) -> str:
    """The language whose words the page's script will most likely ask for: the reader's own choice it alone knows."""
    asked = request.headers.get(hdrs.ACCEPT_LANGUAGE, "").lower().split(",")
    return next((language for tag in asked if (language := tag.strip()[:2]) in LANGUAGES), LANGUAGES[0])


def _openid(settings: Settings) -> str:
    """Attributes: what people call the OpenID provider, and where signing in through it begins."""
    if settings.openid_label is None:
        return ""
    return f' data-openid="{escape(settings.openid_label)}" data-openid-at="{escape(settings.openid_address)}"'


def _html(view: View, assets: Assets, language: str, *, with_key: bool, openid: str) -> str:
    script = f"{view.name}.js"
    modules = [EARLY, *assets.modules(EARLY), script, *assets.modules(script), f"words-{language}.js"]
    preloads = "".join(f'<link rel="modulepreload" href="{assets.address(name)}">' for name in dict.fromkeys(modules))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{escape(view.title)} · TaskHub</title>"
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
        f'<link rel="icon" type="image/svg+xml" href="{assets.address("icon.svg")}">'
        f'<link rel="stylesheet" href="{assets.address("base.css")}">'
        f'<link rel="stylesheet" href="{assets.address(f"{view.name}.css")}">'
        f'{preloads}<script type="module" src="{assets.address(EARLY)}"></script>'
        f'<script type="module" src="{assets.address(script)}"></script></head>'
        f'<body data-page="{view.name}" data-auth="{"api_key" if with_key else "none"}" '
        f'data-version="{__version__}"{openid}>'
        f"{top_bar(view.path, assets.address)}"
        '<main id="main" tabindex="-1"><noscript><p class="notice">This page needs JavaScript. Without it, '
        'everything can be done through <a href="/docs">the API</a>.</p></noscript></main>'
        # For scripts, which copy from it.
        f'<template id="icons">{assets.files["icons.svg"].body.decode()}</template></body></html>'
    )


def top_bar(path: str, address: Callable[[str], str]) -> str:
    """What every page begins with. `path`: of the page; `address`: where a file of it is."""
    # Who is not signed in yet has nowhere else to go.
    links = (
        ""
        if path == LOGIN.path
        else "".join(
            f'<a href="{other}"{" aria-current=page" if other == path else ""} data-t="nav.{name}">{words}</a>'
            for other, name, words in NAVIGATION
        )
    )
    return (
        '<a class="skip" href="#main" data-t="nav.skip">Skip to the content</a>'
        '<header class="shell"><a class="brand" href="/">'
        f'<img src="{address("icon.svg")}" alt="" width="20" height="20">TaskHub</a>'
        f'<nav data-t-label="nav.pages" aria-label="Pages">{links}</nav><div class="shell-tools"></div></header>'
    )


ROUTES: Final = (
    Route(
        "GET", "/", board, "get_board_page", "Show the board to people, and the endpoints to programs",
        media=(*PAGE, "text/plain"),
    ),
    Route("GET", "/feed", feed, "get_feed_page", "Show events as they come", media=PAGE),
    Route(
        "GET", "/login", login, "get_login_page", "Show people where to sign in", media=PAGE, also=(303,),
    ),
)  # fmt: skip
