"""Merging, saving, cards: what is written opens again, here and in PEFT, with the same answers."""

import json
from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from glm.adapters.card import (
    Card,
    base_fingerprint,
    card_file,
    mismatches,
    read_card,
    write_card,
)
from glm.adapters.merging import merge
from glm.adapters.opening import describe, open_adapter
from glm.adapters.prefix import OFFICIAL_KEY
from glm.adapters.saving import save_official_prefix, save_peft_lora
from glm.adapters.values import LoraPart
from glm.checkpoint.recognise import recognise
from glm.errors import CheckpointError
from glm.load import load_model
from tests.adapter_desk import LORA, fused_lora, hooked, random, write_peft
from tests.tiny_checkpoint import write_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return recognise(write_checkpoint(tmp_path_factory.mktemp("base") / "tiny", vocabulary=512))


@pytest.fixture
def model(base):
    return load_model(base, "cpu", "float32")


@pytest.fixture
def ids():
    return torch.arange(3, 23)[None]


@pytest.fixture
def adapter(base, model, tmp_path):
    folder = write_peft(tmp_path / "lora", fused_lora(model.config), LORA)
    return open_adapter(folder, base, model.config)


def logits(model, ids):
    with torch.inference_mode():
        return model(input_ids=ids).logits


def same(one, other):
    assert one.keys() == other.keys()
    for name, part in one.items():
        assert torch.equal(part.a, other[name].a) and torch.equal(part.b, other[name].b)
        assert part.scale == pytest.approx(other[name].scale, rel=1e-12)
        assert (part.magnitude is None) == (other[name].magnitude is None)
        if part.magnitude is not None:
            assert torch.equal(part.magnitude, other[name].magnitude)


def uneven(adapter):
    """Ranks, scales and layers that no single number describes."""
    lora = dict(adapter.lora)
    del lora["model.layers.0.self_attn.k_proj"]
    name = "model.layers.1.mlp.down_proj"
    lora[name] = LoraPart(random(3, 128), random(64, 3), 0.7)
    return replace(adapter, lora=lora)


def with_dora(adapter):
    lora = {
        name: replace(part, magnitude=random(part.b.shape[0], size=2.0).abs())
        for name, part in adapter.lora.items()
    }
    return replace(adapter, lora=lora)


@pytest.mark.parametrize("change", [lambda adapter: adapter, uneven, with_dora])
def test_a_lora_saved_for_peft_opens_there_and_here_with_the_same_answers(
    change, adapter, base, model, ids, tmp_path
):
    adapter = change(adapter)
    with hooked(model, adapter):
        want = logits(model, ids)
    folder = save_peft_lora(adapter, tmp_path / "saved", "tiny")
    again = open_adapter(folder, base, model.config)
    same(again.lora, adapter.lora)
    assert again.info.base == "tiny" and not again.info.warnings
    wrapped = PeftModel.from_pretrained(model, str(folder)).eval()
    assert (logits(wrapped, ids) - want).abs().max() < 1e-4
    assert not [file for file in folder.iterdir() if file.name.startswith(".")]


def test_a_lora_of_all_layers_is_saved_under_the_short_names(adapter, tmp_path):
    settings = json.loads(
        (save_peft_lora(adapter, tmp_path / "saved", "x") / "adapter_config.json").read_text()
    )
    assert settings["target_modules"] == ["down_proj", "k_proj", "q_proj", "v_proj"]
    assert (settings["r"], settings["lora_alpha"], settings["rank_pattern"]) == (4, 16, {})


def test_what_cannot_be_saved_in_a_layout_is_refused(adapter, tmp_path):
    with pytest.raises(CheckpointError, match="has no prefix to save"):
        save_official_prefix(adapter, tmp_path / "x.bin")
    with pytest.raises(CheckpointError, match="no low-rank parts to save"):
        save_peft_lora(replace(adapter, lora={}), tmp_path / "x", "")
    mixed = dict(adapter.lora) | dict(list(with_dora(adapter).lora.items())[:1])
    with pytest.raises(CheckpointError, match="mixes LoRA and DoRA"):
        save_peft_lora(replace(adapter, lora=mixed), tmp_path / "x", "")


