"""Tickets as files, and files as tickets."""

import asyncio
import csv
import io
from collections.abc import Callable
from datetime import date
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskhub.auth.errors import Forbidden
from taskhub.auth.principal import ALL_SCOPES, Caller, Principal
from taskhub.tickets.errors import InvalidInput, StorageBusy
from taskhub.tickets.export import Format, header, line
from taskhub.tickets.import_rows import MAX_LINE, BadLine, ImportRow, read_rows
from taskhub.tickets.imports import MAX_STRICT, Imported, ImportInterrupted, ImportRefused, import_rows
from taskhub.tickets.inputs import ExportQuery
from taskhub.tickets.model import Ref, Ticket
from taskhub.tickets.unit import TicketUnit
from tests.taskhub.world import ALICE, World, caller


async def exported(world: World, form: Format, **query: Any) -> bytes:
    lines = [header(form)]
    async for page in world.tickets.export(ALICE, ExportQuery(**query)):
        lines += [line(ticket, form) for ticket in page]
    return b"".join(lines)


async def imported(world: World, text: str | bytes, form: Format = "csv", *, strict: bool = False) -> Imported:
    file = io.BytesIO(text.encode() if isinstance(text, str) else text)
    return await world.tickets.import_file(ALICE, file, form, strict=strict)


@pytest.fixture
async def filled(world: World) -> World:
    await world.add("users", "Bob")
    await world.add("accounts", "Aozora, Inc.")
    await world.create(
        "全文検索", description="two\r\nlines, and \"quotes\"", person_in_charge="bob", account="aozora_inc",
        category="incident", category_detail="outage", labels=["ux", "a b"], priority="high", has_defect=False,
        scheduled_completion_date=date(2026, 12, 1), actual_effort_hours=1.5, external_ticket_id="E-1",
    )  # fmt: skip
    await world.create("=HYPERLINK(1)", description="'=x", remarks="-1", parent="TH-1", status="completed")
    await world.create("waits", status="waiting", waiting_reason="@them")
    return world


@pytest.mark.parametrize("form", ["csv", "jsonl"])
async def test_what_was_exported_changes_nothing_when_it_is_imported(filled: World, form: Format) -> None:
    before = [await filled.ticket(f"TH-{n}") for n in (1, 2, 3)]
    heard = len(filled.heard)

    done = await imported(filled, await exported(filled, form), form)

    assert done == Imported(0, 0, 3, 0, [])
    assert [await filled.ticket(f"TH-{n}") for n in (1, 2, 3)] == before
    assert len(filled.heard) == heard


async def test_a_spreadsheet_opens_it_and_runs_nothing_in_it(filled: World) -> None:
    text = await exported(filled, "csv")
    rows = list(csv.DictReader(io.StringIO(text.decode("utf-8-sig"), newline="")))

    assert text.startswith(b"\xef\xbb\xbfkey,")
    assert [row["summary"] for row in rows] == ["全文検索", "'=HYPERLINK(1)", "waits"]
    assert (rows[0]["account"], rows[0]["labels"], rows[0]["has_defect"]) == ("Aozora, Inc.", "a b, ux", "false")
    assert (rows[1]["description"], rows[1]["remarks"], rows[2]["waiting_reason"]) == ("''=x", "'-1", "'@them")
    assert all(not cell.startswith(("=", "+", "-", "@", "\t", "\r")) for row in rows for cell in row.values())


async def test_an_export_has_the_filters_of_the_list_and_all_phases(filled: World) -> None:
    async def keys(**query: Any) -> list[str]:
        return [t.key async for page in filled.tickets.export(ALICE, ExportQuery(**query)) for t in page]

    assert await keys() == ["TH-1", "TH-2", "TH-3"]
    assert await keys(show_completed=False) == ["TH-1", "TH-3"]
    assert await keys(label=["ux"]) == await keys(query="検索") == ["TH-1"]
    with pytest.raises(InvalidInput):
        await keys(account=["nobody"])


