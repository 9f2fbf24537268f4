"""Original checkpoints answer as the official code; damaged ones are refused by name."""

import json
import os
import pickle
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from glm.checkpoint.recognise import EMBEDDED, recognise
from glm.device import pick_device, pick_dtype
from glm.errors import CheckpointError
from glm.export import Wanted, export
from glm.load import load_model
from tests.adapter_desk import LORA, random, write_peft
from tests.shared_files import CHATGLM3_TOKENIZER, GOLDEN
from tests.tiny_checkpoint import write_checkpoint

# With matrix units for bf16 (AMX) the official rounding is met to the last bit; oneDNN's other
# kernels add in another order, which shows in one logit of 14208.
BF16_BAR = 0.0 if torch.cpu._is_amx_tile_supported() else 1e-6

CASES = [
    ("chatglm3", "chatglm3", "float32", 1e-4),
    ("chatglm3-32k", "chatglm3-32k", "float32", 1e-4),
    ("chatglm3-bin-fp16", "chatglm3-bin-fp16", "float32", 1e-4),
    ("chatglm3-bin-fp16", "chatglm3-bin-fp16.bf16", "bfloat16", BF16_BAR),
]


@pytest.fixture
def folder(tmp_path):
    return write_checkpoint(tmp_path / "chatglm3-tiny", vocabulary=66000)


def positions(mask):
    return (mask.cumsum(-1) - 1).clamp(min=0)


def cached_greedy(model, ids, count):
    """One token at a time over a cache."""
    out, state = [], None
    with torch.inference_mode():
        for _ in range(count):
            step = model(input_ids=ids, past_key_values=state, use_cache=True)
            ids, state = step.logits[:, -1:].argmax(-1), step.past_key_values
            out.append(ids)
    return torch.cat(out, 1)


@pytest.mark.parametrize(("name", "expected", "dtype", "bar"), CASES)
def test_answers_equal_the_official_code(name, expected, dtype, bar):
    if not GOLDEN.exists():
        return
    want = load_file(GOLDEN / "models" / "expected" / f"{expected}.safetensors")
    info = recognise(GOLDEN / "models" / name, CHATGLM3_TOKENIZER)
    model = load_model(info, "cpu", dtype)
    ids, greedy = want["input_ids"], want["greedy_ids"]
    mask, batch = want["batch_attention_mask"], want["batch_input_ids"]
    with torch.inference_mode():
        logits = model(input_ids=ids).logits.float()
        padded = model(input_ids=batch, attention_mask=mask, position_ids=positions(mask)).logits
        batch_greedy = model.generate(
            batch, attention_mask=mask, max_new_tokens=24, do_sample=False, eos_token_id=None
        )
    assert (logits - want["logits"]).abs().max() <= bar
    assert torch.equal(cached_greedy(model, ids, 24), greedy[:, ids.shape[1] :])
    real = mask.bool()
    difference = (padded.float() - want["batch_logits"]).abs()[real].max()
    assert difference <= (bar if dtype == "float32" else 0.05)
    if dtype == "float32":
        assert torch.equal(batch_greedy, want["batch_greedy_ids"])


def test_the_parameter_count_comes_from_the_config(folder):
    info = recognise(folder)
    assert info.parameters == sum(p.numel() for p in load_model(info).parameters())


def test_remote_code_in_the_config_is_ignored(folder, tmp_path):
    canary = tmp_path / "canary"
    (folder / "modeling_chatglm.py").write_text(f"open({str(canary)!r}, 'w')")
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {"AutoModelForCausalLM": "modeling_chatglm.ChatGLM"}
    (folder / "config.json").write_text(json.dumps(config))
    load_model(recognise(folder))
    assert not canary.exists()


def test_a_pickle_with_code_is_refused_and_does_not_run(folder, tmp_path):
    canary = tmp_path / "canary"

    class Attack:
        def __reduce__(self):
            return os.system, (f"touch {canary}",)

    (folder / "model.safetensors").unlink()
    with (folder / "pytorch_model.bin").open("wb") as file:
        pickle.dump({"a": Attack()}, file)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is refused"):
        load_model(recognise(folder))
    assert not canary.exists()


