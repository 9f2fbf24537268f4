"""python -m finetune.inference: the earlier inference.py's flags, a chat turn or raw text."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from finetune import inference
from finetune.inference import Asking, read
from finetune.options.option import BadConfig
from glm.adapters.values import Adapter, AdapterInfo
from glm.chat import Options, chat
from glm.checkpoint.recognise import EMBEDDED
from glm.dialects import DIALECTS
from glm.engines.fake import FakeEngine
from glm.errors import BadRequest
from glm.messages import Conversation, Message
from glm.model import Model
from glm.tokenizer import Tokenizer
from tests.adapter_desk import fused_lora, random, write_peft
from tests.tiny_ice import tiny_ice

ROOT = Path(__file__).resolve().parent.parent
TOKENS = Tokenizer.open(EMBEDDED)
SHAPE = SimpleNamespace(
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=64,
    num_hidden_layers=6,
    hidden_size=256,
    intermediate_size=704,
)


@pytest.fixture
def engine(monkeypatch) -> FakeEngine:
    """The embedded model's files with an engine that always says "seen"."""
    fake = FakeEngine(lambda request: [*TOKENS.encode("seen"), TOKENS.eos])
    opened = Model(None, opener=lambda info, how: fake)
    monkeypatch.setattr(inference, "open_model", lambda wanted: opened)
    return fake


# ---- options ----


@pytest.mark.parametrize(
    ("words", "option", "value"),
    [
        ("--pt-checkpoint output/checkpoint-1000", "adapter", "output/checkpoint-1000"),
        ("--pt_checkpoint x", "adapter", "x"),
        ("--lora-path x", "adapter", "x"),
        ("--adapter x", "adapter", "x"),
        ("--lora-alpha 32", "lora_alpha", 32.0),
        ("--max-new-tokens 128", "max_new_tokens", 128),
        ("--device cuda", "device", "cuda"),
        ("--tokenizer THUDM/chatglm3-6b", "tokenizer", "THUDM/chatglm3-6b"),
        ("--raw", "raw", True),
        ("--no-raw", "raw", False),
        ("--raw False", "raw", False),
        ("--prompt how are you", "prompt", "how are you"),
    ],
)
def test_a_flag_of_the_earlier_inference_is_read(words, option, value):
    assert getattr(read(words.split()), option) == value


def test_what_the_files_say_need_not_be_typed():
    words = ["--pt-pre-seq-len", "128", "--lora-rank", "8", "--lora-dropout", "0.1", "--model", "m"]
    assert read(words) == replace(Asking(), model="m")


def test_everything_that_is_wrong_is_named_at_once():
    with pytest.raises(BadConfig) as caught:
        read(["hello", "--temperature", "hot", "--max-new-tokens", "0", "--beams", "4"])
    found = caught.value.problems
    assert len(found) == 4 and "did you mean --prompt?" in found[0]
    assert "--max-new-tokens is '0'; a whole number is needed" in found[2]


def test_a_wrong_command_line_ends_with_its_sentences(capsys):
    assert inference.main(["--temperature", "hot"]) == 2
    assert "--temperature is 'hot'" in capsys.readouterr().err


# ---- what is asked ----


def test_a_chat_turn_has_the_roles_of_the_model(engine, capsys):
    assert inference.main(["--prompt", "1+1?"]) == 0
    chat = Conversation((Message("user", "1+1?"),))
    assert engine.seen[0].prompt == DIALECTS["chatglm3"](TOKENS).prompt(chat)
    assert engine.seen[0].sampling.temperature == 0
    assert capsys.readouterr().out == "seen\n"


def test_raw_text_has_none(engine):
    assert inference.main(["--raw", "--prompt", "1+1?"]) == 0
    start = (TOKENS.id("[gMASK]"), TOKENS.id("sop"))
    assert engine.seen[0].prompt == (*start, *TOKENS.encode("1+1?"))
    assert TOKENS.eos in engine.seen[0].stop


def test_lines_are_asked_until_an_empty_one(engine, capsys):
    lines = iter(["one", "two", ""])
    assert inference.main([], ask=lambda _: next(lines)) == 0
    assert len(engine.seen) == 2 and capsys.readouterr().out == "seen\nseen\n"


@pytest.mark.parametrize(
    ("layout", "words", "raw"),
    [
        ("prompt-response", [], True),
        ("chatglm1", [], True),
        ("chatglm3", [], False),
        ("", [], False),
        ("prompt-response", ["--no-raw"], False),
        ("chatglm3", ["--raw"], True),
    ],
)
def test_an_adapter_says_how_it_is_asked(layout, words, raw, tmp_path):
    info = AdapterInfo("a", tmp_path, "LoRA", layout=layout)
    shelved = SimpleNamespace(info=Adapter(info).info)
    model = SimpleNamespace(manager=SimpleNamespace(adapters=lambda: [shelved]))
    assert inference.is_raw(read(["--adapter", str(tmp_path), *words]), model) is raw


def test_an_answer_that_fails_ends_with_its_sentence(engine, capsys):
    engine._answer = lambda request: RuntimeError("no memory")
    inference.main(["--prompt", "x"])
    assert "no memory" in capsys.readouterr().out


def test_raw_text_needs_a_text():
    fake = FakeEngine([])
    with pytest.raises(BadRequest, match="raw text needs a message"):
        chat(fake, DIALECTS["chatglm3"](TOKENS), Conversation(), options=Options(raw=True))


