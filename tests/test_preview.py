"""What is shown before training: the official sanity check, and the page of coloured tokens."""

import re

import pytest

from finetune.layouts import Limits, choose
from finetune.preview import MOST_SHOWN, preview, sanity_check, see
from glm.messages import Conversation, Message
from tests.dialect_desk import desk, desks
from tests.shared_files import CHATGLM3_TOKENIZER
from tests.training_desk import chat, chatglm3, made, real_chatglm3

TALK = chat("q one", "a one", "q two", "a two")


def page(*rows, name="auto", dialect=None, limits=None, count=99):
    dialect = dialect or chatglm3()
    return preview(rows, count, choose(name, dialect), dialect, limits or Limits())


def tokens(text, kind):
    """The texts of the tokens of a kind."""
    body = text.split("</header>")[1]
    found = re.findall(r'<b class="t([^"]*)" title="[^"]*">(.*?)</b>', body, re.DOTALL)
    return [shown for kinds, shown in found if kind in kinds.split()]


def test_the_sanity_check_has_both_frame_lines_and_a_line_a_token():
    example = made("chatglm3", TALK)
    first, *lines, last = sanity_check(example, chatglm3())
    assert (first, last) == ("Sanity Check >>>>>>>>>>>>>", "<<<<<<<<<<<<< Sanity Check")
    assert len(lines) == len(example.ids)
    told = [re.fullmatch(r" *'(.*)': +(-?\d+) -> +(-?\d+)", line) for line in lines]
    assert [int(line[2]) for line in told] == list(example.ids)
    assert [int(line[3]) for line in told] == list(example.labels)


def test_the_lines_are_those_the_official_code_prints():
    if not CHATGLM3_TOKENIZER.exists():
        return
    example = made("chatglm3", chat("know", "the"), real_chatglm3())
    assert list(sanity_check(example, real_chatglm3())) == [
        "Sanity Check >>>>>>>>>>>>>",
        "           '[gMASK]':  64790 ->   -100",
        "               'sop':  64792 ->   -100",
        "          '<|user|>':  64795 ->   -100",
        "                  '':  30910 ->   -100",
        "                '\\n':     13 ->   -100",
        "              'know':    683 ->   -100",
        "     '<|assistant|>':  64796 ->   -100",
        "                  '':  30910 ->  30910",
        "                '\\n':     13 ->     13",
        "               'the':    267 ->    267",
        "                  '':      2 ->      2",
        "<<<<<<<<<<<<< Sanity Check",
    ]


def test_the_page_colours_exactly_the_learnt_tokens():
    example = made("chatglm3", TALK)
    assert len(tokens(page(TALK), "learnt")) == example.learnt
    assert '<section class="assistant"' in page(TALK)


def test_the_page_loads_nothing_and_runs_nothing():
    text = page(TALK, chat("<script>alert(1)</script>", "<img src=x onerror=y> & \"q\" 'q'"))
    assert "<script" not in text and "<img" not in text
    assert not re.search(r"(src|href)\s*=|url\(|@import|https?://", text.replace("src=x", ""))
    assert "default-src 'none'" in text and "prefers-color-scheme: dark" in text


@pytest.mark.parametrize("overlong", ["skip", "cut-turns", "truncate"])
def test_the_page_shows_where_a_row_is_cut(overlong):
    whole = made("chatglm3", TALK)
    limits = Limits(len(whole.ids) - 2, overlong=overlong)
    view = see(TALK, choose("chatglm3", chatglm3()), chatglm3(), limits)
    first = len(made("chatglm3", Conversation(TALK.messages[:2])).ids) - 1  # its eos is new
    wanted = {"skip": limits.max_length, "truncate": limits.max_length, "cut-turns": first}
    assert view.cut == wanted[overlong] and view.example == whole
    text = page(TALK, limits=limits)
    assert len(tokens(text, "gone")) == len(whole.ids) - wanted[overlong]
    assert ("left out: longer than" in text) == (overlong == "skip")
    assert text.count("<hr") == 1


def test_a_question_that_is_cut_is_shown_as_it_is_trained_on():
    limits = Limits(max_source=12, max_target=5)
    text = page(chat("word " * 40, "so " * 40), name="prompt-response", limits=limits)
    assert "question cut and answer cut" in text and not tokens(text, "gone")
    assert "question up to 12, answer up to 5 tokens" in text
    assert "limit 2,048" in page(chat("a", "b"), name="chatglm3", limits=limits)


def test_a_row_that_is_left_out_says_why():
    silent = Conversation((Message("user", "?"), Message("assistant", "!", learn=False)))
    assert "left out: nothing in it is learnt" in page(silent)


def test_no_more_rows_are_read_than_are_shown():
    def rows():
        yield TALK
        yield TALK
        raise AssertionError("a third row is read")

    assert page(*[TALK] * 3, count=2).count("<article") == 2
    dialect = chatglm3()
    assert "2 rows" in preview(rows(), 2, choose("auto", dialect), dialect, Limits())


def test_a_huge_row_does_not_make_a_huge_page():
    text = page(chat("?", "a " * 200_000), limits=Limits(100))
    assert len(tokens(text, "t") or re.findall('<b class="t', text)) <= MOST_SHOWN + 4
    assert re.search(r"… \d+ more", text)


@pytest.mark.parametrize("name", sorted(desks()))
def test_rows_of_every_dialect_are_shown(name):
    text = page(chat("你好 👋", "hi\nthere"), dialect=desk(name).dialect)
    assert tokens(text, "learnt") and text.count("<article") == 1
