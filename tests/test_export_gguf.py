"""GGUF files hold every number of the model, under the names and keys llama.cpp reads."""

import json
import shutil

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from glm.checkpoint.recognise import recognise
from glm.errors import CheckpointError
from glm.export import Wanted, export
from glm.export import gguf as target
from glm.export.pieces import read_pieces
from glm.export.source import Source, merged
from tests.made_adapters import lora, pretend
from tests.shared_files import TINY
from tests.tiny_checkpoint import write_checkpoint


@pytest.fixture
def folder(tmp_path):
    path = write_checkpoint(
        tmp_path / "chatglm3-tiny", vocabulary=6784, rope_ratio=50, layernorm_epsilon=1e-3
    )
    shutil.copy(TINY / "tokenizer.model", path / "tokenizer.model")
    return path


def opened(folder):
    reader = gguf.GGUFReader(next(folder.glob("*.gguf")))
    return {tensor.name: tensor for tensor in reader.tensors}, reader


def value(reader, key):
    return reader.fields[key].contents()


def test_every_tensor_is_the_sources(folder, tmp_path):
    verdict = export(Wanted(folder, tmp_path / "out", "gguf")).verdict
    tensors, _ = opened(tmp_path / "out")
    hub = load_file(folder / "model.safetensors")
    pairs = {
        "token_embd.weight": "transformer.embedding.word_embeddings.weight",
        "output.weight": "transformer.output_layer.weight",
        "output_norm.weight": "transformer.encoder.final_layernorm.weight",
    }
    for layer in range(2):
        here, there = f"blk.{layer}.", f"transformer.encoder.layers.{layer}."
        pairs |= {
            here + "attn_norm.weight": there + "input_layernorm.weight",
            here + "attn_qkv.weight": there + "self_attention.query_key_value.weight",
            here + "attn_qkv.bias": there + "self_attention.query_key_value.bias",
            here + "attn_output.weight": there + "self_attention.dense.weight",
            here + "ffn_norm.weight": there + "post_attention_layernorm.weight",
            here + "ffn_up.weight": there + "mlp.dense_h_to_4h.weight",
            here + "ffn_down.weight": there + "mlp.dense_4h_to_h.weight",
        }
    assert set(tensors) == set(pairs) and verdict.tensors == len(pairs) == len(hub)
    for name, original in pairs.items():
        assert np.array_equal(tensors[name].data, hub[original].numpy()), name


def test_the_keys_are_the_models_own(folder, tmp_path):
    export(Wanted(folder, tmp_path / "out", "gguf", dtype="float16"))
    tensors, reader = opened(tmp_path / "out")
    assert value(reader, "general.architecture") == "chatglm"
    assert value(reader, "chatglm.rope.freq_base") == 500_000
    assert value(reader, "chatglm.rope.dimension_count") == 8
    assert value(reader, "chatglm.attention.layer_norm_rms_epsilon") == pytest.approx(1e-3)
    assert value(reader, "chatglm.attention.head_count_kv") == 2
    assert value(reader, "chatglm.context_length") == 256
    assert tensors["blk.0.attn_norm.weight"].data.dtype == np.float32
    assert tensors["blk.0.ffn_up.weight"].data.dtype == np.float16


def test_positions_that_are_divided_are_told(tmp_path):
    path = write_checkpoint(tmp_path / "chatglm2-6b-32k", vocabulary=6784, rope_ratio=4)
    shutil.copy(TINY / "tokenizer.model", path / "tokenizer.model")
    export(Wanted(path, tmp_path / "out", "gguf"))
    _, reader = opened(tmp_path / "out")
    assert value(reader, "chatglm.rope.scaling.type") == "linear"
    assert value(reader, "chatglm.rope.scaling.factor") == 4
    assert value(reader, "chatglm.rope.freq_base") == 10_000
    assert "[Round 1]" in (tmp_path / "out" / "Modelfile").read_text()


