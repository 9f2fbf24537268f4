"""Adapters of every layout in use change the answer exactly as the program that made them did."""

import shutil
import time

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from glm.adapters.merging import merge
from glm.adapters.opening import describe, open_adapter
from glm.adapters.sources import looks_like_adapter
from glm.checkpoint.recognise import recognise
from glm.load import load_model
from tests.adapter_desk import LORA, answer, fused_lora, hooked, renamed, write_peft
from tests.shared_files import CHATGLM3_TOKENIZER, GOLDEN, TINY
from tests.tiny_checkpoint import write_checkpoint

# PEFT's own use of transformers.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

MODELS = GOLDEN / "models"
ROWS = {
    "lora-qkv": ("LoRA", 8, None),
    "lora-all-rslora": ("rsLoRA", 8, None),
    "lora-dora": ("DoRA", 8, None),
    "lora-pt": ("LoRA", 8, None),
    "lora-compiled": ("LoRA", 8, None),
    "ptuning": ("P-Tuning v2", None, 8),
    "ptuning-projection": ("P-Tuning v2", None, 11),
}
ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj"]


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
def golden():
    """(model info, model) of the tiny official checkpoint; None where it is not."""
    if not GOLDEN.exists():
        return None
    info = recognise(MODELS / "chatglm3", CHATGLM3_TOKENIZER)
    return info, load_model(info, "cpu", "float32")


def opened(name, golden, folder):
    info, model = golden
    place = shutil.copytree(MODELS / name, folder / name, copy_function=shutil.copyfile)
    place.chmod(0o755)
    return open_adapter(place, info, model.config, 32 if name == "lora-pt" else None)


def equal_to_golden(model, name, prefix=None):
    want = load_file(MODELS / "expected" / f"{name}.safetensors")
    for kind in ("", "batch_"):
        ids = want[f"{kind}input_ids"]
        mask = want.get(f"{kind}attention_mask", torch.ones_like(ids))
        logits, greedy = answer(model, ids, mask, 24, prefix)
        assert (logits - want[f"{kind}logits"]).abs()[mask.bool()].max() <= 1e-4
        assert torch.equal(greedy, want[f"{kind}greedy_ids"])


@pytest.mark.parametrize("name", [name for name in ROWS if name.startswith("lora")])
@pytest.mark.parametrize("way", ["merged", "beside"])
def test_a_lora_answers_as_the_official_code_with_it(name, way, golden, tmp_path):
    if golden is None:
        return
    adapter, model = opened(name, golden, tmp_path), golden[1]
    if way == "merged":
        merge(model, adapter)
        equal_to_golden(model, name)
    else:
        with hooked(model, adapter):
            equal_to_golden(model, name)
        equal_to_golden(model, "chatglm3")


@pytest.mark.parametrize("name", [name for name in ROWS if name.startswith("ptuning")])
def test_a_prefix_answers_as_the_official_code_with_it(name, golden, tmp_path):
    if golden is not None:
        equal_to_golden(golden[1], name, opened(name, golden, tmp_path).prefix)


@pytest.mark.parametrize("name", ROWS)
def test_what_it_is_is_told_from_its_content(name):
    if GOLDEN.exists():
        kind, rank, tokens = ROWS[name]
        assert looks_like_adapter(MODELS / name) == kind
        found = describe(MODELS / name)
        assert (found.kind, found.rank, found.tokens, found.name) == (kind, rank, tokens, name)


def test_models_and_other_folders_are_no_adapters(base, tmp_path):
    (tmp_path / "notes.bin").write_text("no tensors")
    torch.save({"step": torch.ones(1)}, tmp_path / "state.pt")
    for place in (base.path, TINY, tmp_path, tmp_path / "notes.bin", tmp_path / "none"):
        assert looks_like_adapter(place) is None


@pytest.fixture
def answers_with_the_lora(base, model, tmp_path, ids):
    """Logits of a checkpoint whose fused weights hold the update already."""
    state = load_file(base.weights[0])
    lora = fused_lora(model.config)
    for key in (key for key in lora if "lora_A" in key):
        weight = key.replace("base_model.model.", "").replace("lora_A.", "")
        state[weight] += 16 / 4 * lora[key.replace("lora_A", "lora_B")] @ lora[key]
    folder = shutil.copytree(base.path, tmp_path / "changed")
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with torch.inference_mode():
        return load_model(recognise(folder), "cpu", "float32")(input_ids=ids).logits


def written(layout, folder, tensors):
    compiled = renamed(tensors, "_orig_mod.", ".default")
    if layout == "safetensors":
        return write_peft(folder, tensors, LORA)
    if layout == "bin":
        return write_peft(folder, tensors, LORA, pickled=True)
    if layout == "compiled":
        return write_peft(folder, compiled, LORA, pickled=True)
    if layout == "compiled inside":
        inside = {
            key.replace("model.trans", "model._orig_mod.trans"): tensors[key] for key in tensors
        }
        return write_peft(folder, renamed(inside, "module.", ".mine"), LORA)
    folder.mkdir()
    if layout == "config file":
        return write_peft(folder, tensors, LORA) / "adapter_config.json"
    file = folder / {"bare": "pytorch_model.pt", "own name": "of-mine.pt"}.get(layout, "x.pt")
    legacy = layout == "old pickle"
    torch.save(
        {"state_dict": compiled} if layout == "nested" else compiled,
        file,
        _use_new_zipfile_serialization=not legacy,
    )
    return file if layout == "own name" else folder