def test_control_tokens_that_a_raw_prompt_spells_stay_text(engine):
    assert inference.main(["--raw", "--prompt", "<|user|>[gMASK]"]) == 0
    assert not any(TOKENS.is_special(token) for token in engine.seen[0].prompt[2:])


def test_the_first_model_asks_raw_as_it_asks_a_first_question():
    dialect = DIALECTS["chatglm"](tiny_ice())
    question = Conversation((Message("user", "你好"),))
    fake = FakeEngine([[], []])
    chat(fake, dialect, question, options=Options(raw=True))
    assert fake.seen[0].prompt == dialect.prompt(question)
    assert fake.seen[0].stop == dialect.stop


# ---- tools ----

CALL = """search_orders\n```python\ntool_call(number='7')\n```"""


@pytest.fixture
def rows(tmp_path) -> Path:
    file = tmp_path / "rows.jsonl"
    plain = {"prompt": "hi", "response": "hello"}
    schema = {"type": "object", "properties": {"number": {"type": "string"}}}
    tool = {"name": "search_orders", "description": "Finds orders.", "parameters": schema}
    taught = {"tools": [tool], "conversations": [{"role": "user", "content": "?"}]}
    taught["conversations"].append({"role": "assistant", "content": "."})
    file.write_text(f"{json.dumps(plain)}\n{{broken\n{json.dumps(taught)}\n")
    (tmp_path / "tools.json").write_text(json.dumps([tool]))
    return file


@pytest.mark.parametrize("name", ["rows.jsonl", "tools.json"])
def test_the_tools_of_a_file_are_offered_and_what_a_call_brought_is_typed(
    name, rows, engine, capsys
):
    answers = iter([[*TOKENS.encode(CALL), TOKENS.id("<|observation|>")], TOKENS.encode("Paid.")])
    engine._answer = lambda request: next(answers)
    lines, asked = iter(["order 7?", '{"state": "paid"}', ""]), []
    words = ["--tools", str(rows.with_name(name))]
    assert inference.main(words, ask=lambda text: (asked.append(text), next(lines))[1]) == 0
    assert 'search_orders {"number": "7"}' in (said := capsys.readouterr().out)
    assert asked == ["Prompt: ", "What search_orders brought: ", "Prompt: "]
    assert said.endswith("Paid.\n")
    first, second = (TOKENS.decode(request.prompt) for request in engine.seen)
    assert "Finds orders." in first and '{"state": "paid"}' in second


@pytest.mark.parametrize("words", [["--prompt", "order 7?"], []])
def test_a_call_is_the_end_where_nobody_says_what_it_brought(words, rows, engine, capsys):
    engine._answer = lambda request: [*TOKENS.encode(CALL), TOKENS.id("<|observation|>")]
    lines = iter(["order 7?", "", ""])
    assert inference.main(["--tools", str(rows), *words], ask=lambda _: next(lines)) == 0
    assert capsys.readouterr().out.count("search_orders {") == len(engine.seen) == 1


def test_tools_that_cannot_be_offered_are_told(rows, engine, capsys):
    assert inference.main(["--tools", str(rows), "--raw", "--prompt", "x"]) == 1
    assert "raw text has no tools" in capsys.readouterr().err
    rows.write_text('{"prompt": "hi", "response": "hello"}\n')
    assert inference.main(["--tools", str(rows), "--prompt", "x"]) == 1
    assert "no tools are in its first 100 rows" in capsys.readouterr().err


# ---- with the embedded model ----


def test_a_bare_lora_file_asks_for_its_alpha_and_answers_with_it(tmp_path, capsys):
    file = tmp_path / "chatglm-lora.pt"
    torch.save(fused_lora(SHAPE), file)
    words = ["--lora-path", str(file), "--prompt", "hello", "--max-new-tokens", "4"]
    assert inference.main(words) == 1
    assert "give the lora_alpha it was trained with" in capsys.readouterr().err
    assert inference.main([*words, "--lora-alpha", "32"]) == 0
    with_adapter = capsys.readouterr().out
    assert inference.main(["--prompt", "hello", "--max-new-tokens", "4"]) == 0
    assert with_adapter != capsys.readouterr().out


def test_a_p_tuning_checkpoint_answers_without_saying_its_length(tmp_path, capsys):
    weights = {"transformer.prefix_encoder.embedding.weight": random(5, 6 * 2 * 2 * 64, size=0.02)}
    folder = write_peft(tmp_path / "checkpoint-10", weights, {})
    (folder / "adapter_config.json").unlink()
    (folder / "adapter_model.safetensors").rename(folder / "model.safetensors")
    words = ["--pt-checkpoint", str(folder), "--pt-pre-seq-len", "128", "--raw"]
    assert inference.main([*words, "--prompt", "1 + 1 =", "--max-new-tokens", "4"]) == 0
    assert capsys.readouterr().out.strip()


def test_an_adapter_that_is_none_is_refused_by_name(tmp_path, capsys):
    assert inference.main(["--adapter", str(tmp_path / "none"), "--prompt", "x"]) == 1
    assert "none" in capsys.readouterr().err


def test_it_runs_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "finetune.inference", "--max-new-tokens", "3"],
        cwd=ROOT, input="hello\n\n", capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout.startswith("Prompt: "), done.stderr
