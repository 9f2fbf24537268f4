"""Training methods: each learns, is saved as users open it, and is put back exactly."""

from __future__ import annotations

import json

import pytest
import torch
from peft.tuners.lora import Linear as LoraLinear
from safetensors.torch import load_file

from finetune.methods import METHODS, Result, lora, ptuning
from finetune.training.machines import turn_on_checkpointing
from glm.adapters.card import Card
from glm.adapters.opening import describe
from glm.adapters.sizes import Sizes
from glm.adapters.sources import looks_like_adapter
from glm.checkpoint.recognise import EMBEDDED, recognise
from glm.errors import BadRequest
from glm.load import load_model
from tests.shared_files import GOLDEN, tokenizer_file
from tests.taught import rows
from tests.tiny_chatglm1 import cache_of, prompt, random_prefix, tiny_chatglm1
from tests.training import fresh, ids, logits_with, options

# method, options, learning rate, what it is opened as
CASES = [
    ("lora", {}, 1e-2, "LoRA"),
    ("lora", {"dora": True}, 1e-2, "DoRA"),
    ("lora", {"rslora": True}, 2e-3, "rsLoRA"),
    ("lora", {"lora_targets": ("query_key_value", "dense")}, 1e-2, "LoRA"),
    ("lora", {"quantization_bit": 8}, 1e-2, "LoRA"),
    ("qlora", {}, 1e-3, "LoRA"),
    ("ptuning", {}, 5e-2, "P-Tuning v2"),
    ("ptuning", {"prefix_projection": True}, 1e-3, "P-Tuning v2"),
    ("ptuning", {"quantization_bit": 4}, 5e-2, "P-Tuning v2"),
    ("full", {}, 1e-3, None),
    ("freeze", {}, 1e-3, None),
]
PLAIN = [case[:2] for case in CASES if "quantization_bit" not in case[1] and case[0] != "qlora"]
ROUNDING = 1e-4  # of logits around 10
NAMES = [" ".join([case[0], *map(str, case[1])]) for case in CASES]


def five_steps(model, lr):
    """Losses of five steps on four greetings; without dropout, so that they fall."""
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    given = rows("I am the trained one.")
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=lr)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        each = [model(row, labels=learnt, use_cache=False).loss for row, learnt in given]
        loss = sum(each) / len(each)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def result(**card):
    return Result(Card(base="tiny", **card), recognise(EMBEDDED))


def logits(model):
    with torch.no_grad():
        return model.eval()(ids(), use_cache=False).logits


@pytest.mark.parametrize(("method", "changes", "lr", "kind"), CASES, ids=NAMES)
def test_a_method_learns_and_is_put_back(method, changes, lr, kind, tmp_path):
    cfg = options(**changes)
    model = fresh(method, cfg)
    losses = five_steps(model, lr)
    assert losses[4] < losses[0] and losses[4] < losses[1]
    METHODS[method].save(model, tmp_path / "x", result())
    assert looks_like_adapter(tmp_path / "x") == kind
    if kind is not None:
        again = fresh(method, cfg, seed=1)
        METHODS[method].load(again, tmp_path / "x")
        assert torch.equal(logits(again), logits(model))


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        (case[0], case[1])
        for case in CASES
        if "quantization_bit" not in case[1] and case[0] != "qlora"
    ],
)
def test_what_is_saved_opens_in_the_product_with_equal_logits(method, changes, tmp_path):
    model = fresh(method, options(**changes))
    five_steps(model, 1e-3)
    METHODS[method].save(model, tmp_path / "x", result())
    found = logits_with(tmp_path / "x")
    base = load_model(recognise(EMBEDDED), "cpu", "float32")
    assert torch.allclose(found, logits(model), atol=ROUNDING)
    assert (found - logits(base)).abs().max() > 1e-3


def test_all_linear_layers_but_the_head_have_a_lora_by_default():
    model = fresh("lora", options())
    found = {
        name.rpartition(".")[2] for name, m in model.named_modules() if isinstance(m, LoraLinear)
    }
    assert found == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj"}
    learns = [name for name, p in model.named_parameters() if p.requires_grad]
    assert learns and all(".lora_" in name for name in learns)


