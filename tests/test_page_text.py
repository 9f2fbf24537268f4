"""What the page writes: safe markdown, words of two languages, the list, the X-ray, errors."""

from __future__ import annotations

import json
import re
import time
from datetime import date, datetime
from pathlib import Path

import pytest

from demo.bubbles import bubbles, draw, safe
from demo.models import table
from demo.sidebar import listing
from demo.text import LANGUAGES, Words, choose_language, sentence
from demo.top import EXAMPLES, head, hero
from demo.xray import SHOWN, panel
from glm.dialects.base import RoleToken
from glm.errors import NotAllowed, NotFound, PromptTooLong, QueueFull
from glm.messages import Message, Usage
from glm.store import Node, Summary, TurnRecord

DEMO = Path(__file__).resolve().parents[1] / "demo"
WORDS = Words()
EN, ZH = WORDS.of("en"), WORDS.of("zh")
ATTACK = '<img src=x onerror="alert(1)">'
TURN = TurnRecord((1,), (2,), Usage(prompt=1, new=1), 0.5, "base", None, "stop")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("a < b", "a &lt; b"),
        (ATTACK, ATTACK.replace("<", "&lt;")),
        ("![cat](http://evil.example/cat.png)", "[cat](http://evil.example/cat.png)"),
        ("![a][b]\n\n[b]: http://evil.example/x", "[a][b]\n\n[b]: http://evil.example/x"),
        ("`<b>` and <b>", "`<b>` and &lt;b>"),
        ("``a ` <b>`` <i>", "``a ` <b>`` &lt;i>"),
        ("` <b>", "` &lt;b>"),
        ("```html\n<b>\n```\n<b>", "```html\n<b>\n```\n&lt;b>"),
        ("~~~\n<b>\n```\n<b>\n~~~\n<b>", "~~~\n<b>\n```\n<b>\n~~~\n&lt;b>"),
        ("    ```\n<img src=x>", "    ```\n&lt;img src=x>"),
        ("````\n```\n<b>\n````\n<b>", "````\n```\n<b>\n````\n&lt;b>"),
        ("```<b>\nx\n```", "```&lt;b>\nx\n```"),
        ("$a<b$", "$a&lt;b$"),
    ],
)
def test_html_and_pictures_of_a_message_are_text(text, shown):
    assert safe(text) == shown


@pytest.mark.parametrize("unit", ["`", "<", "![", "`a", "```\n", "~~~ x\n`<b>"])
def test_making_text_safe_takes_linear_time(unit):
    def seconds(count):
        text = (unit * count)[: count * 4]
        began = time.process_time()
        safe(text)
        return time.process_time() - began

    small = max(min(seconds(20_000) for _ in range(5)), 0.004)
    assert min(seconds(80_000) for _ in range(5)) < small * 12


def test_thinking_is_a_folded_bubble_before_the_answer():
    thought, said = bubbles(Message("assistant", "42", thinking="hm"), EN)
    assert thought["metadata"] == {"title": "Thinking", "status": "done"}
    assert "metadata" not in said
    [pending] = bubbles(Message("assistant", "", thinking="hm"), ZH, thinking=True)
    assert pending["metadata"]["status"] == "pending"


def test_white_space_of_a_message_is_left_alone():
    [shown] = bubbles(Message("user", "  a\n    b\n"), EN)
    assert shown["content"] == [{"type": "text", "text": "  a\n    b\n"}]


def test_neighbours_of_one_role_share_a_row_as_they_do_in_the_chat():
    nodes = [
        Node(1, None, Message("user", "q")),
        Node(2, 1, Message("assistant", "a"), TURN),
        Node(3, 2, Message("tool", "result")),
        Node(4, 3, Message("assistant", "b"), TURN),
    ]
    drawn = draw(nodes, EN)
    assert [row["role"] for row in drawn.rows] == ["user", "assistant"]
    assert drawn.rows[1]["node"] == 4 and drawn.rows[1]["text"] == "a\n\nresult\n\nb"


def test_titles_and_ids_in_the_list_are_escaped():
    html = listing([Summary('"><b>', ATTACK, 0.0, 1, "base")], "", EN)
    assert ATTACK not in html and "<b>" not in html


