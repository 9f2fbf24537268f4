"""Scores of answers: text, JSON, tool calls; and their intervals."""

import sys

import pytest

from finetune import metrics
from finetune.metrics import Called, Score, figure_of
from finetune.scoring import tool_schema
from glm.errors import BadRequest
from glm.messages import ToolCall, ToolSpec

WEATHER = ToolSpec(
    "get_weather",
    parameters={
        "type": "object",
        "properties": {
            "city": {"type": "string"},
            "days": {"type": "integer", "minimum": 1},
            "unit": {"enum": ["C", "F"]},
        },
        "required": ["city"],
    },
)
MAIL = ToolSpec("send_mail", parameters={"type": "object", "properties": {}})
OSLO = ToolCall("get_weather", {"city": "Oslo", "days": 2})


def value(scores):
    return {name: one.value for name, one in scores.items()}


# ---- text


@pytest.mark.parametrize("text", ["今天北京晴", "好", "The cat sat.", "Hi"])
def test_the_same_text_is_one_everywhere_however_short(text):
    assert set(value(metrics.text_scores(text, f" {text}\n")).values()) == {1.0}


@pytest.mark.parametrize("given", ["", " \n", "完全不同"])
def test_nothing_in_common_is_zero(given):
    scores = value(metrics.text_scores("今天北京晴", given))
    assert max(scores[name] for name in (*metrics.ROUGE, "exact")) == 0.0
    assert scores["bleu-4"] < 0.2


def test_nothing_wanted_and_nothing_said_is_right():
    assert set(value(metrics.text_scores("", " ")).values()) == {1.0}


def test_rouge_counts_words_and_pairs_as_often_as_they_stand_there():
    # wanted a b c d, given a b b x: 2 of 4 words, 1 of 3 pairs, longest common part a b
    scores = value(metrics.text_scores("a b c d", "a b b x"))
    assert scores["rouge-1"] == pytest.approx(0.5)
    assert scores["rouge-2"] == pytest.approx(1 / 3)
    assert scores["rouge-l"] == pytest.approx(0.5)


def test_a_word_said_often_counts_once_where_it_was_wanted_once():
    assert value(metrics.text_scores("a b c d", "a a a a"))["rouge-1"] == pytest.approx(0.25)


def test_bleu_is_the_smoothed_one_of_single_answers():
    # precisions 4/5, 2/4, 0 -> 1/(2*3), 0 -> 1/(4*2); no brevity penalty (NIST's smoothing)
    wanted, given = "a b c d e", "a b x d e"
    expected = (4 / 5 * 2 / 4 * 1 / 6 * 1 / 8) ** 0.25
    assert value(metrics.text_scores(wanted, given))["bleu-4"] == pytest.approx(expected)


def test_chinese_is_cut_into_words_as_jieba_cuts_it():
    assert metrics.words("我来到北京清华大学") == ["我", "来到", "北京", "清华大学"]
    assert metrics.words("气温 20.5 度\n") == ["气温", "20.5", "度"]


def test_a_very_long_answer_is_compared_in_time():
    assert len(metrics.words("a " * 50_000)) == metrics.LONGEST


def test_a_missing_library_is_a_sentence_before_anything_is_asked(monkeypatch):
    metrics.require_libraries()
    monkeypatch.setitem(sys.modules, "rjieba", None)
    with pytest.raises(BadRequest, match="rjieba is missing, which scores texts"):
        metrics.require_libraries()


# ---- JSON


@pytest.mark.parametrize(
    ("text", "yes"),
    [
        ('{"a": 1}', True),
        ("[]", True),
        ("结果如下：\n```json\n[1]\n```\n完", True),
        ("```\n{}\n```", True),
        ("42", False),
        ("null", False),
        ('"text"', False),
        ("{'a': 1}", False),
        ("see [1]", False),
        ("[" * 100_000, False),
        ("", False),
    ],
)
def test_an_object_or_a_list_bare_or_fenced_is_json(text, yes):
    assert metrics.is_json(text) is yes


def test_triples_are_counted_in_any_order():
    wanted = '```json\n[{"s": "甲", "o": "乙"}, {"s": "丙", "o": "丁"}]\n```'
    given = '[{"o": "丁", "s": " 丙"}, {"s": "甲", "o": "错"}, {"s": "x"}]'
    scores = value(metrics.json_scores(wanted, given))
    assert scores == {"parses": 1.0, "exact": 0.0, "item-f1": pytest.approx(2 / 5)}


def test_fields_of_an_object_and_elements_of_its_lists_are_items():
    wanted, given = '{"a": [1, 2], "b": {"c": 1}}', '{"a": [2, 3], "b": {"c": 1}, "d": null}'
    assert value(metrics.json_scores(wanted, given))["item-f1"] == pytest.approx(4 / 7)


@pytest.mark.parametrize("given", ["", "no", '{"a": 1', "{'a': 1}"])
def test_what_does_not_parse_has_no_items(given):
    assert set(value(metrics.json_scores('{"a": 1}', given)).values()) == {0.0}