def test_merging_changes_the_weights_in_place(adapter, model):
    weight = model.get_submodule("model.layers.0.self_attn.q_proj").weight
    before, place = weight.clone(), weight.data_ptr()
    assert merge(model, adapter) == len(adapter.lora) == 8
    assert weight.data_ptr() == place and not torch.equal(weight, before)


def test_merging_into_half_precision_rounds_once(adapter, base, model):
    half = load_model(base, "cpu", "bfloat16")
    part = adapter.lora["model.layers.0.self_attn.q_proj"]
    exact = half.get_submodule("model.layers.0.self_attn.q_proj").weight.float()
    merge(half, adapter)
    merged = half.get_submodule("model.layers.0.self_attn.q_proj").weight
    assert torch.equal(merged, (exact + part.scale * part.b @ part.a).bfloat16())


def test_a_refused_merge_leaves_the_model_as_it_was(adapter, model, ids):
    before = logits(model, ids)
    lora = {**adapter.lora, "model.layers.7.self_attn.q_proj": adapter.lora.popitem()[1]}
    with pytest.raises(CheckpointError, match=r"layers\.7\.self_attn\.q_proj, which this model"):
        merge(model, replace(adapter, lora=lora))
    lora = {
        **adapter.lora,
        "model.layers.1.self_attn.v_proj": LoraPart(random(4, 9), random(9, 4), 1),
    }
    with pytest.raises(CheckpointError, match="of 9 x 9, this model has 32 x 64"):
        merge(model, replace(adapter, lora=lora))
    model.model.layers[1].mlp.down_proj.weight = torch.nn.Parameter(
        torch.zeros(64, 128, dtype=torch.int8), requires_grad=False
    )
    first = model.model.layers[0].mlp.down_proj.weight.clone()
    with pytest.raises(CheckpointError, match="in 16 bit, not quantised"):
        merge(model, adapter)
    assert torch.equal(first, model.model.layers[0].mlp.down_proj.weight)
    assert torch.isfinite(before).all()


def test_a_quantised_layer_is_not_merged_into(adapter, model):
    class Linear4bit(torch.nn.Linear):
        """A layer that keeps its numbers in another way, as bitsandbytes' do."""

    model.model.layers[0].mlp.down_proj.__class__ = Linear4bit
    with pytest.raises(CheckpointError, match="a Linear4bit: load the model again in 16 bit"):
        merge(model, adapter)


def test_weights_shared_with_the_embeddings_are_not_merged_into(adapter, model):
    model.lm_head.weight = model.model.embed_tokens.weight
    lora = {"lm_head": LoraPart(random(2, 64), random(512, 2), 1.0)}
    with pytest.raises(CheckpointError, match="lm_head shares its weight with the embeddings"):
        merge(model, replace(adapter, lora=lora))


def test_a_merge_that_overflows_is_refused(adapter, base):
    half = load_model(base, "cpu", "float16")
    part = LoraPart(random(4, 64), random(64, 4), 1e9)
    with pytest.raises(CheckpointError, match=r"q_proj overflow in torch\.float16"):
        merge(half, replace(adapter, lora={"model.layers.0.self_attn.q_proj": part}))


def test_a_prefix_cannot_be_merged_and_the_reason_is_said(base, model, tmp_path):
    torch.save({OFFICIAL_KEY: random(5, 128)}, tmp_path / "pytorch_model.bin")
    prefix = open_adapter(tmp_path, base, model.config)
    with pytest.raises(CheckpointError, match="has a prefix of 5 tokens: keys and values"):
        merge(model, prefix)


def test_the_fingerprint_knows_weights_not_names(base, tmp_path):
    one = write_checkpoint(tmp_path / "other-name", vocabulary=512)
    assert base_fingerprint(recognise(one)) == base_fingerprint(base)
    other = write_checkpoint(tmp_path / "tiny", vocabulary=512, seed=1)
    assert base_fingerprint(recognise(other)) != base_fingerprint(base)
    state = load_file(one / "model.safetensors")
    save_file(dict(reversed(state.items())) | {"new": torch.ones(1)}, one / "model.safetensors")
    assert base_fingerprint(recognise(one)) != base_fingerprint(base)


