"""P-Tuning v2 and PEFT prefixes, whatever files they are in, answer as where they were trained."""

import json

import pytest
import torch
from peft import PeftModel, PrefixTuningConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, MistralConfig, Qwen3Config

from glm.adapters.opening import describe, open_adapter
from glm.adapters.prefix import OFFICIAL_KEY
from glm.adapters.saving import save_official_prefix, save_peft_prefix
from glm.adapters.sources import looks_like_adapter
from glm.checkpoint.recognise import recognise
from glm.errors import CheckpointError
from glm.load import load_model
from tests.adapter_desk import answer, random
from tests.tiny_checkpoint import CONFIG, weights, write_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

TOKENS, WIDTH = 5, 2 * 2 * 2 * 16  # layers, key and value, heads, head dim of the tiny model
SMALL = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return recognise(write_checkpoint(tmp_path_factory.mktemp("base") / "tiny", vocabulary=512))


@pytest.fixture(scope="module")
def model(base):
    return load_model(base, "cpu", "float32")


@pytest.fixture
def ids():
    return torch.arange(3, 23)[None]


def write(folder, layout, tensors):
    """A prefix encoder's tensors as the official scripts of several years left them."""
    folder.mkdir(parents=True)
    whole = weights({**CONFIG, "padded_vocab_size": 512}, 3) | tensors
    if layout == "bin":
        torch.save(tensors, folder / "pytorch_model.bin")
    elif layout == "safetensors":
        save_file(tensors, folder / "model.safetensors")
    elif layout == "whole":
        torch.save(whole, folder / "pytorch_model.bin")
    elif layout == "compiled":
        save_file(
            {f"_orig_mod.{k}": tensor for k, tensor in tensors.items()},
            folder / "model.safetensors",
        )
    elif layout == "checkpoint":
        write(folder / "checkpoint-7", "whole", tensors)
        write(folder / "checkpoint-20", "bin", tensors)
        torch.save({"state": {}}, folder / "checkpoint-20" / "optimizer.pt")
    else:
        shard(folder, whole, "bin" if layout == "sharded bin" else "safetensors")


def shard(folder, tensors, kind):
    stem = {"bin": "pytorch_model", "safetensors": "model"}[kind]
    placed = {}
    for number, names in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2]), 1):
        file = f"{stem}-0000{number}-of-00002.{kind}"
        part = {name: tensors[name] for name in names}
        torch.save(part, folder / file) if kind == "bin" else save_file(part, folder / file)
        placed |= dict.fromkeys(names, file)
    (folder / f"{stem}.{kind}.index.json").write_text(json.dumps({"weight_map": placed}))


LAYOUTS = (
    "bin",
    "safetensors",
    "whole",
    "compiled",
    "checkpoint",
    "sharded bin",
    "sharded safetensors",
)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_prefix_opens_in_every_layout_the_scripts_wrote(layout, base, model, tmp_path):
    table = random(TOKENS, WIDTH)
    write(tmp_path / "pt", layout, {OFFICIAL_KEY: table})
    assert looks_like_adapter(tmp_path / "pt") == "P-Tuning v2"
    assert describe(tmp_path / "pt").tokens == TOKENS
    prefix = open_adapter(tmp_path / "pt", base, model.config).prefix
    assert prefix.keys.shape == (2, 2, TOKENS, 16)
    assert torch.equal(prefix.keys[1, 0, 3], table[3].view(2, 2, 2, 16)[1, 0, 0])
    assert torch.equal(prefix.values[0, 1, 4], table[4].view(2, 2, 2, 16)[0, 1, 1])


def test_a_projection_is_evaluated_once(base, model, tmp_path):
    encoder = torch.nn.Sequential(
        torch.nn.Linear(WIDTH, 24), torch.nn.Tanh(), torch.nn.Linear(24, WIDTH)
    )
    table, at = random(TOKENS, WIDTH), "transformer.prefix_encoder"
    state = {f"{at}.trans.{name}": tensor for name, tensor in encoder.state_dict().items()}
    plain = {OFFICIAL_KEY: encoder(table).detach()}
    write(tmp_path / "projected", "bin", {f"{at}.embedding.weight": table, **state})
    write(tmp_path / "plain", "bin", plain)
    one, other = (open_adapter(tmp_path / n, base, model.config) for n in ("projected", "plain"))
    assert torch.allclose(one.prefix.keys, other.prefix.keys, atol=1e-6)
    assert torch.allclose(one.prefix.values, other.prefix.values, atol=1e-6)
    assert one.prefix.tokens == TOKENS