def test_a_truncated_file_is_named(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is damaged or cut off"):
        load_model(recognise(folder))


def test_a_weight_of_another_shape_is_refused(folder):
    change(folder, "transformer.encoder.final_layernorm.weight", torch.ones(63))
    with pytest.raises(CheckpointError, match="chatglm3-tiny"):
        load_model(recognise(folder))


def test_a_missing_weight_is_named(folder):
    change(folder, "transformer.encoder.layers.1.mlp.dense_4h_to_h.weight", None)
    with pytest.raises(CheckpointError, match=r"lacks model\.layers\.1\.mlp\.down_proj\.weight"):
        load_model(recognise(folder))


def test_nan_weights_are_named(folder):
    change(folder, "transformer.encoder.final_layernorm.weight", torch.full((64,), torch.nan))
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight holds NaN"):
        load_model(recognise(folder))


def change(folder, name, tensor):
    tensors = load_file(folder / "model.safetensors")
    tensors.pop(name)
    if tensor is not None:
        tensors[name] = tensor
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


REFUSED = {
    "three bits": ({"quantization_bit": 3}, "quantization_bit 3 is not 4 or 8"),
    "other architecture": ({"rmsnorm": False}, "rmsnorm=False is not supported"),
    "pictures": ({"vision_config": {"depth": 2}}, "this model reads pictures"),
    "no model type": ({"model_type": None}, "has no model_type"),
    "no length": ({"seq_length": None}, "seq_length missing"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_chatglm3_is_refused_by_name(tmp_path, case):
    changes, sentence = REFUSED[case]
    folder = write_checkpoint(tmp_path / "model", vocabulary=300, **changes)
    with pytest.raises(CheckpointError, match=sentence):
        load_model(recognise(folder))


def test_missing_files_are_named(folder, tmp_path):
    with pytest.raises(CheckpointError, match="no folder at"):
        recognise(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match=r"no config\.json in"):
        recognise(tmp_path)
    (folder / "tokenizer.model").unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match="TOKENIZER_PATH"):
        recognise(folder)
    (folder / "model.safetensors").unlink()
    (folder / "tokenizer.model").write_bytes(b"")
    with pytest.raises(CheckpointError, match="no weights in"):
        recognise(folder)


@pytest.mark.parametrize("name", ["../x.safetensors", "gone.safetensors"])
def test_an_index_names_only_files_that_are_here(folder, name):
    index = {"weight_map": {"a": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="outside its folder|is missing"):
        recognise(folder)


def test_devices_and_dtypes_are_checked():
    with pytest.raises(CheckpointError, match=r"device 'tpu' is not here; available: .*cpu"):
        pick_device("tpu")
    with pytest.raises(CheckpointError, match="dtype 'int3' is unknown"):
        pick_dtype("int3", torch.device("cpu"), 10)
    assert pick_dtype("auto", torch.device("cpu"), 10) == torch.float32
    assert pick_dtype("auto", torch.device("cpu"), 6_000_000_000) == torch.bfloat16
    assert pick_dtype("bf16", torch.device("cpu"), 10) == torch.bfloat16


def test_chatglm2_32k_divides_positions_and_chatglm3_32k_scales_the_base(tmp_path):
    long2 = write_checkpoint(tmp_path / "chatglm2-6b-32k", vocabulary=300, rope_ratio=4)
    long3 = write_checkpoint(tmp_path / "chatglm3-6b-32k", vocabulary=300, rope_ratio=50)
    two, three = (load_model(recognise(f)).config.rope_parameters for f in (long2, long3))
    assert (two["rope_type"], two["factor"], two["rope_theta"]) == ("linear", 4.0, 10000.0)
    assert (three["rope_type"], three["rope_theta"]) == ("default", 500000.0)


@pytest.mark.parametrize("layout", ["original", "native"])
def test_an_adapter_in_the_folder_of_its_model_does_not_change_the_model(tmp_path, layout):
    """transformers would put it on by itself; here it is opened as an adapter, by choice."""
    folder = tmp_path / "model"
    if layout == "original":
        shutil.copytree(EMBEDDED, folder)
    else:
        export(Wanted(EMBEDDED, folder, to="native"))
    plain = load_model(recognise(folder), "cpu")
    tensors = {}
    for name, module in plain.named_modules():
        if name.endswith("q_proj"):
            key = f"base_model.model.{name}.lora_"
            tensors[f"{key}A.weight"] = random(4, module.in_features)
            tensors[f"{key}B.weight"] = random(module.out_features, 4)
    base = {"base_model_name_or_path": "other/model", "task_type": "CAUSAL_LM"}
    write_peft(folder, tensors, {**LORA, **base, "target_modules": ["q_proj"]})
    again = load_model(recognise(folder), "cpu")
    assert dict(again.named_modules()).keys() == dict(plain.named_modules()).keys()
    ids = torch.arange(5, 15)[None]
    with torch.inference_mode():
        assert torch.equal(again(input_ids=ids).logits, plain(input_ids=ids).logits)
