"""A Glm folder that any program built on transformers reads: no code, no conversion.

q, k and v stand apart, the config has both today's and older keys, tokenizer.json and the chat
template give the ids of our own renderer (the README says where a template cannot).
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from glm.dialects import DIALECTS, foreign
from glm.errors import CheckpointError
from glm.export import beside, compare
from glm.export.layout import rope_of
from glm.export.source import Source
from glm.export.tensors import write_shards
from glm.export.values import Progress, Verdict

_KEPT = ("*.json", "*.jinja", "*.model", "*.txt", "LICENSE*")
_WEIGHTS = ("model.safetensors.index.json", "pytorch_model.bin.index.json")

NOTE = """# {name}

{origin}

Made for transformers (`GlmForCausalLM`), `transformers serve`, vLLM and SGLang. Mind:

- **Text that spells a control token becomes that token.** A chat template is a string, so a user,
  a tool or a file that says `{token}` speaks with that role. Where others can write to the model,
  strip such text before, or pass `sanitize_control_tokens=True` to `apply_chat_template`
  (transformers 5.23). GLM Workbench itself puts control tokens in by id.
- An answer begins with a line break and a space, which belong to the prompt language
  (`transformers serve` cuts them off by the `response_template`, and reads calls).
- In half precision GlmRMSNorm of transformers rounds before it scales, the official code after:
  logits differ from the official ones within the rounding of the type. In fp32 they are equal.
"""


def write(source: Source, folder: Path, progress: Progress) -> None:
    """Write the folder. Raises CheckpointError for what transformers has no class for."""
    if source.info.arch == "chatglm1":
        raise CheckpointError(
            "transformers has no class for ChatGLM-6B (v1); export it as hub instead"
        )
    plan = [source.planned(name) for name in source.names]
    write_shards(plan, folder, compare.bar(progress, "writing", source.bytes()))
    if source.glm and "num_layers" in source.info.config:
        _write_family(source, folder)
    else:
        _copy_beside(source, folder)
    token = foreign.example(source.info.dialect)
    text = NOTE.format(name=source.info.name, origin=beside.origin(source), token=token)
    (folder / "README.md").write_text(text, encoding="utf-8")


def check(source: Source, folder: Path, progress: Progress) -> Verdict:
    """Read it again with plain transformers: every tensor, and the logits."""
    plan = [source.planned(name) for name in source.names]
    return compare.folder(source, folder, plan, progress, plain=True)


def glm_config(source: Source) -> dict[str, Any]:
    """config.json of GlmForCausalLM, readable by transformers from 4.46 on and by vLLM."""
    native = source.config
    rope = rope_of(native)
    dropped = {"auto_map", "_name_or_path", "rope_parameters", "torch_dtype", "dtype"}
    dropped |= {"add_qkv_bias", "num_layers", "padded_vocab_size"}
    out = {key: value for key, value in native.items() if key not in dropped}
    out |= {"model_type": "glm", "architectures": ["GlmForCausalLM"]}
    out |= {"rope_theta": rope["rope_theta"], "partial_rotary_factor": 0.5}
    kept = {"rope_type", "rope_theta", "partial_rotary_factor"}
    if rope["rope_type"] == "linear":
        kept.add("factor")
        out["rope_scaling"] = {"rope_type": "linear", "factor": rope["factor"]}
    out["rope_parameters"] = {key: rope[key] for key in sorted(kept)}
    dtypes = {str(source.stored(name)).removeprefix("torch.") for name in source.names}
    if len(dtypes) == 1:
        out["torch_dtype"] = out["dtype"] = dtypes.pop()
    return out


def _write_family(source: Source, folder: Path) -> None:
    from glm.export import fast_tokenizer

    info = source.info
    tokenizer, fast = fast_tokenizer.open_both(info)
    dialect = DIALECTS[info.dialect](tokenizer)
    config = glm_config(source) | {"eos_token_id": list(dialect.stop)}
    beside.write_json(folder / "config.json", config)
    stop = beside.generation_config(source, dialect.stop)
    beside.write_json(folder / "generation_config.json", stop)
    fast.save(str(folder / "tokenizer.json"))
    beside.copy_tokenizer(source, folder)
    eos = fast.id_to_token(tokenizer.eos)
    about: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": eos,
        "pad_token": fast.id_to_token(config.get("pad_token_id") or tokenizer.pad) or eos,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "model_max_length": info.context,
    }
    template = foreign.chat_template(info.dialect)
    if template:
        about["chat_template"] = template
        (folder / "chat_template.jinja").write_text(template + "\n", encoding="utf-8")
    if response := foreign.response_template(info.dialect):
        about["response_template"] = response
    beside.write_json(folder / "tokenizer_config.json", about)


def _copy_beside(source: Source, folder: Path) -> None:
    """A folder of transformers' own layout: everything but the weights is copied."""
    for pattern in _KEPT:
        for file in source.info.path.glob(pattern):
            if file.name not in _WEIGHTS and file.is_file():
                shutil.copyfile(file, folder / file.name)
    config = beside.read_json(folder / "config.json")
    config.pop("auto_map", None)
    dtypes = {str(source.stored(name)).removeprefix("torch.") for name in source.names}
    if len(dtypes) == 1:
        config["torch_dtype"] = config["dtype"] = dtypes.pop()
    beside.write_json(folder / "config.json", config)