def test_the_vocabulary_is_the_checkpoints(folder, tmp_path):
    export(Wanted(folder, tmp_path / "out", "gguf"))
    _, reader = opened(tmp_path / "out")
    words, scores = value(reader, "tokenizer.ggml.tokens"), value(reader, "tokenizer.ggml.scores")
    types = value(reader, "tokenizer.ggml.token_type")
    pieces = read_pieces(TINY / "tokenizer.model").pieces
    assert len(words) == len(scores) == len(types) == 6784
    assert scores[: len(pieces)] == pytest.approx([piece.score for piece in pieces])
    assert types[: len(pieces)] == [piece.kind for piece in pieces]
    assert words[len(pieces) : len(pieces) + 9][-4:] == [
        "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>",
    ]  # fmt: skip
    user, tool = len(pieces) + 6, len(pieces) + 8
    ends = [value(reader, f"tokenizer.ggml.{key}_token_id") for key in ("eos", "eot", "eom")]
    assert ends == [2, user, tool]
    assert value(reader, "tokenizer.ggml.add_bos_token") is False
    assert value(reader, "tokenizer.ggml.pre") == "chatglm-spm"
    assert "'%r'" not in value(reader, "tokenizer.chat_template")
    assert "[gMASK]sop" in value(reader, "tokenizer.chat_template")


def test_q8_0_stays_within_half_a_step(folder, tmp_path):
    written = export(Wanted(folder, tmp_path / "out", "gguf", dtype="q8_0"))
    tensors, _ = opened(tmp_path / "out")
    name = "blk.1.ffn_down.weight"
    ours = load_file(folder / "model.safetensors")[
        "transformer.encoder.layers.1.mlp.dense_4h_to_h.weight"
    ]
    tensor = tensors[name]
    assert tensor.tensor_type is gguf.GGMLQuantizationType.Q8_0
    theirs = gguf.dequantize(tensor.data, tensor.tensor_type)
    assert np.abs(theirs - ours.numpy()).max() <= float(ours.abs().max()) / 127
    assert "within half a step" in str(written.verdict)
    assert any("close to the model's, not equal" in note for note in written.verdict.notes)


def test_an_adapter_is_merged_in_full_precision(folder, tmp_path, monkeypatch):
    source = Source(recognise(folder))
    adapter = lora(source)
    pretend(monkeypatch, "opening", open_adapter=lambda *_: adapter)
    export(Wanted(folder, tmp_path / "out", "gguf", adapter="poet"))
    tensors, _ = opened(tmp_path / "out")
    name = "model.layers.0.self_attn.o_proj"
    want = merged(source.tensor(f"{name}.weight"), adapter.lora[name], name)
    assert np.array_equal(tensors["blk.0.attn_output.weight"].data, want.numpy())


def test_a_number_that_changed_is_noticed(folder, tmp_path):
    source = Source(recognise(folder))
    target.write(source, tmp_path, lambda text, part: None)
    file = next(tmp_path.glob("*.gguf"))
    data = bytearray(file.read_bytes())
    data[-200] ^= 0x40
    file.write_bytes(data)
    with pytest.raises(CheckpointError, match="was not written as it is"):
        target.check(source, tmp_path, lambda text, part: None)


def test_heads_that_llama_cpp_cannot_run_are_refused(tmp_path):
    path = write_checkpoint(tmp_path / "odd", vocabulary=6784, kv_channels=32)
    with pytest.raises(CheckpointError, match="needs heads as wide together"):
        export(Wanted(path, tmp_path / "out", "gguf"))
    assert not (tmp_path / "out").exists()


def test_a_damaged_file_is_described_as_such(folder, tmp_path):
    export(Wanted(folder, tmp_path / "out", "gguf"))
    file = next((tmp_path / "out").glob("*.gguf"))
    what, numbers, _ = target.describe(file)
    assert "chatglm" in what and sum(numbers.values()) == recognise(folder).parameters
    file.write_bytes(b"GGUF" + b"\0" * 20)
    with pytest.raises(CheckpointError, match="is damaged or no GGUF file"):
        target.describe(file)


def test_bf16_is_kept_as_it_is(folder, tmp_path):
    export(Wanted(folder, tmp_path / "half", "hub", dtype="bfloat16"))
    export(Wanted(tmp_path / "half", tmp_path / "out", "gguf"))
    tensors, _ = opened(tmp_path / "out")
    half = load_file(tmp_path / "half" / "model.safetensors")
    want = half["transformer.output_layer.weight"].view(torch.int16).numpy()
    found = np.ascontiguousarray(tensors["output.weight"].data).view(np.int16)
    assert np.array_equal(found.reshape(-1), want.reshape(-1))
    assert json.loads((tmp_path / "half" / "config.json").read_text())["torch_dtype"] == "bfloat16"