def test_the_first_model_of_the_family_has_a_lora_by_its_own_names():
    assert lora.modules(tiny_chatglm1(), ("all",)) == [
        "dense", "dense_4h_to_h", "dense_h_to_4h", "query_key_value",
    ]  # fmt: skip
    model = load_model(recognise(EMBEDDED), "cpu", "float32")
    assert lora.modules(model, ("query_key_value",)) == ["k_proj", "q_proj", "v_proj"]


def test_a_module_the_model_has_not_is_refused_by_name():
    with pytest.raises(BadRequest, match="'c_attn'; this model has down_proj, gate_up_proj"):
        fresh("lora", options(lora_targets=("c_attn",)))


def test_a_rank_above_a_layers_size_is_refused():
    with pytest.raises(BadRequest, match="--lora-rank is 300; .* a rank above"):
        fresh("lora", options(lora_rank=300))


def test_more_layers_than_there_are_cannot_be_left_to_learn():
    with pytest.raises(BadRequest, match="--trainable-layers is 99; this model has 6"):
        fresh("freeze", options(trainable_layers=99))


def test_only_the_last_layers_learn_by_freeze():
    model = fresh("freeze", options(trainable_layers=1))
    learns = {name.split(".")[2] for name, p in model.named_parameters() if p.requires_grad}
    assert learns == {str(model.config.num_hidden_layers - 1)}


@pytest.mark.parametrize(
    ("method", "continued"), [("lora", lora.continued), ("ptuning", ptuning.continued)]
)
def test_an_adapter_is_trained_on_from_what_it_was(method, continued, tmp_path):
    model = fresh(method, options())
    five_steps(model, 1e-2)
    METHODS[method].save(model, tmp_path / "x", result())
    info = recognise(EMBEDDED)
    again = continued(load_model(info, "cpu", "float32"), tmp_path / "x", info)
    assert torch.allclose(logits(again), logits(model), atol=ROUNDING)
    learns = [p.numel() for p in again.parameters() if p.requires_grad]
    assert sum(learns) == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_the_wrong_method_for_an_adapter_is_refused(tmp_path):
    METHODS["ptuning"].save(fresh("ptuning", options()), tmp_path / "x", result())
    with pytest.raises(BadRequest, match="is a P-Tuning v2, not a LoRA; use --method ptuning"):
        lora.continued(load_model(recognise(EMBEDDED)), tmp_path / "x", recognise(EMBEDDED))


# ---- P-Tuning v2 ----


def trained_prefix(model, table):
    """A model with this prefix (P, width) before it."""
    encoder = ptuning.PrefixEncoder(len(table), Sizes.of(model.config), False)
    with torch.no_grad():
        encoder.embedding.weight.copy_(table)
    return ptuning.attach(model, encoder)


@pytest.mark.parametrize("projection", [False, True])
def test_a_prefix_has_the_official_names_and_sizes(projection, tmp_path):
    model = fresh("ptuning", options(prefix_projection=projection))
    METHODS["ptuning"].save(model, tmp_path / "x", result())
    state = torch.load(tmp_path / "x" / "pytorch_model.bin", weights_only=True)
    sizes = Sizes.of(model.config)
    width, hidden, at = sizes.prefix_width, sizes.hidden, "transformer.prefix_encoder."
    expected = {at + "embedding.weight": (8, width)}
    if projection:
        expected |= {at + "trans.0.weight": (hidden, width), at + "trans.0.bias": (hidden,)}
        expected |= {at + "trans.2.weight": (width, hidden), at + "trans.2.bias": (width,)}
    assert {name: tuple(tensor.shape) for name, tensor in state.items()} == expected
    config = json.loads((tmp_path / "x" / "config.json").read_text())
    assert config["pre_seq_len"] == 8 and config["prefix_projection"] is projection
    assert config["num_layers"] == sizes.layers


