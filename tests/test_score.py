"""The frozen scoring set keeps its shape; the scorer counts what a scripted model does."""

import hashlib
import json
import re
from collections import Counter

import pytest

from finetune.pretrain import frozen, score
from finetune.pretrain.figures import counts, fractions, table, wilson
from finetune.pretrain.judge import canonical, misfit, observe, same_arguments
from glm.checkpoint.recognise import EMBEDDED
from glm.messages import Call, Finish, Malformed, Message, Text, ToolCall

ROWS = frozen.rows()
BY_TEXT = {row["user"]: row for row in ROWS}
DUE = [row for row in ROWS if row["call"]]


def say(text, reason="stop"):
    return [Text(text), Finish(reason, Message("assistant", text))]


def call(name, arguments):
    made = ToolCall(name, arguments)
    return [Call(made), Finish("calls", Message("assistant", "", calls=(made,)))]


def perfect(conversation):
    """Makes the row's call, then repeats the observation; says hello where no tool fits."""
    last = conversation.messages[-1]
    if last.role == "tool":
        return say(last.content)
    row = BY_TEXT[last.content]
    return call(**row["call"]) if row["call"] else say("Hello.")


def figures(model, rows=ROWS):
    return fractions(score.score(rows, model))


# ---- the set


def test_the_frozen_set_is_the_one_that_was_frozen():
    digest = hashlib.sha256(frozen.FILE.read_bytes().replace(b"\r\n", b"\n")).hexdigest()
    assert digest == score.FROZEN_SHA256


def test_the_parts_have_their_sizes_and_every_row_its_own_id_and_sentence():
    sizes = Counter(row["part"] for row in ROWS)
    assert sizes == {"builtin": 250, "unseen": 150, "handwritten": 100}
    assert len({row["id"] for row in ROWS}) == len({frozen.normal(r["user"]) for r in ROWS}) == 500


@pytest.mark.parametrize("part", ["builtin", "unseen", "handwritten"])
def test_each_language_has_two_fifths_and_no_tool_fits_in_a_quarter(part):
    rows = [row for row in ROWS if row["part"] == part]
    assert all(n >= 0.4 * len(rows) for n in Counter(r["language"] for r in rows).values())
    assert 0.24 <= sum(row["call"] is None for row in rows) / len(rows) <= 0.26
    for row in rows:
        assert bool(re.search("[\u4e00-\u9fff]", row["user"])) == (row["language"] == "zh"), row


def test_the_builtin_part_asks_each_tool_as_often():
    asked = Counter(r["call"]["name"] for r in DUE if r["part"] == "builtin")
    assert len(asked) == 8 and max(asked.values()) - min(asked.values()) <= 1


def test_gold_calls_fit_the_schemas_of_the_tools_offered():
    for row in DUE:
        spec = next(t for t in score.offered(row) if t.name == row["call"]["name"])
        for arguments in (row["call"]["arguments"], *row.get("accept", ())):
            assert misfit(arguments, spec.parameters) == "", row["id"]


def test_one_to_five_other_tools_with_observations_that_hold_their_values():
    for row in ROWS:
        if row["tools"] != "builtin":
            assert 1 <= len({tool["name"] for tool in row["tools"]}) == len(row["tools"]) <= 5
            assert all(value in row["observation"] for value in row.get("values", ()))
            assert bool(row["call"]) == bool(row.get("values"))


def test_sentences_of_the_set_are_found_in_other_case_and_punctuation():
    assert frozen.normal("  ROLL a die,\nfor me!") in frozen.frozen_texts()


# ---- the scorer


def test_a_perfect_model_scores_one_everywhere():
    ones = dict.fromkeys(("tool", "arguments", "answer", "abstain"), 1.0)
    assert figures(perfect) == {"builtin": ones, "unseen": ones, "handwritten": ones}


def test_a_model_that_never_calls_only_abstains():
    got = figures(lambda conversation: say("I cannot."))
    assert got["unseen"] == {"tool": 0.0, "arguments": 0.0, "answer": 0.0, "abstain": 1.0}


def test_a_model_that_always_calls_never_abstains():
    got = figures(lambda c: perfect(c) if c.messages[-1].role == "tool" else call("get_time", {}))
    assert got["builtin"]["abstain"] == 0.0 and got["builtin"]["tool"] < 0.2


@pytest.mark.parametrize(
    "ending",
    [
        [Malformed("get_time", "tool_call(", "cut"), Finish("stop", Message("assistant", "x"))],
        say("cut in the mid", reason="length"),
        say("  "),
        [Finish("error", Message("assistant"), error="broken")],
    ],
    ids=["malformed", "cut", "empty", "failed"],
)
def test_what_is_malformed_cut_empty_or_failed_is_wrong_everywhere(ending):
    zeros = dict.fromkeys(("tool", "arguments", "answer", "abstain"), 0.0)
    assert figures(lambda conversation: ending)["builtin"] == zeros


def test_a_right_tool_with_wrong_arguments_may_still_tell_its_own_result():
    def careless(conversation):
        last = conversation.messages[-1]
        row = BY_TEXT.get(last.content)
        if last.role == "tool" or not row["call"]:
            return perfect(conversation)
        wrong = {k: v + "x" if isinstance(v, str) else v + 1 for k, v in gold(row).items()}
        return call(row["call"]["name"], wrong)

    got = figures(careless)["unseen"]
    assert (got["tool"], got["arguments"], got["answer"]) == (1.0, 0.0, 1.0)


