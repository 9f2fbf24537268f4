"""Adapters of ChatGLM-6B (v1): transformers_tasks' MergedLinear, plain LoRA, P-Tuning v2."""

import importlib
import json
from importlib.util import find_spec
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from glm.adapters.merging import merge
from glm.adapters.opening import describe, open_adapter
from glm.adapters.prefix import OFFICIAL_KEY, joined
from glm.adapters.saving import save_official_prefix, save_peft_lora, save_peft_prefix
from glm.checkpoint.recognise import recognise
from glm.errors import AlphaNeeded, CheckpointError
from tests.adapter_desk import LORA, cache_of, hooked, random, write_peft
from tests.shared_files import GOLDEN
from tests.tiny_checkpoint import write_checkpoint

HAS_MODEL = find_spec("glm.models.chatglm1") is not None
LAYERS = "base_model.model.transformer.layers"
HIDDEN, DEPTH = 64, 3


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """Any model's info: its name and dialect go into sentences, the sizes come from the config."""
    return recognise(write_checkpoint(tmp_path_factory.mktemp("base") / "tiny", vocabulary=512))


@pytest.fixture
def config():
    return SimpleNamespace(
        model_type="chatglm1",
        hidden_size=HIDDEN,
        num_layers=DEPTH,
        num_attention_heads=4,
        inner_hidden_size=256,
        vocab_size=320,
    )


def merged_linear(groups: int = 2, rank: int = 4) -> dict[str, torch.Tensor]:
    """What its peft fork 0.3.0.dev0 leaves in chatglm-lora.pt."""
    tensors = {}
    for layer in range(DEPTH):
        key = f"{LAYERS}.{layer}.attention.query_key_value"
        tensors[f"{key}.lora_A.weight"] = random(groups * rank, HIDDEN, seed=layer)
        tensors[f"{key}.lora_B.weight"] = random(groups * HIDDEN, rank, 1, seed=9 + layer)
    return tensors


def as_the_fork_computes(x, tensors, layer, enabled, alpha):
    """MergedLinear.forward of loralib: a grouped convolution, zeros where it is off."""
    key = f"{LAYERS}.{layer}.attention.query_key_value"
    a, b = tensors[f"{key}.lora_A.weight"], tensors[f"{key}.lora_B.weight"]
    inner = torch.nn.functional.conv1d((x @ a.T).T[None], b, groups=sum(enabled))[0].T
    thirds, part = [], iter(inner.split(HIDDEN, 1))
    for on in enabled:
        thirds.append(next(part) if on else torch.zeros(len(x), HIDDEN))
    return torch.cat(thirds, 1) * alpha / b.shape[1]


@pytest.mark.parametrize("enabled", [[True, False, True], [True, True, True]])
def test_a_merged_linear_adds_what_the_fork_added(enabled, base, config, tmp_path):
    tensors = merged_linear(sum(enabled))
    torch.save(tensors, tmp_path / "chatglm-lora.pt")
    with pytest.raises(AlphaNeeded) as asked:
        open_adapter(tmp_path, base, config)
    assert asked.value.rank == describe(tmp_path).rank == 4
    adapter, x = open_adapter(tmp_path, base, config, alpha=32), random(7, HIDDEN)
    for layer in range(DEPTH):
        part = adapter.lora[f"transformer.layers.{layer}.attention.query_key_value"]
        want = as_the_fork_computes(x, tensors, layer, enabled, 32)
        assert torch.allclose(part.scale * x @ part.a.T @ part.b.T, want, atol=1e-5)
    if not enabled[1]:
        assert not part.b[HIDDEN : 2 * HIDDEN].any()


def test_the_fork_s_own_config_says_which_thirds_are_on(base, config, tmp_path):
    tensors, enabled = merged_linear(), [False, True, True]
    settings = {**LORA, "enable_lora": enabled, "merge_weights": False}
    write_peft(tmp_path, tensors, settings, pickled=True)
    part = open_adapter(tmp_path, base, config).lora[
        "transformer.layers.2.attention.query_key_value"
    ]
    x = random(7, HIDDEN)
    want = as_the_fork_computes(x, tensors, 2, enabled, 16)
    assert torch.allclose(part.scale * x @ part.a.T @ part.b.T, want, atol=1e-5)


def test_a_merged_linear_saved_for_peft_is_the_same_update(base, config, tmp_path):
    torch.save(merged_linear(), tmp_path / "chatglm-lora.pt")
    adapter = open_adapter(tmp_path, base, config, alpha=32)
    again = open_adapter(save_peft_lora(adapter, tmp_path / "saved", "x"), base, config)
    for name, part in adapter.lora.items():
        update, saved = part.scale * part.b @ part.a, again.lora[name]
        assert torch.allclose(saved.scale * saved.b @ saved.a, update, atol=1e-6)


@pytest.mark.parametrize("groups", [1, 4])
def test_a_merged_linear_whose_thirds_are_unknown_is_refused(groups, base, config, tmp_path):
    torch.save(merged_linear(groups), tmp_path / "chatglm-lora.pt")
    with pytest.raises(CheckpointError, match=r"chatglm-lora\.pt .*is a MergedLinear of another"):
        open_adapter(tmp_path, base, config, alpha=32)


def test_a_plain_lora_keeps_the_fused_layer(base, config, tmp_path):
    key = f"{LAYERS}.1.attention.query_key_value"
    stored = {f"{key}.lora_A.weight": random(4, 64), f"{key}.lora_B.weight": random(192, 4)}
    adapter = open_adapter(write_peft(tmp_path, stored, LORA), base, config)
    part = adapter.lora["transformer.layers.1.attention.query_key_value"]
    assert torch.equal(part.b, stored[f"{key}.lora_B.weight"]) and part.scale == 4


