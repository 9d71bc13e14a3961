"""/api/v1/export and /api/v1/import."""

from collections.abc import AsyncIterator

import orjson

from tests.routes.conftest import Hub


async def test_what_was_exported_can_be_imported_again(hub: Hub) -> None:
    await hub.create("検索", labels=["ux"])
    await hub.create("done", status="completed")
    for form, media in (("csv", "text/csv"), ("jsonl", "application/x-ndjson")):
        file = await hub.get(f"/api/v1/export?format={form}")
        assert file.headers["Content-Type"] == f"{media}; charset=utf-8"
        assert file.headers["Content-Disposition"] == f'attachment; filename="tickets.{form}"'
        done = await hub.request("POST", "/api/v1/import", data=file.body, headers={"Content-Type": media})
        assert (done.status, done.json) == (
            200, {"created": 0, "updated": 0, "unchanged": 2, "failed": 0, "errors": []},
        )  # fmt: skip
    narrowed = await hub.get("/api/v1/export?format=jsonl&label=ux")
    assert [orjson.loads(text)["key"] for text in narrowed.body.splitlines()] == ["TH-1"]


async def test_a_large_file_comes_as_it_is_sent(hub: Hub) -> None:
    lines = b"".join(
        orjson.dumps({"external_ticket_id": f"E-{n}", "summary": "x" * 150}, option=orjson.OPT_APPEND_NEWLINE)
        for n in range(300)
    )

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(lines), 7001):
            yield lines[start : start + 7001]

    done = await hub.request("POST", "/api/v1/import", data=chunks(), headers={"Content-Type": "application/x-ndjson"})
    assert done.json["created"] == 300


async def test_what_cannot_be_taken_is_named(hub: Hub) -> None:
    text = "external_ticket_id,summary,status\nA,a,\nB,b,nowhere\n"
    headers = {"Content-Type": "text/csv; charset=utf-8"}
    strict = await hub.request("POST", "/api/v1/import?strict=1", data=text, headers=headers)
    loose = await hub.request("POST", "/api/v1/import", data=text, headers=headers)
    other = await hub.request("POST", "/api/v1/import", data=text, headers={"Content-Type": "text/plain"})
    column = await hub.request("POST", "/api/v1/import", data="key,titel\n", headers=headers)
    wrong = await hub.get("/api/v1/export?format=xls&acount=x")
    unknown = await hub.get("/api/v1/export?account=nobody")

    assert (strict.status, strict.code, strict.json["lines"][0]["line"]) == (422, "import_refused", 3)
    assert (loose.json["created"], loose.json["errors"][0]["line"]) == (1, 3)
    assert other.code == "unsupported_media_type"
    assert (column.status, set(column.named)) == (422, {"/titel"})
    assert set(wrong.named) == {"format", "acount"}
    assert (unknown.status, set(unknown.named)) == (400, {"account"})
