"""Searching: what finds a ticket, in which order, and that the index follows every write."""

import asyncio
import re
import unicodedata
from datetime import date
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, func, select

from taskhub.storage import search
from taskhub.storage.schema import search_documents
from taskhub.tickets.errors import InvalidInput
from taskhub.tickets.inputs import NewComment, TicketQuery
from tests.examples import EXAMPLES
from tests.taskhub.world import ALICE, World, execute, rows


async def test_japanese_is_found_inside_of_texts(world: World) -> None:
    await world.create("新しい全文検索機能について")
    await world.create("ﾊﾞｯｸｱｯﾌﾟ が Webサーバーで失敗")

    for typed in ("検索", "全文検索", "検", "能について", "て"):
        assert await world.keys(query=typed) == ["TH-1"], typed
    for typed in ("バック", "ﾊﾞｯｸｱｯﾌﾟ", "web", "Ｗｅｂサーバー", "サーバー", "失敗 web", "敗"):
        assert await world.keys(query=typed) == ["TH-2"], typed
    for typed in ("検能", "索全", "バー web", "サーバ検"):
        assert await world.keys(query=typed) == (["TH-2"] if typed == "バー web" else []), typed


async def test_each_word_may_be_in_another_text_of_the_ticket(world: World) -> None:
    await world.create(
        "Printer on fire", description="third floor", external_ticket_id="EXT-77", remarks="call back",
        labels=["ux", "very urgent"],
    )  # fmt: skip
    await world.update("TH-1", response_details="extinguished")
    await world.tickets.add_comment(ALICE, "TH-1", NewComment(comment="The brigade came"))

    for typed in ("printer", "third fire", "ext-77", "call urgent", "extinguished brigade", "the came ux floor"):
        assert await world.keys(query=typed) == ["TH-1"], typed
    for typed in ("printer water", "fireman", "ext-78"):
        assert await world.keys(query=typed) == [], typed


async def test_a_quoted_phrase_is_found_as_it_stands(world: World) -> None:
    await world.create("Printer on fire")
    await world.create("fire on the Printer")

    assert await world.keys(query='"printer on fire"') == ["TH-1"]
    assert await world.keys(query='"on fire') == ["TH-1"]
    assert await world.keys(query="“on the” printer") == ["TH-2"]
    assert sorted(await world.keys(query="printer on fire")) == ["TH-1", "TH-2"]


async def test_the_last_word_may_be_unfinished(world: World) -> None:
    await world.create("Printer on fire")

    assert await world.keys(query="fire pri") == ["TH-1"]
    assert await world.keys(query="pri fire") == []
    assert await world.keys(query='"pri"') == []


async def test_a_key_comes_first_and_stands_for_its_ticket_alone(world: World) -> None:
    for n in range(12):
        await world.create(f"ticket {n}")
        world.tick()
    await world.update("TH-4", remarks="see TH-1 and th-012")

    for typed in ("TH-1", "th-1", "ＴＨ－０１"):
        page = await world.tickets.list_tickets(ALICE, TicketQuery(query=typed, limit=1))
        assert [ticket.key for ticket in page.tickets] == ["TH-1"], typed
        rest = await world.tickets.list_tickets(ALICE, TicketQuery(query=typed, limit=1, cursor=page.next_cursor))
        assert ([ticket.key for ticket in rest.tickets], rest.next_cursor) == (["TH-4"], None)
    assert await world.keys(query="TH-1", sort_by="updated") == ["TH-4", "TH-1"]
    assert await world.keys(query="TH-99") == []


TYPED = [
    '"', '""', '"""', "*", "NEAR(", "NEAR(a b)", "name:x", "words:x", "%", "_", "AND", "OR NOT", "a AND", "-", "a*",
    "^a", "(", "a)", "{a}", "\\", "'", "a'b", "':*", "a & b", "a | !b", "<->", ";", "🔥", "・", "\u3000x", "+a",
    "search_words:a", "a\tb",
]  # fmt: skip


