"""What cannot be opened is refused in one sentence that names the file, and nothing of it runs."""

import json
import re
import shutil
import sys
import types

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    MistralConfig,
    MistralForCausalLM,
)

from glm import device, load
from glm.adapters.sources import find
from glm.checkpoint.recognise import recognise
from glm.engines.base import Request
from glm.engines.local import LocalEngine
from glm.errors import CheckpointError
from glm.inspect import inspect
from glm.load import load_model, make_plan
from glm.manager import Manager
from glm.opening import Opening
from glm.tokenizers.opening import open_tokenizer
from tests.dialect_desk import CHATML
from tests.shared_files import CHATGLM3_TOKENIZER, TINY
from tests.tiny_checkpoint import write_checkpoint
from tests.tiny_families import FAMILIES, ICE, write, write_hub_tokenizer
from tests.tiny_glm import generated, greedy, read

ROWS = {tiny.folder: tiny for tiny in FAMILIES}


def refused(folder, sentence, tokenizer=None):
    with pytest.raises(CheckpointError) as caught:
        info = recognise(folder, tokenizer)
        open_tokenizer(info)
        load_model(info, "cpu", "float32")
    assert re.search(sentence, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)


def edit(folder, **changes):
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture
def chatglm3(tmp_path):
    return write_checkpoint(tmp_path / "chatglm3-tiny", vocabulary=66000)


@pytest.fixture
def qwen(tmp_path):
    return write(ROWS["Qwen3-0.6B"], tmp_path)


# ---- adapters and prefixes opened as models ------------------------------------------------


def test_a_prefix_without_the_model_is_no_model(chatglm3):
    edit(chatglm3, pre_seq_len=8)
    prefix = {"transformer.prefix_encoder.embedding.weight": torch.zeros(8, 128)}
    (chatglm3 / "model.safetensors").unlink()
    torch.save(prefix, chatglm3 / "pytorch_model.bin")
    refused(chatglm3, "a P-Tuning checkpoint without the model; open its base model")


def test_a_prefix_with_the_model_opens_as_its_base_and_says_so(chatglm3):
    plain = load_model(recognise(chatglm3), "cpu", "float32")
    edit(chatglm3, pre_seq_len=8, prefix_projection=False)
    tensors = load_file(chatglm3 / "model.safetensors")
    tensors["transformer.prefix_encoder.embedding.weight"] = torch.zeros(8, 128)
    save_file(tensors, chatglm3 / "model.safetensors", metadata={"format": "pt"})
    info = recognise(chatglm3)
    assert "its P-Tuning prefix of 8 tokens is not applied" in info.reason
    model = load_model(info, "cpu", "float32")
    assert torch.equal(model.lm_head.weight, plain.lm_head.weight)


def test_an_adapter_is_no_model(tmp_path, chatglm3):
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text("{}")
    refused(tmp_path / "lora", "this is an adapter, open its base model")
    (chatglm3 / "model.safetensors").rename(chatglm3 / "adapter_model.safetensors")
    refused(chatglm3, "is an adapter; open its base model, then the adapter")


# ---- weights -------------------------------------------------------------------------------


def test_a_truncated_shard_is_named(qwen):
    tensors = load_file(qwen / "model.safetensors")
    names = sorted(tensors)
    parts = {"a-1.safetensors": names[:5], "a-2.safetensors": names[5:]}
    for file, keys in parts.items():
        save_file({k: tensors[k] for k in keys}, qwen / file, metadata={"format": "pt"})
    index = {"weight_map": {key: file for file, keys in parts.items() for key in keys}}
    index["metadata"] = {"total_size": 1}
    (qwen / "model.safetensors.index.json").write_text(json.dumps(index))
    (qwen / "model.safetensors").unlink()
    load_model(recognise(qwen), "cpu", "float32")
    shard = qwen / "a-2.safetensors"
    shard.write_bytes(shard.read_bytes()[:-7])
    refused(qwen, r"a-2\.safetensors is damaged or cut off: \d+ bytes are expected, \d+ are there")
    shard.write_bytes(b"\xff" * 64)
    refused(qwen, r"a-2\.safetensors is damaged or cut off")
    shard.unlink()
    refused(qwen, r"a-2\.safetensors is missing; model\.safetensors\.index\.json names it")