def test_an_answer_without_the_observed_values_is_wrong():
    def vague(conversation):
        tool = conversation.messages[-1].role == "tool"
        return say("Done, have a look.") if tool else perfect(conversation)

    got = figures(vague)["handwritten"]
    assert got["tool"] == 1.0 and got["answer"] < 0.05


def test_a_tool_that_is_not_offered_counts_as_wrong_and_is_never_observed():
    results = score.score(DUE, lambda conversation: call("launch_rocket", {}))
    assert not any(any(r.verdict.values()) or r.observed or r.second for r in results)


def test_two_calls_where_one_is_asked_for_are_wrong():
    both = (ToolCall("get_time", {"place": "UTC"}), ToolCall("get_weather", {"city": "Oslo"}))
    events = [Finish("calls", Message("assistant", "", calls=both))]
    assert figures(lambda conversation: events)["builtin"]["tool"] == 0.0


def gold(row):
    return row["call"]["arguments"]


@pytest.mark.parametrize(
    ("key", "one", "other", "same"),
    [
        ("value", 5, 5.0, True),
        ("value", 5, "5", False),
        ("value", 1, True, False),
        ("city", " Oslo ", "Oslo", True),
        ("city", "oslo", "Oslo", False),
        ("expression", "12*7", "12 * 7", True),
        ("expression", "12*7", "7*12", False),
        ("sql", "select  a from t where b='X y'", "SELECT a FROM t WHERE b = 'X y';", True),
        ("sql", "SELECT A FROM t", "SELECT a FROM t", False),
        ("sql", "SELECT a FROM t WHERE b = 'x y'", "SELECT a FROM t WHERE b = 'xy'", False),
    ],
)
def test_arguments_are_equal_when_they_mean_the_same(key, one, other, same):
    assert (canonical({key: one}) == canonical({key: other})) is same


def test_another_accepted_form_of_the_arguments_is_right():
    row = next(row for row in DUE if row.get("accept"))
    assert all(same_arguments(row, other) for other in row["accept"])


def test_a_number_is_not_found_inside_a_longer_number():
    row = next(r for r in DUE if r["user"] == "Take 468 away from 1201.")

    def answering(text):
        def model(conversation):
            return say(text) if conversation.messages[-1].role == "tool" else call(**row["call"])

        return figures(model, [row])["builtin"]["answer"]

    assert [answering(t) for t in ("It is 733.", "733", "It is 7330", "-733", "733.5")] == [
        1.0,
        1.0,
        0.0,
        0.0,
        0.0,
    ]


def test_the_observation_of_a_wrong_call_has_other_digits_and_the_calls_own_words():
    row = next(r for r in DUE if r["call"]["name"] == "track_parcel")
    made = ToolCall("track_parcel", {"code": "ABC"})
    first, again = (observe(row, made, score.offered(row), ROWS) for _ in range(2))
    assert first == again
    assert all(value in first.text for value in first.values)
    bad = observe(row, ToolCall("track_parcel", {"where": 1}), score.offered(row), ROWS)
    assert bad.text == "Error: the argument 'code' is missing" and bad.values[0] in bad.text


def test_wilson_intervals_are_those_of_the_textbook():
    low, high = wilson(95, 100)
    assert (round(low, 4), round(high, 4)) == (0.8882, 0.9785)
    assert wilson(0, 0) == (0.0, 1.0) and wilson(10, 10)[1] == pytest.approx(1.0)


def test_the_table_names_parts_languages_numbers_of_tools_and_builtin_tools():
    text = table(score.score(score.select(None, 40), perfect))
    for label in ("builtin, zh", "unseen, 3 tools", "handwritten", "builtin, get_time"):
        assert re.search(rf"^{label}\s+\d+ .*1\.000 \[", text, re.MULTILINE), label


def test_rows_can_be_limited_and_the_json_then_holds_only_the_part_asked():
    rows = score.select("unseen", 7)
    results = score.score(rows, perfect)
    assert len(rows) == 7 and list(fractions(results)) == ["unseen"]
    assert sum(counts(results, m)[1] for m in ("tool", "abstain")) == 7


def test_a_model_that_is_not_there_gives_a_sentence(capsys):
    assert score.main(["--model", "/nowhere/at/all"]) == 1
    assert "/nowhere/at/all" in capsys.readouterr().err


def test_constrained_figures_stand_beside_the_free_ones():
    rows = score.select("unseen", 9)
    free = score.score(rows, lambda conversation: say("I cannot."))
    bound = score.score(rows, perfect)
    assert score.as_json(free, []) == fractions(free)
    assert score.as_json(free, bound) == {**fractions(free), "constrained": fractions(bound)}
    lines = table(free, bound).splitlines()
    at = next(i for i, line in enumerate(lines) if re.match(r"unseen\s+9 ", line))
    assert "0.000 [" in lines[at]
    assert re.match(r"  constrained\s+9  1\.000 \[", lines[at + 1])
    assert "constrained" not in table(free)


def test_the_committed_weights_are_scored_end_to_end(tmp_path, capsys):
    if not (EMBEDDED / "model.safetensors").exists():
        return
    assert score.main(["--limit", "2", "--json", str(tmp_path / "out.json")]) == 0
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(last) == ["builtin", "unseen", "handwritten", "constrained"]
    assert list(last["constrained"]) == ["builtin", "unseen", "handwritten"]
    assert json.loads((tmp_path / "out.json").read_text()) == last
    assert score.main(["--limit", "2", "--part", "unseen", "--free-only"]) == 0
    assert list(json.loads(capsys.readouterr().out.splitlines()[-1])) == ["unseen"]