async def test_all_pages_are_exported(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskhub.tickets.service.EXPORT_AT_A_TIME", 2)
    for count in range(1, 6):
        await world.create()
        pages = [[t.key for t in page] async for page in world.tickets.export(ALICE, ExportQuery())]
        assert [key for page in pages for key in page] == [f"TH-{n}" for n in range(1, count + 1)]
        assert max(map(len, pages)) <= 2


async def test_rows_are_created_once_and_then_brought_up_to_date(world: World) -> None:
    text = (
        "external_ticket_id,summary,status,labels,reception_at\n"
        'A-1,one,In Progress,"x, y",\n'
        "A-2,two,,,2026-01-02T03:04:05Z\n"
    )

    assert await imported(world, text) == Imported(2, 0, 0, 0, [])
    assert await imported(world, text) == Imported(0, 0, 2, 0, [])
    assert await imported(world, text.replace("two", "three")) == Imported(0, 1, 1, 0, [])
    one, two = await world.ticket("TH-1"), await world.ticket("TH-2")
    assert (one.summary, one.status.id, one.labels, one.external_ticket_id) == ("one", "in_progress", ("x", "y"), "A-1")
    assert (two.summary, two.reception_at) == ("three", "2026-01-02T03:04:05.000Z")
    assert {event.origin for event in world.heard} == {"import"}


async def test_bad_lines_are_named_with_their_reasons_and_the_good_ones_taken(world: World) -> None:
    text = (
        "key,external_ticket_id,summary,status\n"
        ",A-1,good,\n"
        ',A-2,"two\nlines",nowhere\n'
        ",,no id,\n"
        "TH-99,,gone,\n"
        ",A-3\n"
        ",A-4,,\n"
        ",A-5,also good,done?\n".replace("done?", "completed")
    )
    done = await imported(world, text)

    assert (done.created, done.failed) == (2, 5)
    assert [bad.line for bad in done.errors] == [3, 5, 6, 7, 8]
    for bad, reason in zip(done.errors, ["status", "neither", "TH-99", "2 cells", "summary"], strict=True):
        assert reason in bad.reason, bad


async def test_a_strict_import_takes_all_or_nothing(world: World) -> None:
    rows = '{"external_ticket_id": "A", "summary": "a"}\n{"external_ticket_id": "B", "summary": "b", "status": "x"}\n'
    with pytest.raises(ImportRefused) as refused:
        await imported(world, rows, "jsonl", strict=True)
    assert [bad.line for bad in refused.value.lines] == [2]
    with pytest.raises(ImportRefused):
        await imported(world, rows.replace('"x"', '"received"') + "no json", "jsonl", strict=True)
    assert await world.keys() == []
    assert world.heard == []

    assert await imported(world, rows.replace('"x"', '"received"'), "jsonl", strict=True) == Imported(2, 0, 0, 0, [])


async def test_a_strict_import_that_takes_nothing_forgets_the_callers_that_it_added(world: World) -> None:
    nobody_yet = Caller(Principal("user:newcomer", "default", ALL_SCOPES, authenticated=False), "rest_api")
    file = io.BytesIO(b"key,external_ticket_id,summary,person_in_charge,status\n,E-1,a,me,nonsense\n,E-2,b,me,\n")

    with pytest.raises(ImportRefused) as refused:
        await world.tickets.import_file(nobody_yet, file, "csv", strict=True)

    assert [bad.line for bad in refused.value.lines] == [2]


async def test_a_strict_import_is_as_small_as_others_can_wait_for(world: World) -> None:
    lines = "".join(f',E-{n},"{n}"\n' for n in range(MAX_STRICT + 1))

    with pytest.raises(InvalidInput, match=f"at most {MAX_STRICT} rows"):
        await imported(world, f"key,external_ticket_id,summary\n{lines}", strict=True)


@pytest.mark.parametrize("form", ["csv", "jsonl"])
async def test_a_line_that_is_too_long_is_named_and_the_others_are_taken(world: World, form: Format) -> None:
    head = {"csv": "external_ticket_id,summary\n", "jsonl": ""}[form]
    good = {"csv": "E-{0},{0}\n", "jsonl": '{{"external_ticket_id":"E-{0}","summary":"{0}"}}\n'}[form]

    done = await imported(world, head + good.format(1) + "x" * (3 * MAX_LINE) + "\n" + good.format(2), form)

    line = 3 if form == "csv" else 2
    assert done == Imported(2, 0, 0, 1, [BadLine(line, f"has more than {MAX_LINE} characters")])


async def test_an_import_that_the_database_ends_says_how_far_it_came(world: World) -> None:
    taken = 0

    async def run(change: Callable[[TicketUnit], Any]) -> Any:
        nonlocal taken
        if taken == 100:
            raise StorageBusy
        taken += 1
        return await world.tickets._unit(ALICE, change)

    rows = [(n, ImportRow(external_ticket_id=f"E-{n}", summary=f"{n}")) for n in range(200)]

    with pytest.raises(ImportInterrupted) as interrupted:
        await import_rows(run, rows, strict=False)
    again = await import_rows(partial(world.tickets._unit, ALICE), rows, strict=False)

    assert interrupted.value.created == 100
    assert (again.created, again.unchanged) == (100, 100)


async def test_others_are_served_while_a_file_is_read(world: World) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    ticking = asyncio.create_task(tick())
    done = await imported(world, "{}\n" * 5000, "jsonl")
    ticking.cancel()

    assert done.failed == 5000
    assert ticks > 20


async def test_what_has_changed_since_the_export_is_not_overwritten(filled: World) -> None:
    text = (await exported(filled, "csv")).replace("全文検索".encode(), b"mine")
    await filled.update("TH-1", remarks="theirs")

    refused = await imported(filled, text)
    await filled.update("TH-1", summary="mine")
    again = await imported(filled, text.replace(b"theirs", b""))

    assert (refused.updated, refused.unchanged, [bad.line for bad in refused.errors]) == (0, 2, [2])
    assert "version" in refused.errors[0].reason
    assert (again.failed, again.unchanged) == (0, 3)


async def test_an_empty_id_of_another_system_is_none(world: World) -> None:
    for n in (1, 2):
        await world.create(f"{n}", external_ticket_id=" ")
    rows = "".join(f'{{"key":"TH-{n}","external_ticket_id":"","summary":"new {n}"}}\n' for n in (1, 2))

    done = await imported(world, rows, "jsonl")

    assert done == Imported(0, 2, 0, 0, [])
    assert [(await world.ticket(f"TH-{n}")).summary for n in (1, 2)] == ["new 1", "new 2"]
    assert (await world.ticket("TH-1")).external_ticket_id is None


async def test_a_quote_that_is_not_closed_ends_the_import_and_says_so(world: World) -> None:
    rows = "".join(f"E-{n},{n}\n" for n in range(30_000))

    done = await imported(world, f'external_ticket_id,summary\nE,before\nF,"oops\n{rows}')

    reason = "a quote that is opened here is not closed; nothing from here on was taken"
    assert done == Imported(1, 0, 0, 1, [BadLine(3, reason)])


async def test_a_file_that_is_no_utf_8_is_refused_with_a_word_about_that(world: World) -> None:
    with pytest.raises(InvalidInput, match="not UTF-8"):
        await imported(world, "external_ticket_id,summary\nE-1,a\n".encode("utf-16"))


async def test_a_file_of_another_form_is_refused_before_anything_is_taken(world: World) -> None:
    for text, reason in [
        ("external_ticket_id,sumary\nA,a\n", "summary"), ("summary\nx\n", "external_ticket_id or key"),
        ("key,key\n", "twice"), ("", "external_ticket_id or key"),
    ]:  # fmt: skip
        with pytest.raises(InvalidInput, match=reason):
            await imported(world, text)
    assert (await imported(world, b"external_ticket_id,summary\nA,\xff\nB,b\n")).failed == 1
    assert (await imported(world, "[]\n3\n\n", "jsonl")).errors == [
        BadLine(1, "is no JSON object"), BadLine(2, "is no JSON object"),
    ]  # fmt: skip


async def test_an_id_that_several_tickets_have_is_no_ticket(world: World) -> None:
    await world.create(external_ticket_id="A")
    await world.create(external_ticket_id="A")

    done = await imported(world, "external_ticket_id,summary\nA,x\n")
    assert (done.failed, "TH-1, TH-2" in done.errors[0].reason) == (1, True)


async def test_files_need_the_scopes_of_what_they_do(world: World) -> None:
    with pytest.raises(Forbidden, match="tickets:read"):
        await anext(world.tickets.export(caller(scopes=["tickets:write"]), ExportQuery()))
    with pytest.raises(Forbidden, match="tickets:write"):
        await world.tickets.import_file(caller(scopes=["tickets:read"]), io.BytesIO(b""), "csv")


TEXTS = st.text(st.sampled_from("a='+-@\t,\"\n日 "), min_size=1, max_size=8)


@given(
    summary=TEXTS.filter(str.strip), remarks=TEXTS, labels=st.lists(st.sampled_from(["=x", "y z", "'-"]), unique=True)
)
def test_a_cell_is_read_as_what_was_written(summary: str, remarks: str, labels: list[str]) -> None:
    ticket = Ticket(
        "TH-1", 1, summary, None, Ref("received", "Received"), "todo", "none", None, None, None, None, None, None,
        "2026-01-01T00:00:00.000Z", None, None, None, None, None, None, None, remarks, None, None,
        tuple(sorted(labels)), None, False, None, "2026-01-01T00:00:00.000Z", "2026-01-01T00:00:00.000Z",
    )  # fmt: skip
    ((number, row),) = read_rows(io.BytesIO(header("csv") + line(ticket, "csv")), "csv")

    assert isinstance(row, ImportRow)
    assert (number, row.summary, row.remarks) == (2, summary.strip(), remarks)
    assert (row.labels or []) == sorted(labels)