def trained(native, folder, **settings):
    """A PEFT prefix folder with a strong prefix, and the wrapped model."""
    config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=TOKENS, **settings)
    torch.manual_seed(1)
    wrapped = get_peft_model(native, config).eval()
    wrapped.save_pretrained(str(folder))
    return wrapped


def with_prefix(native, ids, prefix):
    return answer(native, ids, torch.ones_like(ids), 0, prefix)[0]


NATIVE = {
    "llama": LlamaConfig(**SMALL),
    "llama linear": LlamaConfig(
        **SMALL, rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}
    ),
    "llama3": LlamaConfig(
        **SMALL,
        rope_parameters={
            "rope_type": "llama3",
            "factor": 8.0,
            "rope_theta": 10000.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    ),
    "mistral": MistralConfig(**SMALL, sliding_window=None),
    "qwen3": Qwen3Config(**SMALL),
}


@pytest.mark.parametrize("projection", [False, True])
def test_a_peft_prefix_answers_as_under_peft(projection, base, ids, tmp_path):
    native = load_model(base, "cpu", "float32")
    wrapped = trained(
        native, tmp_path / "peft", prefix_projection=projection, encoder_hidden_size=24
    )
    with torch.inference_mode():
        want, plain = wrapped(input_ids=ids).logits, native(input_ids=ids).logits
    adapter = open_adapter(tmp_path / "peft", base, native.config)
    assert (adapter.info.kind, adapter.info.tokens) == ("prefix", TOKENS)
    assert (with_prefix(native, ids, adapter.prefix) - want).abs().max() < 1e-4
    assert (plain - want).abs().max() > 0.01


@pytest.mark.parametrize("name", NATIVE)
def test_a_peft_prefix_of_another_architecture_answers_as_under_peft(name, base, ids, tmp_path):
    torch.manual_seed(0)
    native = AutoModelForCausalLM.from_config(NATIVE[name]).eval()
    wrapped = trained(native, tmp_path / "peft")
    with torch.inference_mode():
        want = wrapped(input_ids=ids).logits
    prefix = open_adapter(tmp_path / "peft", base, native.config).prefix
    assert (with_prefix(native, ids, prefix) - want).abs().max() < 1e-4


def test_a_peft_prefix_of_another_depth_is_refused_by_both_numbers(base, model, tmp_path):
    trained(load_model(base, "cpu", "float32"), tmp_path / "peft")
    file = tmp_path / "peft" / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "num_layers": 4}))
    with pytest.raises(CheckpointError, match="made for 4 layers, this model has 2"):
        open_adapter(tmp_path / "peft", base, model.config)


@pytest.mark.parametrize("rope", ["dynamic", "longrope"])
def test_positions_that_cannot_be_turned_are_refused(rope, base, tmp_path):
    config = LlamaConfig(**SMALL)
    trained(AutoModelForCausalLM.from_config(config), tmp_path / "peft")
    config.rope_parameters = {"rope_type": rope, "factor": 2.0, "rope_theta": 10000.0}
    with pytest.raises(CheckpointError, match=f"llama \\({rope} positions\\) cannot be converted"):
        open_adapter(tmp_path / "peft", base, config)


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.safetensors"])
def test_an_official_prefix_saved_and_opened_again_is_the_same(file, base, model, tmp_path):
    write(tmp_path / "pt", "bin", {OFFICIAL_KEY: random(TOKENS, WIDTH)})
    adapter = open_adapter(tmp_path / "pt", base, model.config)
    save_official_prefix(adapter, tmp_path / "again" / file)
    again = open_adapter(tmp_path / "again", base, model.config)
    assert again.info.kind == "P-Tuning v2"
    assert torch.equal(again.prefix.keys, adapter.prefix.keys)
    assert torch.equal(again.prefix.values, adapter.prefix.values)
    assert not [p for p in (tmp_path / "again").iterdir() if p.name != file]


def test_a_prefix_saved_for_peft_answers_there_as_here(base, ids, tmp_path):
    write(tmp_path / "pt", "bin", {OFFICIAL_KEY: random(TOKENS, WIDTH, size=1.0)})
    native = load_model(base, "cpu", "float32")
    adapter = open_adapter(tmp_path / "pt", base, native.config)
    want = with_prefix(native, ids, adapter.prefix)
    save_peft_prefix(adapter, native.config, tmp_path / "peft")
    again = open_adapter(tmp_path / "peft", base, native.config)
    assert (again.prefix.keys - adapter.prefix.keys).abs().max() < 1e-6
    assert torch.equal(again.prefix.values, adapter.prefix.values)
    wrapped = PeftModel.from_pretrained(native, str(tmp_path / "peft")).eval()
    with torch.inference_mode():
        assert (wrapped(input_ids=ids).logits - want).abs().max() < 1e-4
