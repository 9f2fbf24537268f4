"""A random ChatGLM3 checkpoint in the original hub layout, for tests that need weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from tests.shared_files import CHATGLM3_TOKENIZER, TINY, tokenizer_file

CONFIG = {
    "model_type": "chatglm",
    "architectures": ["ChatGLMModel"],
    "add_bias_linear": False,
    "add_qkv_bias": True,
    "ffn_hidden_size": 128,
    "hidden_size": 64,
    "kv_channels": 16,
    "layernorm_epsilon": 1e-5,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "num_attention_heads": 4,
    "num_layers": 2,
    "original_rope": True,
    "post_layer_norm": True,
    "rmsnorm": True,
    "seq_length": 256,
    "tie_word_embeddings": False,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def write_shell(folder: Path, seed: int = 0, **config) -> Path:
    """A checkpoint that is recognised and whose weights are too few to open: for fake engines."""
    write_checkpoint(folder, seed, 128, **config)
    file = folder / "config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({**settings, "padded_vocab_size": 66000, "vocab_size": 66000}))
    return folder


def write_checkpoint(folder: Path, seed: int = 0, vocabulary: int = 0, **config) -> Path:
    """Make `folder` a checkpoint and return it; `config` changes entries of CONFIG.

    It has a row for each token of its tokenizer, where no other number is given.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = vocabulary or rows()
    settings = {**CONFIG, "padded_vocab_size": vocabulary, "vocab_size": vocabulary, **config}
    (folder / "config.json").write_text(json.dumps(settings))
    save_file(weights(settings, seed), folder / "model.safetensors", metadata={"format": "pt"})
    if tokenizer_file().exists():
        shutil.copy(tokenizer_file(), folder / "tokenizer.model")
    return folder


def rows() -> int:
    """ChatGLM3's number, or the embedded model's with its tokenizer."""
    if CHATGLM3_TOKENIZER.exists():
        return 65024
    return json.loads((TINY / "config.json").read_text(encoding="utf-8"))["padded_vocab_size"]


def weights(config: dict, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random tensors under the hub's names."""
    generator = torch.Generator().manual_seed(seed)
    hidden, ffn = config["hidden_size"], config["ffn_hidden_size"]
    heads = config["num_attention_heads"] * config["kv_channels"]
    qkv = heads + 2 * config["multi_query_group_num"] * config["kv_channels"]

    def make(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.08

    out = {
        "transformer.embedding.word_embeddings.weight": make(config["padded_vocab_size"], hidden),
        "transformer.encoder.final_layernorm.weight": torch.ones(hidden),
        "transformer.output_layer.weight": make(config["padded_vocab_size"], hidden),
    }
    for layer in range(config["num_layers"]):
        at = f"transformer.encoder.layers.{layer}"
        out |= {
            f"{at}.input_layernorm.weight": torch.ones(hidden),
            f"{at}.post_attention_layernorm.weight": torch.ones(hidden),
            f"{at}.self_attention.query_key_value.weight": make(qkv, hidden),
            f"{at}.self_attention.query_key_value.bias": make(qkv),
            f"{at}.self_attention.dense.weight": make(hidden, heads),
            f"{at}.mlp.dense_h_to_4h.weight": make(2 * ffn, hidden),
            f"{at}.mlp.dense_4h_to_h.weight": make(hidden, ffn),
        }
    return out
