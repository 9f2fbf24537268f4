"""The embedded model's workshop: generator, simulator, batches, training, export."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from finetune.pretrain import answers, asks, dialogues, simulate, talks
from finetune.pretrain import export as exporting
from finetune.pretrain import extend as extending
from finetune.pretrain.batches import Batches
from finetune.pretrain.decode import greedy
from finetune.pretrain.frozen import normal
from finetune.pretrain.grammar import Slot, expand, parse
from finetune.pretrain.model import Batch, Group, Head, Network, Shape
from finetune.pretrain.simulate import compute, observe, values
from finetune.pretrain.start import deepened, start
from finetune.pretrain.train import Run, train
from glm.checkpoint.recognise import EMBEDDED, recognise
from glm.load import load_model
from glm.messages import Conversation
from glm.tokenizer import Tokenizer
from tools.builtin import SPECS

SMALL = {"layers": 2, "width": 256, "heads": 4, "groups": 2, "head_width": 64, "ffn": 64}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.open(EMBEDDED)


@pytest.fixture(scope="module")
def small(tokenizer: Tokenizer) -> Network:
    net = Network(Shape(vocab=-(-tokenizer.size // 64) * 64, **SMALL))
    start(net, seed=1)
    return net.eval()


def test_a_skeleton_chooses_fills_and_closes_gaps():
    seen = {"".join(map(str, expand("[a|b|] c?", random.Random(i)))) for i in range(30)}
    assert seen == {"a c?", "b c?", "c?"}
    assert expand("in {city}?", random.Random(0)) == ["in ", Slot("city"), "?"]


def test_an_unbalanced_skeleton_is_refused():
    with pytest.raises(ValueError, match="unbalanced"):
        parse("[a|b")


@pytest.mark.parametrize(
    ("expression", "value"),
    [("3 * 4.50", 13.5), ("2 * (3 + 4)", 14), ("7 ÷ 2", 3.5), ("2^10", 1024), ("9 ** 0.5", 3)],
)
def test_the_simulated_calculator_computes(expression: str, value: float):
    assert compute(expression) == value


def test_the_simulated_calculator_runs_no_code():
    assert observe("calculator", {"expression": "__import__('os')"}).startswith("Error: ")


def test_units_are_converted():
    miles = json.loads(observe("convert_unit", {"value": 5, "from_unit": "km", "to_unit": "mile"}))
    assert miles == {"value": 3.107, "unit": "mile"}
    heat = json.loads(
        observe("convert_unit", {"value": 212, "from_unit": "°F", "to_unit": "摄氏度"})
    )
    assert heat["value"] == 100


@pytest.mark.parametrize("chinese", [False, True])
def test_every_answer_holds_the_values_of_its_observation(chinese: bool):
    rng = random.Random(1)
    for index in range(400):
        ask = asks.ask(rng.choice(dialogues.NAMES), chinese, rng, dev=index % 5 == 0)
        seen = observe(ask.tool, ask.arguments, index)
        said = answers.answer(ask.tool, ask.arguments, seen, chinese)
        assert all(value in said for value in values(ask.tool, seen)), (ask, seen, said)


def test_every_call_has_the_arguments_its_schema_requires():
    rng = random.Random(2)
    required = {spec.name: spec.parameters["required"] for spec in SPECS if spec.parameters}
    for tool in dialogues.NAMES:
        for index in range(100):
            ask = asks.ask(tool, index % 2 == 0, rng)
            assert list(ask.arguments) == required[tool]


def test_place_names_are_copied_from_the_sentence():
    rng = random.Random(3)
    for index in range(200):
        ask = asks.ask("get_weather", index % 2 == 0, rng)
        assert ask.arguments["city"] in ask.text


def test_dev_sentences_come_from_other_skeletons():
    for chinese in (False, True):
        for forms in asks.forms(chinese).values():
            for form in forms:
                assert not set(form.section.train) & set(form.section.dev)


def test_a_frozen_sentence_is_never_made(monkeypatch: pytest.MonkeyPatch):
    forbidden = frozenset({normal("hello"), normal("hi")})
    monkeypatch.setattr(dialogues, "frozen_texts", lambda: forbidden)
    writer = dialogues.Writer(random.Random(4))
    made = [m for _ in range(20) for d in writer.chat(20).dialogues for m in d]
    assert not any(m.role == "user" and normal(m.content) in forbidden for m in made)


def test_no_made_dialogue_calls_a_tool_that_is_not_offered():
    writer = dialogues.Writer(random.Random(5))
    for _ in range(30):
        for pack in (writer.some(4), writer.unseen(3), writer.chat(3)):
            offered = {tool.name for tool in pack.tools}
            calls = {call.name for d in pack.dialogues for m in d for call in m.calls}
            assert calls <= offered


def test_a_refused_request_is_answered_in_its_language():
    question, answer = talks.talk("cannot", True, random.Random(6))
    assert simulate.HANZI.search(question)
    assert simulate.HANZI.search(answer)


def test_the_tokenizer_gives_back_every_text_exactly(tokenizer: Tokenizer):
    rng = random.Random(7)
    texts = ["  two  spaces \n\n", 'a \n b\t{"x": "y"}', "I need a cup, so I will call Anna 😀\r\n"]
    texts += [asks.ask(tool, zh, rng).text for tool in dialogues.NAMES for zh in (False, True)]
    assert [tokenizer.decode(tokenizer.encode(text)) for text in texts] == texts


def test_the_built_in_tools_fit_into_few_tokens(tokenizer: Tokenizer):
    prompt = Batches(tokenizer).prompt(dialogues.Pack(SPECS, "", ()))
    assert len(prompt) < 360


def test_a_row_is_what_the_renderer_gives_and_learns_only_the_assistant(tokenizer: Tokenizer):
    batches = Batches(tokenizer)
    dialogue = dialogues.Writer(random.Random(8)).builtin(1).dialogues[0]
    ids, learn = batches.row(dialogue)
    pieces = list(batches.dialect.render(Conversation(dialogue)))
    assert ids[:-1] == [i for piece in pieces for i in piece.ids][2:-1]
    assert ids[-1] == tokenizer.id("<|user|>")
    user = batches.dialect.render(Conversation(dialogue[:1]))
    assert not any(learn[: sum(len(piece.ids) for piece in user) - 3])


def test_the_same_seed_gives_the_same_batch(tokenizer: Tokenizer):
    one, two = (Batches(tokenizer).make("9", 0.5) for _ in range(2))
    assert all(torch.equal(a.ids, b.ids) for a, b in zip(one.groups, two.groups, strict=True))


def test_a_shared_prompt_gives_what_separate_rows_give(small: Network):
    prompt, rows = torch.arange(10, 30), [torch.arange(40, 52), torch.arange(60, 72)]
    learn = torch.ones(2, 12, dtype=torch.bool)
    shared = Batch([prompt], [Group(0, torch.stack(rows), learn)])
    for index, row in enumerate(rows):
        whole = Batch([torch.cat((prompt, row))], [])
        at = torch.tensor([31])
        alone = small.hidden(whole, at)
        together = small.hidden(shared, torch.tensor([20 + 12 * index + 11]))
        torch.testing.assert_close(alone, together, atol=1e-4, rtol=1e-4)


def test_a_deepened_network_computes_the_same(small: Network):
    short, deep = (Network(replace(small.shape, layers=layers)) for layers in (4, 7))
    start(short)
    deep.load_state_dict(deepened(short.state_dict(), 4, 7))
    batch, at = Batch([torch.arange(10, 30)], []), torch.arange(20)
    torch.testing.assert_close(short.hidden(batch, at), deep.hidden(batch, at))
    with pytest.raises(ValueError, match="cannot be deepened"):
        deepened(deep.state_dict(), 7, 4)


def test_the_loss_and_its_gradients_are_those_of_cross_entropy():
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(500, 16, generator=generator, requires_grad=True)
    weight = torch.randn(40, 16, generator=generator, requires_grad=True)
    targets = torch.randint(0, 40, (500,), generator=generator)
    weights = torch.rand(500, generator=generator)
    plain = torch.nn.functional.cross_entropy(hidden @ weight.T, targets, reduction="none")
    plain = (plain * weights).sum() / weights.sum()
    wanted = torch.autograd.grad(plain, (hidden, weight))
    loss, right = Head.apply(hidden, weight, targets, weights)
    torch.testing.assert_close(loss, plain)
    torch.testing.assert_close(torch.autograd.grad(loss, (hidden, weight)), wanted)
    assert right == ((hidden @ weight.T).argmax(-1) == targets).float().mean()


def test_cached_decoding_equals_decoding_anew(small: Network):
    prompt, rows = list(range(10, 30)), [[40, 41, 42], [60, 61, 62, 63, 64]]
    cached = greedy(small, prompt, rows, stop=(), limit=6)
    for row, out in zip(rows, cached, strict=True):
        ids = prompt + row
        for token in out:
            batch = Batch([torch.tensor(ids)], [])
            logits = small.logits(small.hidden(batch, torch.tensor([len(ids) - 1])))
            assert int(logits.argmax()) == token
            ids.append(token)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of a few dialogues."""
    for name, value in (("BUDGET", 300), ("MANY", 6), ("FEW", 3)):
        monkeypatch.setattr(f"finetune.pretrain.batches.{name}", value)


