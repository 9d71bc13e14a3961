"""Relations, attachments, deleting and restoring over HTTP."""

from typing import Any

import pytest

from tests.routes.conftest import Answer, Hub

URL = "/api/v1/tickets/TH-1"
FILE = {"file_name": "a.txt", "url": "https://example.org/a.txt"}
WHOLE = {"Prefer": "return=representation"}


@pytest.fixture
async def hub(hub: Hub) -> Hub:
    """With two tickets."""
    await hub.create("one")
    await hub.create("two")
    return hub


async def items(hub: Hub, what: str) -> list[dict[str, Any]]:
    answer = await hub.get(f"{URL}/{what}")
    assert answer.status == 200
    found: list[dict[str, Any]] = answer.json["items"]
    return found


async def delete(hub: Hub, path: str, **headers: str) -> Answer:
    return await hub.request("DELETE", path, headers={name.replace("_", "-"): text for name, text in headers.items()})


async def test_a_relation_is_made_listed_and_ended(hub: Hub) -> None:
    made = await hub.post(f"{URL}/relations", {"relation": "blocks", "other": "th-2"})
    again = await hub.post(f"{URL}/relations", {"relation": "blocks", "other": "TH-2"})

    assert (made.status, made.headers["ETag"], made.json["version"]) == (201, '"2"', 2)
    assert (again.status, again.json["noop"]) == (200, True)
    assert await items(hub, "relations") == [
        {"relation": "blocks", "ticket": "TH-2", "summary": "two", "phase": "todo"}
    ]

    ended = await delete(hub, f"{URL}/relations/blocks/TH-2")

    assert (ended.status, ended.body, ended.headers["ETag"]) == (204, b"", '"3"')
    assert ended.headers["TaskHub-Position"]
    assert await items(hub, "relations") == []


async def test_a_circle_is_refused_with_its_path(hub: Hub) -> None:
    await hub.post(f"{URL}/relations", {"relation": "blocks", "other": "TH-2"})

    refused = await hub.post(f"{URL}/relations", {"relation": "blocked_by", "other": "TH-2"})

    assert (refused.status, refused.code) == (409, "cycle")
    assert refused.json["path"] == ["TH-2", "TH-1", "TH-2"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"relation": "block", "other": "TH-2"}, "/relation"),
        ({"relation": "blocks"}, "/other"),
        ({"relation": "blocks", "other": "TH-1"}, "/other"),
    ],
)
async def test_what_is_wrong_with_a_relation_is_named(hub: Hub, body: Any, pointer: str) -> None:
    refused = await hub.post(f"{URL}/relations", body)

    assert (refused.status, refused.code, list(refused.named)) == (422, "invalid_input", [pointer])


@pytest.mark.parametrize(
    ("path", "parameter"),
    [("relations/block/TH-2", "relation"), ("attachments/x", "no"), ("attachments/0", "no")],
)
async def test_a_wrong_part_of_an_address_is_named(hub: Hub, path: str, parameter: str) -> None:
    refused = await delete(hub, f"{URL}/{path}")

    assert (refused.status, refused.code, list(refused.named)) == (400, "bad_parameter", [parameter])


async def test_an_attachment_is_made_listed_and_removed(hub: Hub) -> None:
    made = await hub.post(f"{URL}/attachments", FILE)

    assert (made.status, made.headers["ETag"]) == (201, '"2"')
    [found] = await items(hub, "attachments")
    assert {**found, "created_at": ""} == {"id": "1", **FILE, "created_at": ""}

    assert (await delete(hub, f"{URL}/attachments/1")).status == 204
    assert await items(hub, "attachments") == []


async def test_only_links_to_the_web_are_attached(hub: Hub) -> None:
    refused = await hub.post(f"{URL}/attachments", {"file_name": "x", "url": "javascript:alert(1)"})

    assert (refused.status, list(refused.named)) == (422, ["/url"])