def test_an_empty_list_is_found_by_an_empty_list_only():
    assert set(value(metrics.json_scores("[]", "[]")).values()) == {1.0}
    assert value(metrics.json_scores("[]", "[1]")) == {"parses": 1, "exact": 0, "item-f1": 0}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (5, 5.0, True),
        (5, "5", False),
        (1, True, False),
        (0, None, False),
        (" Oslo ", "Oslo", True),
        ("oslo", "Oslo", False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ([1, 2], [2, 1], False),
        (1e300, 10**300, False),
        (float("nan"), float("nan"), True),
    ],
)
def test_values_are_equal_when_they_mean_the_same(one, other, same):
    assert (metrics.normal(one) == metrics.normal(other)) is same


# ---- calls


def call_values(wanted, given, tools=(WEATHER, MAIL), unread=()):
    return value(metrics.call_scores(wanted, Called(tuple(given), tuple(unread)), tools))


def test_the_recorded_call_is_right_in_everything():
    assert set(call_values([OSLO], [OSLO]).values()) == {1.0}


def test_no_call_where_one_is_wanted_is_wrong_and_has_nothing_to_parse():
    assert call_values([OSLO], []) == {
        "called": 0.0,
        "tool": 0.0,
        "parses": None,
        "schema": None,
        "exact": 0.0,
        "field-precision": None,
        "field-recall": 0.0,
    }


def test_a_wrong_argument_keeps_the_tool_and_the_other_field():
    scores = call_values([OSLO], [ToolCall("get_weather", {"city": "Oslo", "days": 3})])
    assert (scores["tool"], scores["schema"], scores["exact"]) == (1.0, 1.0, 0.0)
    assert scores["field-precision"] == scores["field-recall"] == 0.5


def test_fields_of_a_wrong_tool_are_not_found():
    scores = call_values([OSLO], [ToolCall("send_mail", {"city": "Oslo"})])
    assert (scores["tool"], scores["field-precision"], scores["field-recall"]) == (0.0, 0.0, 0.0)
    assert scores["called"] == 1.0


def test_a_call_that_cannot_be_read_has_its_tool_and_nothing_else():
    scores = call_values([OSLO], [], unread=["get_weather"])
    assert (scores["called"], scores["tool"], scores["parses"], scores["exact"]) == (1, 1, 0, 0)


@pytest.mark.parametrize(
    ("arguments", "fit"),
    [
        ({"city": "Oslo"}, 1.0),
        ({"city": "Oslo", "unit": "C"}, 1.0),
        ({}, 0.0),
        ({"city": 5}, 0.0),
        ({"city": "Oslo", "unit": "K"}, 0.0),
        ({"city": "Oslo", "days": 0}, 0.0),
        ({"city": "Oslo", "days": "2"}, 0.0),
        ({"city": "Oslo", "country": "NO"}, 0.0),
    ],
)
def test_arguments_are_held_against_the_schema_of_their_tool(arguments, fit):
    assert call_values([OSLO], [ToolCall("get_weather", arguments)])["schema"] == fit


def test_a_tool_that_is_not_offered_breaks_every_schema():
    assert call_values([OSLO], [ToolCall("rocket", {})])["schema"] == 0.0


@pytest.mark.parametrize(
    "parameters",
    [None, {}, {"city": "string. Required."}, {"type": "object", "properties": {"a": 5}}, "text"],
)
def test_a_schema_that_is_none_checks_nothing(parameters):
    spec = ToolSpec("get_weather", parameters=parameters)
    assert call_values([OSLO], [OSLO], [spec])["schema"] is None
    assert tool_schema.misfit(spec, {"x": 1}) == ""


def test_a_schema_fetches_nothing_and_its_patterns_end():
    away = {"type": "object", "properties": {"a": {"$ref": "file:///etc/passwd"}}}
    with pytest.raises(tool_schema.BadSchema, match="refers to something outside itself"):
        tool_schema.misfit(ToolSpec("t", parameters=away), {"a": 1})
    assert (
        call_values([OSLO], [ToolCall("t", {"a": 1})], [ToolSpec("t", parameters=away)])["schema"]
        is None
    )
    slow = {"type": "object", "properties": {"a": {"pattern": "^(a|aa)+$"}}}
    assert tool_schema.misfit(ToolSpec("t", parameters=slow), {"a": "a" * 60 + "b"})


def test_several_calls_are_right_in_any_order_but_not_too_often():
    bergen = ToolCall("get_weather", {"city": "Bergen"})
    assert call_values([OSLO, bergen], [bergen, OSLO])["exact"] == 1.0
    assert call_values([OSLO, bergen], [OSLO, OSLO])["exact"] == 0.0
    assert call_values([OSLO], [OSLO, OSLO])["tool"] == 0.0


# ---- many


def test_shares_have_wilson_intervals():
    figure = figure_of([Score(1)] * 95 + [Score(0)] * 5)
    assert (round(figure.low, 4), round(figure.high, 4)) == (0.8882, 0.9785)
    assert (figure.value, figure.number) == (0.95, 100)


def test_what_did_not_count_is_left_out():
    assert figure_of([Score(0, 0)]) is None and figure_of([]) is None
    assert figure_of([Score(1), Score(0, 0)]).number == 1


def test_parts_of_wholes_are_added_up_and_the_interval_holds_the_share():
    figure = figure_of([Score(2, 3), Score(0, 1), Score(1, 4), Score(3, 3)])
    assert figure.value == pytest.approx(6 / 11)
    assert 0 <= figure.low < figure.value < figure.high <= 1
    assert figure == figure_of([Score(2, 3), Score(0, 1), Score(1, 4), Score(3, 3)])