def folder(path: Path) -> Path:
    (path / "tokenizer.model").write_bytes((EMBEDDED / "tokenizer.model").read_bytes())
    return path


@pytest.mark.usefixtures("brief")
def test_training_lowers_the_loss_and_goes_on_where_it_was_stopped(tmp_path: Path):
    run = Run(folder(tmp_path), "cpu", seed=0)
    first = run.step(0.5)[0]
    for _ in range(3):
        run.step(0.5)
    run.save()
    again = Run(tmp_path, "cpu", seed=0, begin=True)
    assert again.progress.step == 4
    ahead, resumed = run.step(0.5)[0], again.step(0.5)[0]
    assert ahead == pytest.approx(resumed, abs=1e-4)
    assert ahead < first


def test_a_run_is_not_overwritten_by_accident(tmp_path: Path):
    run = Run(folder(tmp_path), "cpu", seed=0)
    train(run, minutes=0)
    with pytest.raises(SystemExit, match="--resume"):
        Run(tmp_path, "cpu", seed=0)


def test_the_exported_folder_gives_the_logits_of_the_training_network(tmp_path: Path):
    run = Run(folder(tmp_path), "cpu", seed=0)
    run.save()
    exporting.export(tmp_path, tmp_path / "out")
    model = load_model(recognise(tmp_path / "out"), "cpu", "float32")
    ids = torch.arange(5, 45)
    net = run.net.bfloat16().half().float()
    net.cos, net.sin = Network(net.shape).cos, Network(net.shape).sin
    ours = net.logits(net.hidden(Batch([ids], []), torch.arange(40)))
    with torch.no_grad():
        theirs = model(input_ids=ids[None]).logits[0]
    torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)