async def test_what_is_typed_is_never_taken_for_a_query_language(world: World) -> None:
    await world.create("nothing of that")
    for typed in TYPED:
        assert await world.keys(query=typed) == [], typed
        made = (await world.create("something", description=f"so {typed} it")).key
        letters = any(c.isalnum() for c in typed)
        assert await world.keys(query=typed) == ([made] if letters else []), typed
        await world.tickets.delete_ticket(ALICE, made)


async def test_too_many_words_are_refused(world: World) -> None:
    with pytest.raises(InvalidInput) as refused:
        await world.keys(query="a " * 21)

    assert [problem.pointer for problem in refused.value.problems] == ["/query"]


async def test_the_whole_of_a_long_text_is_found(world: World) -> None:
    numbered = " ".join(f"w{n}" for n in range(9000))
    await world.create("long", description=numbered, remarks="あ" * 20_000 + "いう" + "え" * 20_000)
    await world.tickets.add_comment(ALICE, "TH-1", NewComment(comment="the " * 10_000 + "very the end"))

    for typed in ("w0 w8999", '"w1998 w1999 w2000 w2001"', '"w5000 w5001"', "あいうえ", '"the very the end"'):
        assert await world.keys(query=typed) == ["TH-1"], typed
    assert await world.keys(query='"w1 w3"') == []


async def test_what_was_replaced_is_not_found_any_more(world: World) -> None:
    await world.create("old summary", labels=["first"])
    await world.update("TH-1", summary="new summary", labels=["second"])

    assert await world.keys(query="old") == []
    assert await world.keys(query="first") == []
    assert await world.keys(query="new second") == ["TH-1"]
    assert await rows(world.database, select(func.count()).select_from(search_documents)) == [(1,)]


async def test_a_write_that_fails_leaves_nothing_in_the_index(world: World) -> None:
    async def refused() -> None:
        with pytest.raises(InvalidInput):
            await world.create("ghost", parent="TH-99")

    await asyncio.gather(refused(), world.create("real one"), refused())

    assert await world.keys(query="ghost") == []
    assert await world.keys(query="real") == ["TH-1"]


