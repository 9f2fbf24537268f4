"""A tiny random checkpoint of every family, from the real config.json of one of its models.

family_configs.json holds the configs as they were published; `SMALL` makes the numbers small.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from glm.tokenizer import GLM4_SPECIALS
from tests.dialect_desk import CHATML, LLAMA, TAGS, WORDS, byte_characters
from tests.shared_files import SHARED, tokenizer_file
from tests.tiny_checkpoint import weights

ICE = SHARED / "tokenizers" / "chatglm-6b" / "ice_text.model"
REAL = json.loads((Path(__file__).parent / "family_configs.json").read_text(encoding="utf-8"))
CHATGLM = REAL["chatglm3-6b"]
CHATGLM1 = REAL["chatglm-6b"]
GLM4 = REAL["glm-4-9b-chat"]
GLM4_HF = REAL["glm-4-9b-chat-hf"]
GLM4_0414 = REAL["GLM-4-9B-0414"]
GLM45 = REAL["GLM-4.5-Air"]
QWEN2 = REAL["Qwen2.5-0.5B-Instruct"]
QWEN3 = REAL["Qwen3-0.6B"]
LLAMA3 = REAL["Llama-3.2-1B-Instruct"]
SMALL = {
    "ffn_hidden_size": 96,
    "intermediate_size": 96,
    "inner_hidden_size": 128,
    "hidden_size": 32,
    "kv_channels": 8,
    "head_dim": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_layers": 2,
    "num_hidden_layers": 2,
    "max_window_layers": 1,
    "moe_intermediate_size": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
}
GLM_TEMPLATE = "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}"


@dataclass(frozen=True)
class Tiny:
    """A family for the test table: `config` as published, and what to expect of the folder."""

    folder: str
    config: dict[str, Any]
    family: str
    dialect: str
    context: int
    reason: str
    template: str = ""
    chat: bool = True
    files: dict[str, str] = field(default_factory=dict)


def rows(config: dict[str, Any]) -> int:
    return int(config.get("padded_vocab_size") or config["vocab_size"])


def write(tiny: Tiny, root: Path) -> Path:
    """The folder of a tiny model, its own files too."""
    folder = root / tiny.folder
    folder.mkdir(parents=True)
    for name, text in tiny.files.items():
        (folder / name).write_text(text, encoding="utf-8")
    config = {**tiny.config, **{k: v for k, v in SMALL.items() if k in tiny.config}}
    if config["model_type"] == "chatglm":
        _original(folder, config)
    else:
        _native(folder, config, tiny.template)
    return folder


def _original(folder: Path, config: dict[str, Any]) -> None:
    if "padded_vocab_size" not in config:
        save(folder, first_weights(config))
        if ICE.exists():
            shutil.copy(ICE, folder / "ice_text.model")
    elif config["padded_vocab_size"] > 100_000:
        names = write_ranks(folder / "tokenizer.model")
        config |= {"padded_vocab_size": 512, "eos_token_id": ends(names), "pad_token_id": names[0]}
        save(folder, weights(config))
    else:
        shutil.copy(tokenizer_file(), folder / "tokenizer.model")
        if tokenizer_file().parent.name == "tiny":
            config |= {"padded_vocab_size": 6784}
        save(folder, weights(config))
    (folder / "config.json").write_text(json.dumps(config))


def _native(folder: Path, config: dict[str, Any], template: str) -> None:
    glm = config["model_type"].startswith("glm")
    names = (*GLM4_SPECIALS, *TAGS) if glm else ("<|im_start|>", "<|im_end|>", *TAGS[:4])
    ids = write_hub_tokenizer(folder, names, template, end=0 if glm else 1)
    config |= {"vocab_size": 384, "eos_token_id": ends(ids) if glm else [ids[1]]}
    config |= {"pad_token_id": ids[0]} if glm else {"bos_token_id": ids[0]}
    (folder / "config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    made = AutoConfig.from_pretrained(str(folder), initializer_range=0.2)
    model = AutoModelForCausalLM.from_config(made, dtype=torch.float32)
    model.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(config))  # as published, not as saved
    (folder / "generation_config.json").unlink(missing_ok=True)


def save(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def ends(ids: list[int]) -> list[int]:
    """The three tokens that end a turn of the GLM-4 family."""
    return [ids[GLM4_SPECIALS.index(n)] for n in ("<|endoftext|>", "<|user|>", "<|observation|>")]


def first_weights(config: dict[str, Any], seed: int = 0) -> dict[str, torch.Tensor]:
    """Random tensors of ChatGLM-6B under the hub's names."""
    generator = torch.Generator().manual_seed(seed)
    hidden, ffn = config["hidden_size"], config["inner_hidden_size"]

    def make(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * 0.08

    out = {
        "transformer.word_embeddings.weight": make(config["vocab_size"], hidden),
        "transformer.final_layernorm.weight": torch.ones(hidden),
        "transformer.final_layernorm.bias": make(hidden),
        "lm_head.weight": make(config["vocab_size"], hidden),
    }
    linear = {
        "attention.query_key_value": (3 * hidden, hidden),
        "attention.dense": (hidden, hidden),
        "mlp.dense_h_to_4h": (ffn, hidden),
        "mlp.dense_4h_to_h": (hidden, ffn),
    }
    for layer in range(config["num_layers"]):
        at = f"transformer.layers.{layer}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            out |= {f"{at}.{norm}.weight": torch.ones(hidden), f"{at}.{norm}.bias": make(hidden)}
        for name, shape in linear.items():
            out |= {f"{at}.{name}.weight": make(*shape), f"{at}.{name}.bias": make(shape[0])}
    return out


def write_ranks(file: Path) -> list[int]:
    """A rank file of single bytes and a few words; the ids of GLM-4's control tokens."""
    tokens = [bytes([byte]) for byte in range(256)]
    for word in WORDS:
        data = word.encode()
        tokens += [data[:n] for n in range(2, len(data) + 1) if data[:n] not in tokens]
    lines = (f"{base64.b64encode(token).decode()} {rank}" for rank, token in enumerate(tokens))
    file.write_text("\n".join(lines) + "\n")
    return list(range(len(tokens), len(tokens) + len(GLM4_SPECIALS)))


def write_hub_tokenizer(
    folder: Path, names: Iterable[str], template: str, end: int = 0
) -> list[int]:
    """A byte-level tokenizer.json with control tokens; their ids."""
    vocabulary = {char: i for i, char in enumerate(byte_characters())}
    names = list(names)
    ids = list(range(len(vocabulary), len(vocabulary) + len(names)))
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    added = [
        {"id": i, "content": name, "special": True, **flags}
        for i, name in zip(ids, names, strict=True)
    ]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    level["use_regex"] = True
    model = {"type": "BPE", "vocab": vocabulary, "merges": []}
    config = {"version": "1.0", "added_tokens": added, "model": model}
    config |= {"pre_tokenizer": level, "decoder": level}
    (folder / "tokenizer.json").write_text(json.dumps(config))
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": names[end]}
    settings |= {"chat_template": template} if template else {}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return ids


GLM47_TEMPLATE = f"{GLM_TEMPLATE}<tool_call>{{function-name}}<arg_key>"
SCALED = "def forward_impl(self, base=10000):\n    base = base * self.rope_ratio  # observation\n"
DIVIDED = "def build_prompt(): ...\nseq_idx = torch.arange(seq_len) / self.rope_ratio\n"
FAMILIES = (
    Tiny("chatglm3-6b", CHATGLM, "ChatGLM3", "chatglm3", 8192, "not named chatglm2"),
    Tiny(
        "chatglm3-6b-base",
        {**CHATGLM, "seq_length": 32768},
        *("ChatGLM3", "chatglm3", 32768, "a base model"),
        chat=False,
    ),
    Tiny(
        "chatglm3-6b-32k",
        {**CHATGLM, "rope_ratio": 50, "seq_length": 32768},
        *("ChatGLM3", "chatglm3", 32768, "multiplies the base"),
        files={"modeling_chatglm.py": SCALED},
    ),
    Tiny(
        "chatglm3-6b-128k",
        {**CHATGLM, "rope_ratio": 500, "seq_length": 131072},
        *("ChatGLM3", "chatglm3", 131072, "multiplies the base"),
    ),
    Tiny(
        "chatglm2-6b",
        {**CHATGLM, "_name_or_path": "THUDM/chatglm2-6b", "seq_length": 32768},
        *("ChatGLM2", "chatglm2", 32768, "coded as ChatGLM2"),
    ),
    Tiny(
        "chatglm2-6b-32k",
        {**CHATGLM, "rope_ratio": 4, "seq_length": 32768},
        *("ChatGLM2-32k", "chatglm2", 32768, "positions are divided by it (linear RoPE)"),
    ),
    Tiny(
        "renamed-by-its-owner",  # told by the program files that lie in the folder
        {**CHATGLM, "rope_ratio": 4, "seq_length": 32768},
        *("ChatGLM2-32k", "chatglm2", 32768, "positions are divided by it"),
        files={"modeling_chatglm.py": DIVIDED},
    ),
    Tiny("chatglm-6b", CHATGLM1, "ChatGLM-6B", "chatglm", 2048, "two-dimensional positions"),
    Tiny("glm-4-9b-chat", GLM4, "GLM-4", "glm4", 131072, "byte ranks"),
    Tiny("glm-4-9b-chat-hf", GLM4_HF, "GLM-4", "glm4", 131072, "type glm", GLM_TEMPLATE),
    Tiny("GLM-4-9B-0414", GLM4_0414, "GLM-4-0414", "glm4", 32768, "glm4", GLM_TEMPLATE),
    Tiny("GLM-Z1-9B-0414", GLM4_0414, "GLM-Z1", "glm_z1", 32768, "thinks", GLM_TEMPLATE),
    Tiny("my-thinker", GLM4_0414, "GLM-Z1", "glm_z1", 32768, "thinks", f"{GLM_TEMPLATE}<think>\n"),
    Tiny("GLM-4.5-Air", GLM45, "GLM-4.5", "glm45", 131072, "glm4_moe", GLM_TEMPLATE),
    Tiny("GLM-4.7", GLM45, "GLM-4.7", "glm47", 131072, "GLM-4.7", GLM_TEMPLATE),
    Tiny("my-agent", GLM45, "GLM-4.7", "glm47", 131072, "GLM-4.7", GLM47_TEMPLATE),
    Tiny("Qwen2.5-0.5B-Instruct", QWEN2, "hub model", "template", 32768, "own chat", CHATML),
    Tiny("Qwen3-0.6B", QWEN3, "hub model", "template", 40960, "own chat", CHATML),
    Tiny("Llama-3.2-1B-Instruct", LLAMA3, "hub model", "template", 131072, "own", LLAMA),
)