CARD = Card("tiny", "", "chatglm3", "official", "d" * 64, "runs/7", None)


def test_a_card_is_written_beside_the_adapter_and_read_again(adapter, base, tmp_path):
    folder = adapter.info.path
    card = replace(CARD, base_hash=base_fingerprint(base))
    assert write_card(folder, card).name == "glm_adapter.json"
    assert read_card(folder / "adapter_model.safetensors") == card
    found = describe(folder)
    kept = (found.base, found.dialect, found.layout, found.data_hash, found.run)
    assert kept == ("tiny", "chatglm3", "official", "d" * 64, "runs/7")
    assert found.base_hash == card.base_hash


@pytest.mark.parametrize(
    ("card", "words"),
    [
        ({"base": "chatglm3-32k"}, ["chatglm3-32k", "tiny", "the base model"]),
        ({"dialect": "chatglm2"}, ["chatglm2", "chatglm3", "the dialect"]),
        ({"base_hash": "0" * 64}, ["0" * 12, "the weights of the base model"]),
    ],
)
def test_another_base_or_dialect_is_a_warning_that_names_both(card, words, adapter, base, model):
    write_card(adapter.info.path, replace(CARD, **card))
    again = open_adapter(adapter.info.path, base, model.config)
    assert len(again.info.warnings) == 1
    for word in words:
        assert word in again.info.warnings[0]
    same(again.lora, adapter.lora)


def test_the_right_weights_under_another_name_are_no_mismatch(adapter, base, model):
    card = replace(CARD, base="renamed-since", base_hash=base_fingerprint(base))
    write_card(adapter.info.path, card)
    assert not open_adapter(adapter.info.path, base, model.config).info.warnings


def test_paths_and_hub_names_of_one_model_are_no_mismatch(adapter, base, model):
    cached = "/cache/models--THUDM--tiny/snapshots/8e5f"
    for name in ("THUDM/Tiny", "/models/tiny/", r"C:\models\tiny", cached):
        write_card(adapter.info.path, Card(base=name))
        assert not open_adapter(adapter.info.path, base, model.config).info.warnings


def test_mask_layout_and_data_are_compared_too():
    here = replace(CARD, layout="firefly", data_hash="e" * 64)
    first, second = mismatches(CARD, here)
    assert "firefly" in first and "official" in first and "mask layout" in first
    assert "e" * 64 in second and "d" * 64 in second
    assert not mismatches(CARD, Card()) and not mismatches(Card(), CARD)


@pytest.mark.parametrize("text", ["{", "[]", '{"base": 3}', '{"alpha": "x"}', '{"alpha": NaN}'])
def test_a_damaged_card_is_named(text, adapter, base, model):
    (adapter.info.path / "glm_adapter.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"glm_adapter\.json"):
        open_adapter(adapter.info.path, base, model.config)


def test_two_bare_files_in_one_folder_keep_two_alphas(base, model, tmp_path):
    for name, alpha in (("one.pt", 8), ("two.pt", 32)):
        torch.save(fused_lora(model.config), tmp_path / name)
        open_adapter(tmp_path / name, base, model.config, alpha)
        assert read_card(tmp_path / name).alpha == alpha
        assert card_file(tmp_path / name).name == f"{name}.glm_adapter.json"
    assert open_adapter(tmp_path / "one.pt", base, model.config).info.name == "one"


def test_an_export_made_by_peft_is_equal_to_ours(base, model, ids, tmp_path):
    wrapped = get_peft_model(model, LoraConfig(r=3, lora_alpha=7, target_modules=["v_proj"]))
    for name, weight in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    wrapped.save_pretrained(str(tmp_path / "peft"))
    adapter = open_adapter(tmp_path / "peft", base, model.config)
    ours = load_file(save_peft_lora(adapter, tmp_path / "ours", "") / "adapter_model.safetensors")
    theirs = load_file(tmp_path / "peft" / "adapter_model.safetensors")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
