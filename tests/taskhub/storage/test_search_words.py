"""Words of texts, and the phrases that texts contain."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskhub.storage.search import MAX_PHRASE, MAX_TIMES, MAX_WORDS, Phrase, documents, phrases_of, words_of

TEXTS = st.text(st.sampled_from("ab1 -_.%\"'*:()ＡｶﾞÉéßİ全文検索機能カナー한국ไท🔥\u0301\n"), max_size=30)


def contains(words: list[str], phrase: Phrase) -> bool:
    """What both databases do with a phrase."""
    *before, last = phrase.words
    for start in range(len(words) - len(before)):
        end = words[start + len(before)]
        if words[start : start + len(before)] == before and (end.startswith(last) if phrase.prefix else end == last):
            return True
    return False


def found(text: str, typed: str, *, prefix: bool = False) -> bool:
    return all(
        any(contains(words, phrase) for words in documents([text])) for phrase in phrases_of(typed, prefix=prefix)
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The QUICK, brown_fox-2!", ["the", "quick", "brown", "fox", "2"]),
        ("全文検索", ["全文", "文検", "検索", "索"]),
        ("Webサーバー停止", ["web", "サー", "ーバ", "バー", "ー停", "停止", "止"]),
        ("ﾊﾞｯｸ Ｌｏｇ", ["バッ", "ック", "ク", "log"]),
        ("TH-12 検", ["th", "12", "検"]),
        ("Straße İ e\u0301", ["strasse", "i̇", "é"]),
        ('% " * () 🔥 、。・', []),
        ("x" * 130, ["x" * 64, "x" * 64, "xx"]),
    ],
)
def test_texts_are_words_and_pairs_of_characters(text: str, words: list[str]) -> None:
    assert list(words_of(text)) == words


@pytest.mark.parametrize("typed", ["検索", "検", "能", "全文検索機能", "索機", "機能"])
def test_any_part_of_a_text_without_spaces_is_found_in_it(typed: str) -> None:
    assert found("新しい全文検索機能", typed)
    assert not found("新しい全文・検・索・機・能力" if len(typed) > 1 else "新しい", typed)


@given(TEXTS, st.data())
def test_each_run_of_letters_of_a_text_is_found_in_it(text: str, data: st.DataObject) -> None:
    for part in text.split():
        assert found(text, part)
        assert found(text, part, prefix=True)
    start, end = sorted((data.draw(st.integers(0, 30)), data.draw(st.integers(0, 30))))
    assert found("全文検索機能カナ" * 3, ("全文検索機能カナ" * 3)[start:end])


@given(TEXTS)
def test_words_hold_nothing_that_a_query_language_knows(text: str) -> None:
    for word in words_of(text):
        assert re.fullmatch(r"[^\x00-/:-@\[-`{-\x7f]+", word)
        assert not any(unicodedata.category(c)[0] in "PSZC" for c in word)


@given(
    st.lists(st.text(st.sampled_from("ab "), max_size=1500) | st.integers(1, 3000).map("あ".__mul__), max_size=3),
    st.data(),
)
def test_long_texts_are_documents_within_the_limits_in_which_each_phrase_is_whole(
    texts: list[str], data: st.DataObject
) -> None:
    made = list(documents(texts))

    assert all(len(words) <= MAX_WORDS for words in made)
    assert all(words.count(word) <= MAX_TIMES for words in made for word in set(words))
    for text in texts:
        words = list(words_of(text))
        start = data.draw(st.integers(0, max(0, len(words) - 1)))
        phrase = Phrase(tuple(words[start : start + MAX_PHRASE]))
        assert not phrase.words or any(contains(found, phrase) for found in made)


def test_no_phrase_begins_in_one_text_and_ends_in_the_next() -> None:
    (words,) = documents(["printer on", "fire brigade"])

    assert contains(words, Phrase(("printer", "on")))
    assert not contains(words, Phrase(("on", "fire")))
