"""The built-in tools: right answers, in the shapes the embedded model learnt, and attacks."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from finetune.pretrain import simulate
from finetune.pretrain.words import lists
from glm.cancel import Cancel
from glm.errors import ToolError
from glm.messages import ToolCall
from tests.uploaded import GOODS, SALES, store
from tools import builtin
from tools.builtin.calculator import calculator
from tools.builtin.convert_unit import convert_unit, units
from tools.builtin.get_time import time_at
from tools.builtin.get_weather import get_weather
from tools.builtin.query_table import query_table
from tools.builtin.random_number import random_number
from tools.builtin.read_file import read_file
from tools.builtin.search_files import search_files
from tools.places import zone_of
from tools.registry import Context, Registry

ROOT = Path(__file__).resolve().parent.parent
NOON = datetime(2026, 7, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
def sales(tmp_path):
    return store(tmp_path, {"sales.csv": SALES, "销售.csv": GOODS, "notes.txt": "hello"})


def no_network(address: str) -> tuple[int, str]:
    raise OSError("offline")


# ---- all together ------------------------------------------------------------------------------


def test_the_tools_come_in_the_order_of_their_specifications():
    assert tuple(tool.spec for tool in builtin.TOOLS) == builtin.SPECS
    policies = {tool.name: tool.policy for tool in builtin.TOOLS}
    assert policies.pop("get_weather") == "ask"
    assert set(policies.values()) == {"allow"}


def test_specifications_are_read_without_the_libraries_of_the_tools():
    code = (
        "import tools.builtin, sys; tools.builtin.SPECS;"
        "print([m for m in ('jsonschema', 'requests', 'sqlite3', 'zoneinfo') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_every_tool_runs_through_the_registry(sales, tmp_path, monkeypatch):
    monkeypatch.setattr("tools.builtin.get_weather._get", no_network)
    context = Context("anna", "c1", tmp_path, sales)
    box = Registry(builtin.TOOLS).toolbox([spec.name for spec in builtin.SPECS], context)
    calls = {
        "get_weather": {"city": "Paris"},
        "calculator": {"expression": "6*7"},
        "get_time": {"place": "东京"},
        "convert_unit": {"value": 1, "from_unit": "km", "to_unit": "m"},
        "random_number": {"low": 3, "high": 3},
        "search_files": {"query": "Anna"},
        "read_file": {"name": "notes.txt"},
        "query_table": {"sql": "SELECT COUNT(*) FROM sales"},
    }
    results = {name: box.call(ToolCall(name, given), Cancel()) for name, given in calls.items()}
    assert not [result.text for result in results.values() if result.error]
    assert results["calculator"].text == "42"
    assert results["read_file"].text == "hello"
    assert results["query_table"].table.rows == ((3,),)


@pytest.mark.parametrize("name", [spec.name for spec in builtin.SPECS])
def test_answers_have_the_keys_the_model_learnt(name, sales, monkeypatch):
    """Same JSON keys in the same order as the observations of the training dialogues."""
    monkeypatch.setattr("tools.builtin.get_weather._get", no_network)
    real = {
        "get_weather": lambda: get_weather("Paris"),
        "calculator": lambda: calculator("1 / 3"),
        "get_time": lambda: time_at("Paris", NOON),
        "convert_unit": lambda: convert_unit(1, "km", "m"),
        "random_number": lambda: random_number(1, 6),
        "search_files": lambda: search_files("Anna", sales).text,
        "read_file": lambda: read_file("notes.txt", sales),
        "query_table": lambda: query_table("SELECT name FROM sales", sales).text,
    }[name]()
    given = {
        "get_weather": {"city": "Paris"},
        "calculator": {"expression": "1 / 3"},
        "get_time": {"place": "Paris"},
        "convert_unit": {"value": 1, "from_unit": "km", "to_unit": "m"},
        "random_number": {"low": 1, "high": 6},
        "search_files": {"query": "Anna"},
        "read_file": {"name": "notes.txt"},
        "query_table": {"sql": "SELECT name FROM sales"},
    }[name]
    learnt = [simulate.observe(name, given, seed) for seed in range(40)]
    learnt = [text for text in learnt if not text.startswith(("Error", "nothing"))]
    assert shape(real) in {shape(text) for text in learnt}
    assert simulate.values(name, real)


def shape(text: str) -> object:
    """The keys of a JSON answer and of the first object in a list; str for plain text."""
    try:
        data = json.loads(text)
    except ValueError:
        return "text"
    data = data[0] if isinstance(data, list) else data
    return tuple(data) if isinstance(data, dict) else "text"


# ---- calculator --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("2 * (3 + 4)", "14"),
        ("12×3÷4", "9"),
        ("2^10", "1024"),
        ("2 ** 0.5", "1.414214"),
        ("17 % 5", "2"),
        ("100 * 15%", "15"),
        ("1,200 + 1", "1201"),
        ("7 / 2", "3.5"),
        ("-3 + +5", "2"),
        ("5 − 8", "-3"),
        ("（1＋2）×3", "9"),
        ("5² + √16", "29"),
        ("3 * 4 = ?", "12"),
        ("0.1 + 0.2", "0.3"),
        ("1 / 3000", "0.0003333"),
        ("sqrt(2) * pi", "4.442883"),
        ("max(1, 2, 3)", "3"),
        ("factorial(5)", "120"),
        ("2 ** -2", "0.25"),
        ("10 ** 20", "1" + "0" * 20),
    ],
)
def test_arithmetic(expression, value):
    assert calculator(expression) == value


def test_the_calculator_agrees_with_what_the_model_was_trained_on():
    rng = random.Random(7)
    for _ in range(500):
        terms = [rng.choice([str(rng.randint(1, 999)), f"{rng.uniform(0, 99):.2f}"]) for _ in "abc"]
        signs = [rng.choice(["+", " - ", "*", " / ", "×", " ÷ ", "%"]) for _ in "ab"]
        text = f"{terms[0]}{signs[0]}({terms[1]}{signs[1]}{terms[2]})"
        learnt = simulate.observe("calculator", {"expression": text})
        if not learnt.startswith("Error"):
            assert calculator(text) == learnt, text


@pytest.mark.parametrize(
    "bomb",
    [
        "9**9**9",
        "9**9**9**9",
        "10**400",
        "(10**300)**2**9",
        "1e308*10",
        "9999999**99999999",
        "factorial(100000)",
        "factorial(170)**40",
        "*".join(["10**60"] * 20),
        "1e999",
        "exp(10**9)",
    ],
)
def test_huge_results_are_refused_at_once(bomb):
    with pytest.raises(ToolError, match="too large"):
        calculator(bomb)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('touch canary')",
        "().__class__.__bases__[0].__subclasses__()",
        "open('/etc/passwd').read()",
        "(lambda: 1)()",
        "[x for x in (1, 2)]",
        "'a' * 9",
        "True + True",
        "1 if 2 else 3",
        "2j ** 2",
        "(-8) ** 0.5",
        "x + 1",
        "sqrt(-1)",
        "abs(*[1])",
        "1 < 2",
        "one plus two",
        "1; 2",
        "abs",
        "\0",
        "(" * 400 + "1" + ")" * 400,
        "-" * 900 + "1",
    ],
)
def test_nothing_but_arithmetic_is_evaluated(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if text.startswith("-"):
        assert calculator(text) in ("1", "-1")
    else:
        with pytest.raises(ToolError, match="not an arithmetic expression"):
            calculator(text)
    assert not list(tmp_path.iterdir())


def test_division_by_zero_and_endless_expressions_are_named():
    with pytest.raises(ToolError, match=r"^division by zero$"):
        calculator("1 / (2 - 2)")
    with pytest.raises(ToolError, match="longer than"):
        calculator("1+" * 1000 + "1")


# ---- get_time ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "time", "zone"),
    [
        ("Tokyo", "2026-07-01 21:00", "Asia/Tokyo"),
        ("new york", "2026-07-01 08:00", "America/New_York"),
        ("北京", "2026-07-01 20:00", "Asia/Shanghai"),
        ("上海市", "2026-07-01 20:00", "Asia/Shanghai"),
        ("São Paulo", "2026-07-01 09:00", "America/Sao_Paulo"),
        ("Paris, France", "2026-07-01 14:00", "Europe/Paris"),
        ("asia/kolkata", "2026-07-01 17:30", "Asia/Kolkata"),
        ("UTC+8", "2026-07-01 20:00", "UTC+8"),
        ("GMT-3:30", "2026-07-01 08:30", "UTC-3:30"),
        ("东八区", "2026-07-01 20:00", "UTC+8"),
        ("EST", "2026-07-01 07:00", "EST"),
        ("the UK", "2026-07-01 13:00", "Europe/London"),
        ("美国东部", "2026-07-01 08:00", "America/New_York"),
        ("UTC", "2026-07-01 12:00", "UTC"),
    ],
)
def test_the_time_of_a_place(place, time, zone):
    assert json.loads(time_at(place, NOON)) == {"place": place, "time": time, "zone": zone}


@pytest.mark.parametrize("name", ["city_en", "city_zh", "country_en", "country_zh", "zone"])
def test_every_real_place_of_the_training_dialogues_has_a_zone(name):
    assert [place for place in lists()[name] if zone_of(place) is None] == []


@pytest.mark.parametrize(
    "place",
    ["Atlantis", "../../etc/passwd", "UTC+99", "localtime", "/usr/share", "x" * 10**6, "。"],
)
def test_an_unknown_place_is_an_error(place):
    with pytest.raises(ToolError, match="unknown place"):
        time_at(place, NOON)


# ---- random_number -----------------------------------------------------------------------------


def test_a_random_number_lies_between_its_bounds_and_both_happen():
    assert {int(random_number(1, 2)) for _ in range(200)} == {1, 2}
    assert random_number(-5, -5) == "-5"


@pytest.mark.parametrize(
    ("low", "high", "why"),
    [(5, 2, "low 5 is greater than high 2"), (True, 2, "whole"), (1, 10**400, "18 digits")],
)
def test_bounds_that_make_no_sense_are_refused(low, high, why):
    with pytest.raises(ToolError, match=why):
        random_number(low, high)


# ---- convert_unit ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "source", "target", "result"),
    [
        (72, "°F", "°C", 22.222),
        (100, "华氏度", "摄氏度", 37.778),
        (-40, "celsius", "Fahrenheit", -40),
        (3, "miles", "feet", 15840),
        (1, "吨", "斤", 2000),
        (5, "小时", "分钟", 300),
        (1, "square kilometre", "sq metres", 1000000),
        (2, "degrees Celsius", "Fahrenheit", 35.6),
        (1, "㎡", "平方英尺", 10.764),
        (10, "kWh", "kJ", 36000),
        (1, "GB", "MB", 1024),
    ],
)
def test_units_in_both_languages(value, source, target, result):
    assert json.loads(convert_unit(value, source, target)) == {"value": result, "unit": target}


def test_units_agree_with_what_the_model_was_trained_on():
    rng, table = random.Random(3), simulate.unit_table()
    for _ in range(2000):
        source, target = rng.choice(list(table)), rng.choice(list(table))
        given = {"value": rng.randint(1, 500), "from_unit": source, "to_unit": target}
        learnt = simulate.observe("convert_unit", given)
        if table[source][0] == table[target][0]:
            assert convert_unit(*given.values()) == learnt
        else:
            with pytest.raises(ToolError, match=re.escape(learnt.removeprefix("Error: "))):
                convert_unit(*given.values())


def test_a_spelling_means_one_unit():
    kinds = json.loads((ROOT / "tools/data/units.json").read_text(encoding="utf-8"))
    words = [
        word for rows in kinds.values() for _, *lists_ in rows for some in lists_ for word in some
    ]
    assert len(words) == len(set(words)) == len(units())


@pytest.mark.parametrize(
    ("value", "source", "target", "why"),
    [
        (1, "parrots", "m", "unknown unit 'parrots'"),
        (1, "m**9999999", "m", "unknown unit"),
        (1, "kg", "m", "cannot convert kg to m"),
        (-300, "°C", "K", "absolute zero"),
        (float("inf"), "m", "km", "30 digits"),
        (10**400, "m", "km", "number"),
        (1, " ", "km", "'from_unit' is missing"),
    ],
)
def test_what_cannot_be_converted_is_an_error(value, source, target, why):
    with pytest.raises(ToolError, match=re.escape(why)):
        convert_unit(value, source, target)