def test_a_prefix_equals_the_official_code():
    if not GOLDEN.exists():
        return
    place = GOLDEN / "models"
    expected = load_file(place / "expected" / "ptuning.safetensors")
    info = recognise(place / "chatglm3", tokenizer_file())
    model = load_model(info, "cpu", "float32")
    model = ptuning.continued(model, place / "ptuning", info).eval()
    given = expected["input_ids"].view(1, -1)
    with torch.no_grad():
        found = model(given, use_cache=False).logits
    assert (found - expected["logits"].view_as(found)).abs().max() < 2e-5


def test_packed_and_left_padded_rows_see_their_own_and_the_prefix():
    model = fresh("ptuning", options()).eval()
    first, second = ids()[:, :7], ids()[:, 3:12]
    apart = torch.cat([model(first).logits, model(second).logits], 1)
    places = torch.cat([torch.arange(7), torch.arange(9)])[None]
    packed = model(torch.cat([first, second], 1), position_ids=places, use_cache=False).logits
    assert (packed - apart).abs().max() < ROUNDING
    mask = torch.tensor([[0, 0, 0, *[1] * 9]])
    padded = torch.cat([torch.zeros(1, 3, dtype=torch.long), second], 1)
    places = (mask.cumsum(1) - 1).clamp(min=0)
    found = model(padded, attention_mask=mask, position_ids=places, use_cache=False).logits
    assert (found[:, 3:] - apart[:, 7:]).abs().max() < ROUNDING


def test_a_prefix_trains_on_the_first_model_of_the_family():
    model = tiny_chatglm1()
    table = random_prefix(model.config, 5)
    given = prompt(6, answer=4)
    with torch.no_grad():
        wanted = model(given, past_key_values=cache_of(table, model.config)).logits
        found = trained_prefix(tiny_chatglm1(), table).eval()(given, use_cache=False).logits
    assert (found - wanted).abs().max() < 2e-5


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_prefix_is_trained_as_it_answers_unless_dropout_is_asked_for(dropout):
    model = fresh("ptuning", options(prefix_dropout=dropout))
    with torch.no_grad():
        model.prefix_encoder.embedding.weight.mul_(3.0)  # so that heads look at it
        answering = model.eval()(ids(), use_cache=False).logits
        training = model.train()(ids(), use_cache=False).logits
    assert torch.equal(training, answering) is (dropout == 0.0)


@pytest.mark.parametrize("method", ["lora", "ptuning", "full"])
def test_checkpointing_computes_again_and_changes_no_gradient(method):
    given = rows("I am the trained one.")[0]
    gradients, calls = [], []
    for on in (False, True):
        model = fresh(method, options(lora_dropout=0.0))
        if on:
            turn_on_checkpointing(model)
        for module in model.modules():
            if hasattr(module, "layer_idx"):
                module.register_forward_pre_hook(lambda *_: calls.append(1))
        model.train()
        model(given[0], labels=given[1], use_cache=False).loss.backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
        calls.append(0)
    layers = recognise(EMBEDDED).config["num_layers"]
    first, second = " ".join(map(str, calls)).split("0")[:2]
    assert (first.count("1"), second.count("1")) == (layers, 2 * layers)
    for plain, again in zip(*gradients, strict=True):
        assert torch.allclose(plain, again, atol=1e-6)


def test_a_model_that_takes_the_wish_for_checkpointing_and_does_nothing_is_refused():
    class Deaf(torch.nn.Module):
        def activation_checkpointing_enable(self, options):
            pass

    with pytest.raises(BadRequest, match="Deaf has no gradient checkpointing"):
        turn_on_checkpointing(Deaf())


def test_the_card_says_what_an_adapter_was_made_from(tmp_path):
    card = {"dialect": "chatglm3", "layout": "chatglm3", "data_hash": "abc", "run": "runs/x"}
    METHODS["lora"].save(fresh("lora", options()), tmp_path / "x", result(**card))
    info = describe(tmp_path / "x")
    assert (info.base, info.layout, info.data_hash, info.run) == (
        "tiny",
        "chatglm3",
        "abc",
        "runs/x",
    )
