"""Real data files of the earlier systems, and a row of every format: looked over, trained on.

The real ones lie beside the checkout (../shared/data) or there are none. What each format means
is in test_formats.py; here each runs for two steps with the format told from the file.
"""

from __future__ import annotations

import json

import pytest

from finetune import doctor, evaluate
from finetune.formats import FORMATS
from tests.format_rows import ROWS
from tests.shared_files import SHARED
from tests.training import measured, train

pytestmark = pytest.mark.slow
DATA = SHARED / "data"
FEW = ("--max-steps", "2", "--log-interval", "1", "--lr", "1e-3", "--warmup-ratio", "0")
CUT = ("--max-rows", "12", "--overlong", "truncate", "--accumulation", "1", "--preview", "2")

# file -> (its format, the doctor's exit code)
FILES = {
    "advertisegen/AdvertiseGen_fix_dev.json": ("chatglm3", 1),
    "advertisegen/dev_original_BobCN2017_dev0.json": ("advertise-gen", 1),
    "alpaca/alpaca_gpt4_data_zh_small.json": ("alpaca", 1),
    "chatglm3/alpaca_data.jsonl": ("context-target", 1),
    "chatglm3/lucksoft_tool_alpaca.jsonl": ("chatglm3", 1),
    "firefly/dummy_data.jsonl": ("firefly", 1),
    "firefly/dummy_data_chatglm3.jsonl": ("chatglm3", 1),
    "firefly/dummy_dpo.jsonl": ("chosen-rejected", 1),
    "llamafactory/alpaca_zh_demo.json": ("alpaca", 1),
    "llamafactory/glaive_toolcall_en_demo.json": ("sharegpt", 2),
    "llamafactory/identity.json": ("alpaca", 1),
    "toolalpaca/eval_simulated.json": ("toolalpaca", 2),
    "toolalpaca/rebuilt_formatted_tool_alpaca.jsonl": ("chatglm3", 2),
    "toolalpaca/rebuilt_train_schema.json": ("toolalpaca", 2),
    "transformers_tasks/dataset.jsonl": ("context-target", 1),
    "transformers_tasks/mixed_dev_dataset.jsonl": ("context-target", 1),
    "transformers_tasks/mixed_train_dataset.jsonl": ("context-target", 1),
}


def trained(folder, file):
    long = ("--max-seq-length", "3072") if "toolalpaca" in str(file) else ()  # the tools alone
    assert train(folder, *FEW, *CUT, *long, rows=file) == 0
    assert set(measured(folder)) == {1, 2}
    assert "What is learnt" in (folder / "preview.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_the_earlier_systems_is_looked_over_and_trained_on(name, tmp_path, capsys):
    file, (form, code) = DATA / name, FILES[name]
    if not file.exists():
        return
    assert doctor.main([str(file), "--json"]) == code
    report = json.loads(capsys.readouterr().out)
    assert list(report["formats"]) == [form]
    trained(tmp_path / "x", file)


def test_no_file_of_the_earlier_systems_is_left_out():
    if DATA.exists():
        there = {str(file.relative_to(DATA)) for file in DATA.rglob("*.json*")}
        assert there == set(FILES)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "alpaca-sft"])
def test_a_row_of_every_format_is_trained_on(name, tmp_path):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(ROWS[name][0], ensure_ascii=False) + "\n" for _ in "123"))
    trained(tmp_path / "x", file)


@pytest.mark.parametrize(
    ("name", "figure"),
    [
        ("alpaca/alpaca_gpt4_data_zh_small.json", "rouge-l"),
        ("transformers_tasks/mixed_dev_dataset.jsonl", "item-f1"),
        ("toolalpaca/rebuilt_train_schema.json", "tool"),
        ("toolalpaca/eval_simulated.json", "exact"),
    ],
)
def test_a_file_of_the_earlier_systems_is_scored(name, figure, tmp_path):
    if not (DATA / name).exists():
        return
    place = tmp_path / "report.json"
    words = ["assets/tiny", str(DATA / name), "--rows", "2", "--max-tokens", "8"]
    assert evaluate.main([*words, "--json", str(place)]) == 0
    assert figure in place.read_text(encoding="utf-8")