def test_the_list_is_grouped_by_day_and_marks_the_open_conversation():
    noon = datetime(2026, 5, 20, 12).timestamp()
    rows = [Summary(f"c{d}", f"t{d}", noon - d * 86400, 1, "base") for d in (0, 1, 3, 30)]
    html = listing(rows, "c1", EN, today=date(2026, 5, 20))
    headings = ["Today", "Yesterday", "Last 7 days", "Older"]
    assert [h for h in headings if h in html] == headings
    assert html.count("aria-current") == 1
    assert "Nothing found" in listing([], "", EN, query="x")


def test_the_xray_escapes_tokens_and_folds_the_middle_of_a_long_prompt():
    tokens = [RoleToken(5, "<b>", "user", False)] * (SHOWN + 10)
    html = panel(TURN, tokens, [RoleToken(2, "</s>", None, True)], ZH)
    assert "<b>" not in html.replace('<span class="gap">', "") and "&lt;b&gt;" in html
    assert html.count('class="tok user"') == SHOWN and "10" in html
    assert 'class="tok special"' in html


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_error_is_one_sentence_in_the_language_of_the_page(lang):
    say = WORDS.of(lang)
    secret = RuntimeError("/srv/key.pem")
    errors = [PromptTooLong(9, 5), QueueFull(3), NotFound("x"), NotAllowed("x"), secret]
    said = [sentence(say, error) for error in errors]
    assert len(set(said)) == len(said) and all("/srv" not in text for text in said)
    assert "9" in said[0] and "5" in said[0] and "3" in said[1]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_empty_page_offers_questions_in_its_language(lang):
    html = hero(WORDS.of(lang))
    assert html.count('data-do="ask"') == EXAMPLES
    assert head(WORDS.of(lang)).count("aria-label") >= 4


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_models_to_open_are_shown_and_chosen_by_the_operator_alone(lang):
    assert "THUDM/chatglm3-6b" in table(WORDS.of(lang), lang, operator=False)
    assert "data-id" not in table(WORDS.of(lang), lang, operator=False)
    assert 'data-id="THUDM/chatglm3-6b"' in table(WORDS.of(lang), lang, operator=True)


@pytest.mark.parametrize(
    ("wanted", "accepted", "lang"),
    [
        ("auto", "zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("auto", "de-DE,de;q=0.9,en;q=0.8", "en"),
        ("auto", "fr", "en"),
        ("auto", None, "en"),
        ("zh", "en", "zh"),
        ("<script>", "en", "en"),
    ],
)
def test_the_language_is_the_wanted_one_else_the_browsers(wanted, accepted, lang):
    assert choose_language(wanted, accepted) == lang


def test_every_sentence_is_used_and_every_used_one_exists():
    code = "".join(path.read_text(encoding="utf-8") for path in DEMO.glob("*.py"))
    script = "".join(path.read_text(encoding="utf-8") for path in DEMO.glob("*.js"))
    groups = {key.partition(".")[0] for key in WORDS.keys("en")}
    used = {f"page.{word}" for word in re.findall(r"words\.(\w+)", script)}
    used |= {k for k in re.findall(r"""["'](\w+\.\w+)["']""", code) if k.split(".")[0] in groups}
    used -= {
        f"{name}.{kind}" for name in ("page", "tools", "models") for kind in ("js", "css", "json")
    }
    built = ("example", "role", "finish", "page", "settings", "model", "side")  # f"role.{role}"
    built += ("call", "ended", "policy", "origin", "mode", "isolation", "paste", "offer")
    built += ("fit", "memory", "target")
    assert used <= WORDS.keys("en"), used - WORDS.keys("en")
    unused = WORDS.keys("en") - used
    assert {key for key in unused if key.partition(".")[0] not in built} == set()


def test_the_sentences_of_both_languages_fill_in_the_same_values():
    sample = {"en": WORDS.group("en", "error"), "zh": WORDS.group("zh", "error")}
    assert json.dumps(sample["en"]) != json.dumps(sample["zh"])
    assert sample["en"].keys() == sample["zh"].keys()