@pytest.mark.parametrize("page", [search.PAGE, 0], ids=["from the words", "from the list"])
async def test_words_that_are_frequent_are_found_like_rare_ones(
    world: World, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(search, "MAX_LISTED", 2)
    monkeypatch.setattr(search, "PAGE", page)
    for n in range(4):
        await world.create(f"alpha {n}", description="gamma delta", priority="high" if n % 2 else "low")
        await world.create(f"beta {n}", description="gamma delta 検索")
        world.tick()
    await world.tickets.add_comment(ALICE, "TH-1", NewComment(comment="seen beside beta"))
    await world.update("TH-4", labels=["alphabet"])
    every = [f"TH-{no}" for no in (4, 8, 7, 6, 5, 3, 2, 1)]

    found = {
        typed: await world.keys(query=typed)
        for typed in (
            "gamma", "gam", "検", '"gamma delta"', "delta gamma", "alpha", "alpha beta", "beta alpha gamma",
            '"alpha" beta', '"delta gamma" alpha', "alph delta", "gamma TH-3", "gamma alpha 2", "beta beside",
        )
    }  # fmt: skip
    assert found == {
        "gamma": every, "gam": every, "検": ["TH-4", "TH-8", "TH-6", "TH-2"], '"gamma delta"': every,
        "delta gamma": every, "alpha": ["TH-4", "TH-7", "TH-5", "TH-3", "TH-1"], "alpha beta": ["TH-1"],
        "beta alpha gamma": ["TH-1"], '"alpha" beta': ["TH-1"], '"delta gamma" alpha': [], "alph delta": [],
        "gamma TH-3": ["TH-3"], "gamma alpha 2": ["TH-5"], "beta beside": ["TH-1"],
    }  # fmt: skip
    assert await world.keys(query="alpha", sort_by="key", sort_order="asc") == ["TH-1", "TH-3", "TH-4", "TH-5", "TH-7"]
    assert await world.keys(query="gamma alpha", priority=["high"]) == ["TH-7", "TH-3"]


async def test_the_pages_of_a_search_are_its_whole(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(9):
        due = None if n % 3 else date(2026, 12, 1 + n % 2)
        await world.create(f"alpha {n}", scheduled_completion_date=due, priority=["low", "high"][n % 2])
        await world.create("other")
    for listed in (2, search.MAX_LISTED):
        monkeypatch.setattr(search, "MAX_LISTED", listed)
        for sort_by in ("updated", "created", "due", "priority", "key"):
            whole = await world.keys(query="alpha", sort_by=sort_by)
            walked: list[str] = []
            cursor = None
            while True:
                query = TicketQuery.model_validate({"query": "alpha", "sort_by": sort_by, "limit": 2, "cursor": cursor})
                page = await world.tickets.list_tickets(ALICE, query)
                walked += [ticket.key for ticket in page.tickets]
                if (cursor := page.next_cursor) is None:
                    break

            assert walked == whole
            assert len(whole) == 9, (listed, sort_by)


WORDS = [
    "fire",
    "Fire!",
    "printer",
    "prints",
    "検索",
    "全文検索機能",
    "ｶﾅ",
    "カナ",
    "a-b",
    "TH-1",
    "x_1",
    "１００",
    "é",
]
TEXT = st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join)
WRITES = st.lists(
    st.tuples(st.sampled_from(["summary", "description", "remarks", "labels", "comment"]), st.integers(0, 2), TEXT),
    max_size=12,
)


def holds(texts: list[str], word: str) -> bool:
    """A plain model of the search for one quoted word: pieces of letters in a row, and within scripts without spaces
    any part of a piece."""

    def folded(text: str) -> str:
        return re.sub(r"[\W_]+", " ", unicodedata.normalize("NFKC", text).casefold()).strip()

    wanted = folded(word)
    if re.search(r"[ぁ-ヿ一-鿿]", wanted):
        return any(wanted in folded(text) for text in texts)
    return any(f" {wanted} " in f" {folded(text)} " for text in texts)


@settings(max_examples=EXAMPLES // 12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(writes=WRITES)
async def test_the_index_follows_every_write(world: World, writes: list[tuple[str, int, str]]) -> None:
    model: dict[str, dict[str, list[str]]] = {}
    for _ in range(3):
        key = (await world.create("s")).key
        model[key] = {"key": [key], "summary": ["s"]}
    keys = list(model)
    for field, which, text in writes:
        key, texts = keys[which], model[keys[which]]
        if field == "comment":
            if text.strip():
                await world.tickets.add_comment(ALICE, key, NewComment(comment=text))
                texts.setdefault("comments", []).append(text)
        elif field == "labels":
            await world.update(key, labels=text.split())
            texts["labels"] = text.split()
        else:
            value: Any = text or "empty" if field == "summary" else text
            await world.update(key, **{field: value})
            texts[field] = [value]

    for word in WORDS:
        listed = await world.keys(query=f'"{word}"', limit=100)
        expected = [key for key, texts in model.items() if holds([t for some in texts.values() for t in some], word)]
        assert sorted(set(listed) & set(keys)) == sorted(expected), word


async def test_the_index_holds_what_a_new_one_would(world: World) -> None:
    """FTS5 keeps its index beside the table: after changes and a removal it still agrees with it."""
    await world.create("one two", labels=["x"])
    await world.update("TH-1", summary="three")
    await world.tickets.add_comment(ALICE, "TH-1", NewComment(comment="four"))
    await execute(world.database, delete(search_documents).where(search_documents.c.comment_seq.is_not(None)))

    assert await world.keys(query="four") == []
    assert await world.keys(query="three") == ["TH-1"]