@pytest.mark.parametrize("original", [True, False])
def test_a_folder_that_transformers_saved_opens_again(chatglm3, tmp_path, original):
    model = load_model(recognise(chatglm3), "cpu", "float32")
    model.save_pretrained(tmp_path / "chatglm3-saved", save_original_format=original)
    shutil.copy(chatglm3 / "tokenizer.model", tmp_path / "chatglm3-saved")
    info = recognise(tmp_path / "chatglm3-saved")
    assert (info.family, info.context, info.parameters) == (
        *("ChatGLM3", 256),
        sum(p.numel() for p in model.parameters()),
    )
    again = load_model(info, "cpu", "float32").state_dict()
    assert all(torch.equal(again[name], weight) for name, weight in model.state_dict().items())


def test_nan_in_a_hub_model_is_named(qwen):
    tensors = load_file(qwen / "model.safetensors")
    tensors["model.norm.weight"][3] = torch.nan
    save_file(tensors, qwen / "model.safetensors", metadata={"format": "pt"})
    refused(qwen, r"model\.norm\.weight holds NaN")


def test_a_hub_model_that_lacks_a_weight_is_refused(qwen):
    tensors = load_file(qwen / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, qwen / "model.safetensors", metadata={"format": "pt"})
    refused(qwen, r"lacks model\.layers\.1\.mlp\.up_proj\.weight")


# ---- architectures -------------------------------------------------------------------------


def test_code_of_a_checkpoint_is_asked_for_by_name_and_never_runs(qwen, tmp_path):
    canary = tmp_path / "canary"
    (qwen / "modeling_new.py").write_text(f"open({str(canary)!r}, 'w')")
    auto = {"AutoConfig": "modeling_new.C", "AutoModelForCausalLM": "modeling_new.M"}
    edit(qwen, model_type="brand_new", architectures=["NewForCausalLM"], auto_map=auto)
    refused(qwen, "'brand_new' needs program code out of the checkpoint, which is never run")
    edit(qwen, model_type="qwen3", architectures=["Qwen3ForCausalLM"])
    load_model(recognise(qwen), "cpu", "float32")  # known by name: its own code is left alone
    assert not canary.exists()


def test_an_unknown_architecture_is_named(qwen):
    edit(qwen, model_type="brand_new")
    refused(qwen, r"transformers 5\.\S+ does not know model_type 'brand_new'")


def test_a_model_that_does_not_write_text_is_refused(qwen):
    for kind in ("Qwen3ForSequenceClassification", "T5ForConditionalGeneration", "BertModel"):
        edit(qwen, architectures=[kind])
        refused(qwen, f"{kind} is no model that continues text")
    edit(qwen, architectures=None, layer_types=["linear_attention", "full_attention"])
    refused(qwen, "layers of linear_attention are not supported")


def native(folder, model, **changes):
    """Save a model of any architecture beside a tokenizer."""
    folder.mkdir()
    model.save_pretrained(folder)
    write_hub_tokenizer(folder, ("<|im_start|>", "<|im_end|>"), CHATML, end=1)
    edit(folder, eos_token_id=257, **changes)
    return folder


def test_an_encoder_that_claims_nothing_is_refused(tmp_path):
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BertConfig(vocab_size=300, intermediate_size=32, is_decoder=False, **small)
    folder = native(tmp_path / "bert", BertModel(config), architectures=None)
    refused(folder, "bert")


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("mamba", "the engine cannot run model_type 'mamba'"),
        ("rwkv", "model_type 'rwkv' keeps a state that the engine does not, so it would answer"),
    ],
)
def test_an_architecture_with_another_kind_of_memory_is_refused(tmp_path, kind, sentence):
    small = {"vocab_size": 300, "hidden_size": 32, "state_size": 8, "num_hidden_layers": 2}
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **small))
    refused(native(tmp_path / kind, model), sentence)