async def test_a_ticket_is_deleted_and_restored(hub: Hub) -> None:
    stale = await delete(hub, URL, If_Match='"7"')
    gone = await delete(hub, URL, If_Match='"1"')

    assert (stale.status, stale.code) == (412, "version_conflict")
    assert (gone.status, gone.body, gone.headers["ETag"]) == (204, b"", '"2"')
    for answer in (await hub.get(URL), await delete(hub, URL)):
        assert (answer.status, answer.code, answer.json["key"], answer.json["summary"]) == (
            410,
            "deleted",
            "TH-1",
            "one",
        )

    late = await hub.post(f"{URL}/restore", headers={"If-Match": '"1"'})
    assert (late.status, late.code, late.json["current"]) == (412, "version_conflict", 2)
    restored = await hub.post(f"{URL}/restore", headers={"If-Match": gone.headers["ETag"]})

    assert (restored.status, restored.json["version"], restored.headers["ETag"]) == (200, 3, '"3"')
    assert (await hub.get(URL)).status == 200
    assert (await hub.post(f"{URL}/restore")).json["noop"] is True


async def test_who_prefers_it_is_told_what_was_removed(hub: Hub) -> None:
    answer = await hub.request("DELETE", URL, headers={"Prefer": "wait=5, return=representation"})

    assert (answer.status, answer.headers["Preference-Applied"]) == (200, "return=representation")
    assert (answer.json["key"], answer.json["version"]) == ("TH-1", 2)


@pytest.mark.parametrize(
    ("method", "path", "body", "noop"),
    [
        ("POST", "/relations", {"relation": "related", "other": "TH-2"}, False),
        ("DELETE", "/relations/related/TH-2", None, True),
        ("POST", "/attachments", FILE, False),
        ("DELETE", "/attachments/1", None, True),
        ("DELETE", "", None, False),
        ("POST", "/restore", None, True),
    ],
)
async def test_a_repeat_under_one_key_has_one_effect(hub: Hub, method: str, path: str, body: Any, noop: bool) -> None:
    headers = {"Idempotency-Key": "k", **WHOLE}
    first = await hub.request(method, URL + path, json=body, headers=headers)
    second = await hub.request(method, URL + path, json=body, headers=headers)

    assert (first.json["replayed"], first.json["noop"]) == (False, noop)
    assert second.json == {**first.json, "replayed": True}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/relations", {"relation": "related", "other": "TH-2"}),
        ("DELETE", "/relations/related/TH-2", None),
        ("POST", "/attachments", FILE),
        ("DELETE", "/attachments/1", None),
        ("DELETE", "", None),
    ],
)
async def test_a_lease_token_that_counts_no_more_is_refused(hub: Hub, method: str, path: str, body: Any) -> None:
    lost = await hub.request(method, URL + path, json=body, headers={"TaskHub-Lease-Token": "7"})
    wrong = await hub.request(method, URL + path, json=body, headers={"TaskHub-Lease-Token": "x"})

    assert (lost.status, lost.code) == (409, "lease_lost")
    assert (wrong.status, wrong.code) == (400, "bad_header")
    assert (await hub.get(URL)).headers["ETag"] == '"1"'


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/relations"), ("DELETE", "/relations/related/TH-2"), ("POST", "/attachments"), ("DELETE", ""),
        ("DELETE", "/attachments/1"), ("POST", "/restore"), ("GET", "/relations"), ("GET", "/attachments"),
    ],
)  # fmt: skip
async def test_an_unknown_parameter_is_an_error(hub: Hub, method: str, path: str) -> None:
    answer = await hub.request(method, f"{URL}{path}?x=1", json=None if method == "GET" else {})

    assert (answer.status, answer.code) == (400, "bad_parameter")


async def test_a_ticket_has_no_relation_to_itself_to_end(hub: Hub) -> None:
    answer = await delete(hub, f"{URL}/relations/related/TH-1")

    assert (answer.status, answer.code) == (400, "bad_parameter")
    assert "no relation to itself" in answer.named["other"]["reason"]