def test_training_goes_on_from_the_weights_of_an_exported_folder(tmp_path: Path):
    run = Run(folder(tmp_path), "cpu", seed=0)
    run.save()
    exporting.export(tmp_path, tmp_path / "out")
    (tmp_path / "more").mkdir()
    more = folder(tmp_path / "more")
    began = dict(Run(more, "cpu", seed=1, begin=tmp_path / "out").net.named_parameters())
    for name, weight in run.net.named_parameters():
        torch.testing.assert_close(began[name], weight, atol=1e-2, rtol=1e-2)


def test_the_committed_model_is_small_and_has_no_remote_code():
    size = sum(path.stat().st_size for path in EMBEDDED.iterdir())
    assert size < 25e6
    assert "auto_map" not in json.loads((EMBEDDED / "config.json").read_text(encoding="utf-8"))


def test_added_characters_become_pieces_and_change_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    run = Run(folder(tmp_path), "cpu", seed=0)
    run.save()
    before = Tokenizer.open(tmp_path)
    monkeypatch.setattr(extending, "hanzi", lambda: "龘靐")
    assert extending.extend(tmp_path) == 2
    after = Tokenizer.open(tmp_path)
    assert after.decode(after.encode("a龘b")) == "a龘b"
    assert after.encode("weather") == before.encode("weather")
    again = Run(tmp_path, "cpu", seed=0, begin=True).net.embedding.weight
    old, new = before.id("<|user|>"), after.id("<|user|>")
    torch.testing.assert_close(again[new], run.net.embedding.weight[old])