@pytest.mark.parametrize("kind", ["gpt2", "glm4_moe_lite", "phi3"])
def test_an_architecture_that_no_table_names_is_tried_and_answers_as_generate_does(tmp_path, kind):
    small = {"vocab_size": 300, "hidden_size": 64, "num_hidden_layers": 2, "q_lora_rank": 16}
    small |= {"num_attention_heads": 4, "intermediate_size": 64, "kv_lora_rank": 16, "n_group": 1}
    small |= {"moe_intermediate_size": 32, "n_routed_experts": 4, "num_experts_per_tok": 2}
    small |= {"qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 12, "topk_group": 1}
    small |= {"initializer_range": 0.3, "pad_token_id": 0, "num_key_value_heads": 4}
    config = AutoConfig.for_model(kind, **small)
    folder = native(tmp_path / kind, AutoModelForCausalLM.from_config(config))
    model = load_model(recognise(folder), "cpu", "float32")
    engine = LocalEngine(model, context=64, prefill_chunk=3)
    prompts = [tuple(range(3, 14)), (5, 6)]
    try:
        streams = [engine.submit(Request(prompt, greedy(12))) for prompt in prompts]
        answers = [read(stream).ids for stream in streams]
    finally:
        engine.close()
    assert answers == [generated(model, p, 12, eos_token_id=None) for p in prompts]


def test_attention_that_slides_is_used_up_to_its_window(tmp_path):
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    config = MistralConfig(vocab_size=300, sliding_window=16, **small, **heads)
    info = recognise(native(tmp_path / "mistral", MistralForCausalLM(config)))
    assert info.context == 16
    assert "only 16 of" in info.reason
    load_model(info, "cpu", "float32")


# ---- tokenizers of others ------------------------------------------------------------------


def test_another_family_s_tokenizer_is_refused(tmp_path, chatglm3, qwen):
    glm = write(ROWS["GLM-4-9B-0414"], tmp_path)
    refused(glm, "is another family's tokenizer: it has no", qwen)
    edit(qwen, eos_token_id=100)
    refused(qwen, "the end token 100 of config.json is none of its control tokens", glm)
    edit(qwen, vocab_size=100)
    refused(qwen, r"another model's tokenizer: it has \d+ ids, and Qwen3-0\.6B has 100 rows")
    edit(chatglm3, padded_vocab_size=512)
    refused(chatglm3, r"another model's tokenizer: it has \d+ ids, and chatglm3-tiny has 512 rows")
    edit(chatglm3, padded_vocab_size=65024)
    refused(chatglm3, "another model's tokenizer", TINY)
    if ICE.exists():
        refused(chatglm3, "another model's tokenizer", ICE)


def test_a_file_of_ranks_that_is_none_is_named(tmp_path):
    folder = write(ROWS["glm-4-9b-chat"], tmp_path)
    edit(folder, padded_vocab_size=151552)
    shutil.copy(TINY / "tokenizer.model", folder / "tokenizer.model")
    refused(folder, r"tokenizer\.model is not a file of token ranks")


def test_the_published_vocabulary_opens(tmp_path):
    if CHATGLM3_TOKENIZER.exists():
        open_tokenizer(recognise(write_checkpoint(tmp_path / "chatglm3-6b")))


# ---- memory and devices --------------------------------------------------------------------


def test_a_model_larger_than_the_memory_is_refused_and_the_one_before_serves(
    chatglm3, qwen, monkeypatch
):
    manager = Manager(qwen, Opening(device="cpu"))
    try:
        manager.open(qwen)
        monkeypatch.setattr(load, "free_memory", lambda where: 1000)
        with pytest.raises(CheckpointError, match="needs about .* GB, 0.0 GB are free"):
            manager.open(chatglm3, Opening(device="cpu", dtype="bfloat16"))
        assert manager.state().status == "ready"
        assert manager.state().info.name == "Qwen3-0.6B"
    finally:
        manager.close()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_running_out_while_loading_is_a_sentence(chatglm3, monkeypatch, error):
    def no_room(*_):
        raise error

    monkeypatch.setattr(load, "_from_pretrained", no_room)
    refused(chatglm3, "not enough memory for chatglm3-tiny")


def test_without_room_for_a_copy_the_files_own_type_is_kept(chatglm3, monkeypatch):
    info = recognise(chatglm3)
    assert make_plan(info, "cpu", "bfloat16", None).kind == torch.bfloat16
    monkeypatch.setattr(
        load,
        "pick_dtype",
        lambda wanted, *rest: {"auto": torch.bfloat16, "file": torch.float32}[wanted],
    )
    monkeypatch.setattr(load, "free_memory", lambda where: 1000)
    assert make_plan(info, "cpu", "auto", None).kind == torch.float32


def test_only_a_model_too_large_for_one_card_is_spread_over_several(monkeypatch):
    card = types.SimpleNamespace(total_memory=24e9)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: card)
    for cards, wanted, size, spread in (
        (2, "auto", 62e9, True),
        (2, "auto", 12e9, False),
        (2, "cuda", 62e9, False),
        (1, "auto", 62e9, False),
        (0, "auto", 62e9, False),
    ):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cards=cards: cards > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda cards=cards: cards)
        assert device.needs_several(wanted, size) is spread