@pytest.mark.parametrize(
    "layout",
    [
        "safetensors",
        "bin",
        "compiled",
        "compiled inside",
        "config file",
        "bare",
        "own name",
        "nested",
        "old pickle",
    ],
)
def test_a_lora_on_query_key_value_opens_in_every_layout(
    layout, base, model, ids, answers_with_the_lora, tmp_path
):
    place = written(layout, tmp_path / "lora", fused_lora(model.config))
    bare = None if (tmp_path / "lora" / "adapter_config.json").exists() else 16
    adapter = open_adapter(place, base, model.config, bare)
    assert adapter.info.rank == 4 and not adapter.info.warnings
    with hooked(model, adapter), torch.inference_mode():
        assert (model(input_ids=ids).logits - answers_with_the_lora).abs().max() < 1e-4
    merge(model, adapter)
    with torch.inference_mode():
        assert (model(input_ids=ids).logits - answers_with_the_lora).abs().max() < 1e-4


PEFT_SETTINGS = {
    "LoRA": {"target_modules": ["q_proj", "v_proj"]},
    "DoRA": {"target_modules": ALL, "use_dora": True},
    "rsLoRA": {"target_modules": ALL, "use_rslora": True},
    "patterns": {
        "target_modules": ALL,
        "use_rslora": True,
        "rank_pattern": {"q_proj": 2, r"layers\.1\.mlp\.down_proj": 6},
        "alpha_pattern": {"self_attn.(k|v)_proj": 5, "^model.layers.0.mlp.down_proj": 3},
    },
    "one layer": {"target_modules": ["o_proj"], "layers_to_transform": [1]},
    "head": {"target_modules": ["lm_head", "down_proj"]},
}


def peft_model(model, **settings):
    """The model under PEFT with an adapter that does something."""
    torch.manual_seed(5)
    config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=12, **settings)
    wrapped = get_peft_model(model, config).eval()
    for name, weight in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
        elif "magnitude" in name:
            weight.data *= 1.5
    return wrapped


@pytest.mark.parametrize("kind", PEFT_SETTINGS)
def test_a_lora_on_native_names_answers_as_under_peft(kind, base, model, ids, tmp_path):
    wrapped = peft_model(model, **PEFT_SETTINGS[kind])
    wrapped.save_pretrained(str(tmp_path / "lora"), save_embedding_layers=False)
    with torch.inference_mode():
        want = wrapped(input_ids=ids).logits
    model = load_model(base, "cpu", "float32")
    adapter = open_adapter(tmp_path / "lora", base, model.config)
    with hooked(model, adapter), torch.inference_mode():
        beside = model(input_ids=ids).logits
    merge(model, adapter)
    with torch.inference_mode():
        merged = model(input_ids=ids).logits
        plain = load_model(base, "cpu", "float32")(input_ids=ids).logits
    assert (beside - want).abs().max() < 1e-4
    assert (merged - want).abs().max() < 1e-4
    assert (plain - want).abs().max() > 0.01


def test_a_lora_of_the_embedded_models_size_opens_in_50_ms(tmp_path):
    info = recognise(TINY)
    model = load_model(info)
    peft_model(model, target_modules=ALL).save_pretrained(str(tmp_path / "lora"))
    config, seconds = load_model(info).config, []
    for _ in range(5):
        start = time.perf_counter()
        adapter = open_adapter(tmp_path / "lora", info, config)
        seconds.append(time.perf_counter() - start)
    assert len(adapter.lora) == 6 * config.num_hidden_layers
    assert min(seconds) < 0.05


def test_an_opened_adapter_does_not_need_its_file_any_more(base, model, tmp_path):
    folder = write_peft(tmp_path / "lora", fused_lora(model.config), LORA)
    adapter = open_adapter(folder, base, model.config)
    (folder / "adapter_model.safetensors").write_bytes(b"")
    assert all(bool(torch.isfinite(part.b).all()) for part in adapter.lora.values())


def test_the_newest_checkpoint_of_a_run_that_is_an_adapter_is_opened(base, model, tmp_path):
    for step in (5, 40, 100):
        lora = {key: tensor * step for key, tensor in fused_lora(model.config).items()}
        write_peft(tmp_path / "run" / f"checkpoint-{step}", lora, LORA)
    (tmp_path / "run" / "checkpoint-100" / "adapter_model.safetensors").unlink()
    adapter = open_adapter(tmp_path / "run", base, model.config)
    assert adapter.info.name == "run-checkpoint-40"
    assert adapter.lora["model.layers.0.self_attn.q_proj"].b[0, 0]