def test_sizes_of_another_v1_model_are_refused(base, config, tmp_path):
    key = f"{LAYERS}.0.mlp.dense_h_to_4h"
    stored = {f"{key}.lora_A.weight": random(4, 32), f"{key}.lora_B.weight": random(128, 4)}
    write_peft(tmp_path, stored, LORA)
    with pytest.raises(CheckpointError, match=r"of 128 x 32, this model has 256 x 64"):
        open_adapter(tmp_path, base, config)


def test_a_prefix_holds_keys_of_all_heads(base, config, tmp_path):
    table = random(5, 2 * DEPTH * HIDDEN)
    torch.save({OFFICIAL_KEY: table}, tmp_path / "pytorch_model.bin")
    adapter = open_adapter(tmp_path, base, config)
    assert adapter.prefix.keys.shape == (DEPTH, 4, 5, 16)
    assert torch.equal(joined(adapter.prefix), table)
    save_official_prefix(adapter, tmp_path / "again" / "pytorch_model.bin")
    assert torch.equal(
        open_adapter(tmp_path / "again", base, config).prefix.keys, adapter.prefix.keys
    )
    with pytest.raises(CheckpointError, match="PEFT prefix of chatglm1 .* cannot be converted"):
        save_peft_prefix(adapter, config, tmp_path / "peft")


def test_the_projection_of_v1_starts_from_the_hidden_size(base, config, tmp_path):
    width, at = 2 * DEPTH * HIDDEN, "transformer.prefix_encoder"
    mlp = torch.nn.Sequential(
        torch.nn.Linear(HIDDEN, HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, width)
    )
    state = {f"{at}.trans.{name}": tensor for name, tensor in mlp.state_dict().items()}
    table = random(6, HIDDEN)
    torch.save({**state, OFFICIAL_KEY: table}, tmp_path / "pytorch_model.bin")
    adapter = open_adapter(tmp_path, base, config)
    assert torch.allclose(joined(adapter.prefix), mlp(table), atol=1e-5)
    assert adapter.info.tokens == 6


def small_v1():
    """The golden checkpoint's model; None without it."""
    if not HAS_MODEL or not GOLDEN.exists():
        return None
    module = importlib.import_module("glm.models.chatglm1")
    folder = GOLDEN / "models" / "chatglm-6b"
    settings = json.loads((folder / "config.json").read_text())
    for key in ("auto_map", "architectures", "model_type", "torch_dtype"):
        settings.pop(key)
    model = module.ChatGLM1ForCausalLM(module.ChatGLM1Config(**settings)).eval()
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    model.load_state_dict({k: tensor for k, tensor in state.items() if "inv_freq" not in k})
    return model


def v1_answer(model, ids, new, prefix=None):
    """Logits of one prompt and the greedy ids after it, positions and mask by hand."""
    sop, gmask = (
        ids[0].tolist().index(i) for i in (model.config.bos_token_id, model.config.gmask_token_id)
    )
    cache, start, out, first = cache_of(prefix, 1), 0, ids[0].tolist(), None
    before = prefix.tokens if prefix else 0
    while True:
        columns = torch.arange(start, len(out))
        place = torch.where(columns < sop, columns, gmask)
        block = (columns - sop + 1).clamp(min=0)
        seen = torch.arange(-before, len(out))
        mask = (seen[None] <= columns[:, None]) | (seen[None] < sop)
        with torch.inference_mode():
            logits = model(
                input_ids=torch.tensor([out[start:]]),
                position_ids=torch.stack((place, block))[None],
                attention_mask=mask[None, None],
                past_key_values=cache,
                use_cache=True,
            ).logits
        first = logits if first is None else first
        if len(out) == ids.shape[1] + new:
            return first, torch.tensor([out])
        start = len(out)
        out.append(int(logits[0, -1].argmax()))


@pytest.mark.parametrize("name", ["chatglm-6b", "chatglm-6b-ptuning"])
def test_v1_answers_as_the_official_code_with_its_prefix(name, base):
    if (model := small_v1()) is None:
        return
    want = load_file(GOLDEN / "models" / "expected" / f"{name}.safetensors")
    prefix = None
    if name != "chatglm-6b":
        prefix = open_adapter(GOLDEN / "models" / name, base, model.config).prefix
    logits, _ = v1_answer(model, want["input_ids"], 0, prefix)
    assert (logits - want["logits"]).abs().max() <= 1e-4
    assert torch.equal(
        v1_answer(model, want["input_ids"][:, :22], 20, prefix)[1], want["greedy_ids"]
    )


def test_a_merged_linear_of_v1_merged_equals_beside(base, tmp_path):
    if (model := small_v1()) is None:
        return
    torch.save(merged_linear(), tmp_path / "chatglm-lora.pt")
    adapter = open_adapter(tmp_path, base, model.config, alpha=32)
    ids = load_file(GOLDEN / "models" / "expected" / "chatglm-6b.safetensors")["input_ids"]
    plain = v1_answer(model, ids, 0)[0]
    with hooked(model, adapter):
        beside = v1_answer(model, ids, 0)[0]
    merge(model, adapter)
    assert (v1_answer(model, ids, 0)[0] - beside).abs().max() < 1e-4
    assert (plain - beside).abs().max() > 0.01
