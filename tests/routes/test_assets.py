"""What pages are made of."""

import gzip
import re

import pytest

from routes.assets import DIRECTORY, TYPES, Assets
from tests.routes.conftest import Hub, Start

FILES = sorted(path.name for path in DIRECTORY.iterdir())


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_served_and_every_import_leads_to_one(name: str) -> None:
    assets = Assets()

    assert name in assets.files
    if name.endswith(".js"):
        assert set(assets.modules(name)) <= set(assets.files)
        later = re.findall(r'\bimport\("\./([\w.-]+)"\)', (DIRECTORY / name).read_text())
        assert {found for found in later if not found.startswith("words-")} <= set(assets.files)


async def test_a_file_comes_packed_to_who_can_unpack_it(hub: Hub) -> None:
    plain = await hub.get("/static/stream.js", headers={"Accept-Encoding": "identity"})
    packed = await hub.get("/static/stream.js", headers={"Accept-Encoding": "gzip"}, auto_decompress=False)

    assert plain.body == (DIRECTORY / "stream.js").read_bytes()
    assert plain.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.body) == plain.body
    assert plain.headers["Vary"].startswith("Accept-Encoding")


async def test_a_file_by_its_plain_name_is_asked_for_again_and_one_of_a_version_is_kept(hub: Hub) -> None:
    digest = Assets().digest
    named = await hub.get("/static/base.css")
    versioned = await hub.get(f"/static/{digest}/base.css")
    outdated = await hub.get("/static/0123456789ab/base.css")

    assert named.headers["Cache-Control"] == "no-cache"
    assert "immutable" in versioned.headers["Cache-Control"]
    assert outdated.headers["Cache-Control"] == "no-cache"
    assert named.body == versioned.body == outdated.body
    again = await hub.get("/static/base.css", headers={"If-None-Match": named.headers["ETag"]})
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize("path", ["/static/board.html", "/static/x/setup.py", "/static/1/2/3"])
async def test_nothing_but_these_files_is_served(hub: Hub, path: str) -> None:
    assert (await hub.get(path)).status == 404


async def test_pages_and_their_files_are_open_where_a_key_is_needed(start: Start) -> None:
    hub = await start(api_key="k-secret")

    assert (await hub.get("/static/base.css")).status == 200
    assert (await hub.get("/", headers={"Accept": "text/html"})).status == 200
    assert (await hub.get("/api/v1/me")).status == 401


async def test_pages_of_allowed_origins_may_use_the_module_of_the_stream(hub: Hub) -> None:
    for name in ("stream.js", *Assets().modules("stream.js")):
        answer = await hub.get(f"/static/{name}", headers={"Origin": "http://localhost:1"})

        assert answer.headers["Access-Control-Allow-Origin"] == "http://localhost:1"


async def test_the_icon_that_browsers_ask_for_is_no_error(hub: Hub) -> None:
    answer = await hub.get("/favicon.ico")

    assert (answer.status, answer.body) == (204, b"")
    assert "max-age" in answer.headers["Cache-Control"]


def test_a_file_of_another_kind_is_not_served() -> None:
    assert {path.suffix for path in DIRECTORY.iterdir()} == set(TYPES)
