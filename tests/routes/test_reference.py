"""Changing reference data over HTTP."""

import pytest

from tests.routes.conftest import Hub

PATHS = (
    "users", "accounts", "categories", "category-details", "statuses", "request-channels", "response-categories",
)  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
async def test_every_kind_is_added_changed_and_removed_at_its_address(hub: Hub, path: str) -> None:
    more = {"category-details": {"category": "incident"}, "statuses": {"phase": "review"}}.get(path, {})
    added = await hub.post(f"/api/v1/{path}", {"name": "New One", **more}, headers={"Idempotency-Key": "k"})
    again = await hub.post(f"/api/v1/{path}", {"name": "New One", **more}, headers={"Idempotency-Key": "k"})
    changed = await hub.request("PATCH", added.headers["Location"], json={"name": "Other"})
    listed = await hub.get(f"/api/v1/{path}")

    assert (added.status, added.headers["Location"], added.json["id"]) == (201, f"/api/v1/{path}/new_one", "new_one")
    assert (again.json["id"], again.json["replayed"]) == ("new_one", True)
    assert (changed.status, changed.json["name"]) == (200, "Other")
    assert [item["name"] for item in listed.json["items"] if item["id"] == "new_one"] == ["Other"]
    removed = await hub.request("DELETE", added.headers["Location"])
    gone = await hub.request("DELETE", added.headers["Location"])
    assert (removed.status, removed.body) == (204, b"")
    assert (gone.status, gone.code, gone.json["id"]) == (404, "not_found", "new_one")


async def test_what_is_in_use_says_by_how_many(hub: Hub) -> None:
    await hub.post("/api/v1/accounts", {"name": "Acme"})
    for number in range(2):
        await hub.create(f"{number}", account="Acme")
    refused = await hub.request("DELETE", "/api/v1/accounts/acme")
    needed = await hub.request("PATCH", "/api/v1/statuses/completed", json={"active": False})

    assert (refused.status, refused.code, refused.json["count"]) == (409, "in_use", 2)
    assert "active" in refused.json["hint"]
    assert (needed.status, needed.code) == (409, "status_needed")


async def test_fields_of_another_kind_and_wrong_values_are_named(hub: Hub) -> None:
    unknown = await hub.post("/api/v1/accounts", {"name": "x", "phase": "todo"})
    wrong = await hub.post("/api/v1/users", {"name": "x", "email": "no address", "role": "boss"})
    taken = await hub.request("PATCH", "/api/v1/statuses/completed", json={"name": "WAITING"})

    assert set(unknown.named) == {"/phase"}
    assert set(wrong.named) == {"/email", "/role"}
    assert (taken.status, set(taken.named)) == (422, {"/name"})
