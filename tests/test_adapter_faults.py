"""An adapter that does not fit, is damaged or would run code is refused by name."""

import json
import os
import pickle
from types import SimpleNamespace

import pytest
import torch
from peft import IA3Config, LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from glm.adapters.opening import describe, open_adapter
from glm.adapters.prefix import OFFICIAL_KEY
from glm.adapters.sources import looks_like_adapter
from glm.checkpoint.recognise import recognise
from glm.errors import AlphaNeeded, CheckpointError
from glm.load import load_model
from tests.adapter_desk import LAYERS, LORA, answer, fused_lora, random, write_peft
from tests.tiny_checkpoint import write_checkpoint

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing`:FutureWarning",
    "ignore:Setting `save_embedding_layers`:UserWarning",
)
QKV = f"{LAYERS}.0.self_attention.query_key_value"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return recognise(write_checkpoint(tmp_path_factory.mktemp("base") / "tiny", vocabulary=512))


@pytest.fixture(scope="module")
def model(base):
    return load_model(base, "cpu", "float32")


@pytest.fixture
def config(model):
    return model.config


@pytest.fixture
def folder(config, tmp_path):
    return write_peft(tmp_path / "lora", fused_lora(config), LORA)


def change(folder, key, tensor):
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file) | {key: tensor}
    save_file({name: t for name, t in tensors.items() if t is not None}, file)


def refused(path, base, config, match, **more):
    with pytest.raises(CheckpointError, match=match):
        open_adapter(path, base, config, **more)


class Attack:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize("file", ["adapter_model.bin", "pytorch_model.bin", "pytorch_model.pt"])
def test_a_pickle_with_code_is_refused_and_does_not_run(file, plain, base, config, tmp_path):
    canary, place = tmp_path / "canary", tmp_path / "evil"
    place.mkdir()
    if file.startswith("adapter"):
        (place / "adapter_config.json").write_text(json.dumps(LORA))
    key = OFFICIAL_KEY if file == "pytorch_model.bin" else f"{QKV}.lora_A.weight"
    evil = {key: torch.ones(4, 64), "x": Attack(canary)}
    if plain:
        (place / file).write_bytes(pickle.dumps(evil, protocol=2))
    else:
        torch.save(evil, place / file)
    assert looks_like_adapter(place)
    refused(place, base, config, rf"{file} is refused: it holds more than tensors", alpha=32)
    with pytest.raises(CheckpointError, match=file):
        describe(place)
    assert not canary.exists()


def test_a_pickle_of_other_things_than_tensors_is_refused(base, config, tmp_path):
    torch.save({f"{QKV}.lora_A.weight": torch.ones(4, 64), "epoch": 3}, tmp_path / "x.pt")
    refused(tmp_path, base, config, r"x\.pt is refused: 'epoch' in it is not a tensor", alpha=32)


@pytest.mark.parametrize("cut", [10, 3000])
def test_a_truncated_file_is_named(cut, folder, base, config):
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-cut] if cut == 10 else file.read_bytes()[:cut])
    refused(folder, base, config, r"adapter_model\.safetensors is damaged or cut off")
    with pytest.raises(CheckpointError, match="damaged or cut off"):
        describe(folder)


def test_a_truncated_pickle_is_named(base, config, tmp_path):
    folder = write_peft(tmp_path / "lora", fused_lora(config), LORA, pickled=True)
    file = folder / "adapter_model.bin"
    file.write_bytes(file.read_bytes()[:-700])
    refused(folder, base, config, r"adapter_model\.bin is refused: it is damaged")


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_named(value, folder, base, config):
    change(folder, f"{QKV}.lora_B.weight", torch.full((128, 4), value))
    refused(folder, base, config, r"adapter_model\.safetensors: .*0.*lora_B\.weight holds NaN")


def test_an_adapter_of_another_model_is_refused_with_both_models_numbers(folder, config, tmp_path):
    """Row 47 of the bad inputs."""
    settings = {**LORA, "base_model_name_or_path": "THUDM/chatglm3-6b"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    other = recognise(write_checkpoint(tmp_path / "wide", vocabulary=512, hidden_size=96))
    wide = load_model(other, "cpu", "float32")
    match = (
        r"adapter_model\.safetensors \(made for THUDM/chatglm3-6b\) cannot be opened on wide: "
        r"model\.layers\.0\.mlp\.down_proj was made for a layer of 64 x 128, this model has "
        r"96 x 128; open it on the model it was made for"
    )
    refused(folder, other, wide.config, match)
    ids = torch.arange(3, 9)[None]
    assert torch.isfinite(answer(wide, ids, torch.ones_like(ids), 2)[0]).all()


def test_another_number_of_key_heads_is_refused(folder, base, config):
    """Row 47 of the bad inputs."""
    config = SimpleNamespace(**{**config.to_dict(), "num_key_value_heads": 4})
    refused(folder, base, config, r"made for 128 rows of q, k and v, this model has 64 \+ 64 \+ 64")


def test_a_deeper_model_s_adapter_is_refused(folder, base, config):
    config = SimpleNamespace(**{**config.to_dict(), "num_hidden_layers": 1})
    refused(folder, base, config, r"model\.layers\.1\.\S+ is no linear layer of this model")


def test_a_prefix_of_another_model_is_refused_with_both_numbers(base, config, tmp_path):
    """Row 47 of the bad inputs."""
    torch.save({OFFICIAL_KEY: random(5, 96)}, tmp_path / "pytorch_model.bin")
    match = r"pytorch_model\.bin cannot be opened on tiny: .*5 x 96 numbers.*128 \(2 x 2 layers"
    refused(tmp_path, base, config, match)


def test_half_a_projection_is_refused(base, config, tmp_path):
    state = {
        OFFICIAL_KEY: random(5, 128),
        OFFICIAL_KEY.replace("embedding", "trans.0"): random(8, 128),
    }
    torch.save(state, tmp_path / "pytorch_model.bin")
    refused(tmp_path, base, config, r"its prefix encoder lacks trans\.0\.bias")


@pytest.mark.parametrize(
    "key",
    [
        "base_model.model.transformer.output_layer.weight",
        "base_model.model.transformer.embedding.word_embeddings.lora_embedding_A",
        f"{QKV}.bias",
        f"{QKV}.lora_B.bias",
        f"{QKV}.lora_B.default.bias",
    ],
)
def test_a_part_that_is_not_low_rank_is_refused_by_its_key(key, folder, base, config):
    change(folder, key, torch.ones(64))
    refused(folder, base, config, rf"{key.replace('.', '.')} is no low-rank part.*merge it into")


def test_a_lora_with_a_copy_of_the_head_is_refused(base, config, tmp_path):
    wrapped = get_peft_model(load_model(base), LoraConfig(r=2, target_modules=["lm_head"]))
    wrapped.save_pretrained(str(tmp_path / "lora"))
    refused(tmp_path / "lora", base, config, r"\.weight is no low-rank part")


@pytest.mark.parametrize(
    ("setting", "match"),
    [
        ({"modules_to_save": ["lm_head"]}, "modules_to_save=.*merge it"),
        ({"bias": "lora_only"}, "bias='lora_only' is more than low-rank"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices="),
        ({"target_parameters": ["experts"]}, "target_parameters="),
        ({"a_setting_of_tomorrow": True}, "a_setting_of_tomorrow=True"),
        ({"init_lora_weights": "pissa_niter_4"}, "pissa_niter_4: its training changed the base"),
        ({"r": "8"}, "r='8' and lora_alpha=16 must be numbers"),
        ({"r": 8}, "has rank 4, its config says 8"),
        ({"rank_pattern": ["dense"]}, "must be JSON objects"),
        ({"alpha_pattern": {"(": 3}}, r"pattern '\(' is no regular expression"),
        ({"alpha_pattern": {"query_key_value": None}}, "alpha of .* is None, not a number"),
    ],
)
def test_a_setting_that_cannot_be_honoured_is_refused(setting, match, folder, base, config):
    (folder / "adapter_config.json").write_text(json.dumps({**LORA, **setting}))
    refused(folder, base, config, match)


def test_a_pattern_that_never_ends_is_stopped(folder, base, config, monkeypatch):
    monkeypatch.setattr("glm.adapters.lora._PATTERN_SECONDS", 0.05)
    settings = {**LORA, "alpha_pattern": {r"(.|..|...)*(?!.)\d": 3}}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    refused(folder, base, config, "is no regular expression")


@pytest.mark.parametrize(
    ("key", "tensor", "match"),
    [
        (f"{QKV}.lora_A.weight", None, "query_key_value lacks lora_A"),
        (f"{QKV}.lora_A.weight", torch.ones(3, 64), "do not fit"),
        (f"{QKV}.lora_magnitude_vector", torch.ones(7), "magnitude"),
        (f"{LAYERS}.0.mlp.experts.lora_A.weight", torch.ones(4, 64), "experts lacks lora_B"),
        (f"{QKV}.lora_A.second.weight", torch.ones(4, 64), "several adapters: default, second"),
    ],
)
def test_pieces_that_do_not_fit_together_are_refused(key, tensor, match, folder, base, config):
    change(folder, key, tensor)
    refused(folder, base, config, match)


def test_another_kind_of_peft_adapter_is_refused_by_its_kind(base, config, tmp_path):
    settings = IA3Config(target_modules=["v_proj"], feedforward_modules=[])
    get_peft_model(load_model(base), settings).save_pretrained(str(tmp_path / "ia3"))
    assert looks_like_adapter(tmp_path / "ia3") == "PEFT IA3"
    refused(tmp_path / "ia3", base, config, "PEFT IA3 adapters cannot be opened; known are P-Tun")


def test_folders_without_an_adapter_are_refused(base, config, folder, tmp_path):
    (folder / "adapter_model.safetensors").unlink()
    refused(folder, base, config, r"no adapter_model\.safetensors or adapter_model\.bin in")
    (folder / "adapter_config.json").write_text("[1]")
    refused(folder, base, config, r"adapter_config\.json is not a JSON object")
    refused(tmp_path / "none", base, config, "no adapter at")
    refused(base.path, base, config, r"no adapter at .*: no adapter_config\.json, and no file with")


def test_an_index_that_leaves_its_folder_is_refused(base, config, tmp_path):
    torch.save({OFFICIAL_KEY: random(5, 128)}, tmp_path / "out.bin")
    place = tmp_path / "pt"
    place.mkdir()
    index = place / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {OFFICIAL_KEY: "../out.bin"}}))
    refused(place, base, config, r"names a file outside its folder: \.\./out\.bin")
    index.write_text(json.dumps({"weight_map": {OFFICIAL_KEY: "gone.bin"}}))
    refused(place, base, config, r"gone\.bin is missing")


def test_names_of_the_other_generation_are_refused_by_name(folder, base, config):
    other = SimpleNamespace(**{**config.to_dict(), "model_type": "llama"})
    refused(folder, base, other, r"is a layer of ChatGLM2/3, this model is llama")
    v1 = {
        "base_model.model.transformer.layers.0.attention.query_key_value.lora_A.weight": (4, 64),
        "base_model.model.transformer.layers.0.attention.query_key_value.lora_B.weight": (192, 4),
    }
    write_peft(folder, {key: random(*shape) for key, shape in v1.items()}, LORA)
    refused(folder, base, config, r"is a layer of ChatGLM-6B \(v1\), this model is chatglm")


def test_a_bare_file_asks_for_alpha_once(base, config, tmp_path):
    torch.save(fused_lora(config), tmp_path / "pytorch_model.pt")
    with pytest.raises(AlphaNeeded, match=r"pytorch_model\.pt does not say its alpha.*4") as asked:
        open_adapter(tmp_path, base, config)
    assert asked.value.rank == 4
    given = open_adapter(tmp_path, base, config, alpha=16)
    again = open_adapter(tmp_path, base, config)
    part = "model.layers.1.self_attn.v_proj"
    assert given.lora[part].scale == again.lora[part].scale == 4.0
    assert open_adapter(tmp_path, base, config, alpha=8).lora[part].scale == 2.0
    assert open_adapter(tmp_path / "pytorch_model.pt", base, config).lora[part].scale == 2.0


@pytest.mark.parametrize("alpha", [0, -1, torch.nan, torch.inf])
def test_a_bad_alpha_is_refused_and_not_kept(alpha, base, config, tmp_path):
    torch.save(fused_lora(config), tmp_path / "pytorch_model.pt")
    refused(tmp_path, base, config, "it must be a number above 0", alpha=alpha)
    with pytest.raises(AlphaNeeded):
        open_adapter(tmp_path, base, config)


def test_alpha_of_a_read_only_folder_is_kept_in_the_memory_given(base, config, tmp_path):
    place, memory = tmp_path / "read-only", tmp_path / "data" / "alphas.json"
    place.mkdir()
    torch.save(fused_lora(config), place / "pytorch_model.pt")
    place.chmod(0o555)
    without = open_adapter(place, base, config, alpha=16)
    assert "could not be kept" in without.info.warnings[0]
    assert not open_adapter(place, base, config, 16, memory).info.warnings
    assert open_adapter(place, base, config, memory=memory).lora
    assert [file.name for file in place.iterdir()] == ["pytorch_model.pt"]
    with pytest.raises(AlphaNeeded):
        open_adapter(place, base, config)