def test_a_container_s_limit_counts(tmp_path):
    assert device._group_free(tmp_path) is None
    for name, text in {"memory.max": "1000\n", "memory.current": "700\n"}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "memory.stat").write_text("anon 500\nfile 200\n")
    assert device._group_free(tmp_path) == 500
    (tmp_path / "memory.max").write_text("max\n")
    assert device._group_free(tmp_path) is None
    assert device.free_memory(torch.device("cpu")) > 0


def test_what_is_quantised_already_is_not_quantised_again(qwen):
    edit(qwen, quantization_config={"quant_method": "gptq", "bits": 4})
    refused(qwen, "cannot be opened: .*GPTQ")
    with pytest.raises(CheckpointError, match="is quantised already; open it without bits"):
        load_model(recognise(qwen), "cpu", "auto", 4)


def test_bits_are_four_or_eight(chatglm3):
    with pytest.raises(CheckpointError, match="3 bits are unknown; allowed: 4, 8"):
        load_model(recognise(chatglm3), "cpu", "auto", 3)


def test_a_packed_checkpoint_is_told_by_its_bits_and_unpacked_under_the_hub_s_names(
    chatglm3, monkeypatch
):
    tensors = load_file(chatglm3 / "model.safetensors")
    packed = types.ModuleType("glm.quantisation.packed")
    packed.unpacked_state = lambda info, dtype: {k: v.to(dtype) for k, v in tensors.items()}
    monkeypatch.setitem(sys.modules, "glm.quantisation.packed", packed)
    plain = load_model(recognise(chatglm3), "cpu", "float32").state_dict()
    for bits in (4, 8, 0):
        edit(chatglm3, quantization_bit=bits)
        info = recognise(chatglm3)
        assert info.packed_bits == (bits or None)
        state = load_model(info, "cpu", "float32").state_dict()
        assert all(torch.equal(state[name], plain[name]) for name in plain)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("architectures", True),
        ("padded_vocab_size", "many"),
        ("kv_channels", [1]),
        ("layer_types", [1]),
        ("sliding_window", "wide"),
        ("num_attention_heads", 0),
    ],
)
def test_a_config_with_a_value_of_another_kind_is_refused_by_its_name(tmp_path, key, value):
    folder = write_checkpoint(tmp_path / "odd")
    file = folder / "config.json"
    config = json.loads(file.read_text())
    config.pop("kv_channels")
    file.write_text(json.dumps({**config, key: value}))
    with pytest.raises(CheckpointError, match=r"config\.json"):
        recognise(folder)


@pytest.mark.parametrize("path", ["x" * 300, "~nobody-of-that-name/model", "a\0b"])
def test_a_path_that_no_folder_can_have_is_refused(path):
    with pytest.raises(CheckpointError, match="no folder at"):
        recognise(path)
    with pytest.raises(CheckpointError, match="no adapter at"):
        find(path)
    assert inspect(path).faults
