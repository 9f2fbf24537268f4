"""What a checkpoint folder is, told from its files; nothing is loaded and no code in it runs.

The table `FAMILIES` is the one place that knows the families. Not covered yet: ChatGLM-6B v1,
GLM-4 and other chat models, which are refused by name.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glm.errors import CheckpointError

EMBEDDED = Path(__file__).parent.parent / "assets" / "tiny"
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
SINGLES = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A recognised checkpoint. `context` in tokens, `parameters` counted from the config."""

    name: str
    family: str
    dialect: str
    path: Path
    context: int
    parameters: int
    tokenizer: Path
    weights: tuple[Path, ...]
    config: dict[str, Any]
    reason: str
    embedded: bool = False


def recognise(path: str | Path, tokenizer: str | Path | None = None) -> ModelInfo:
    """Read a folder's config and file list. Raises CheckpointError, naming the file at fault.

    `tokenizer` is another folder to take tokenizer.model from (`TOKENIZER_PATH`).
    """
    folder = Path(path).expanduser()
    if not folder.is_dir():
        raise CheckpointError(f"no folder at {folder}")
    config = _config(folder)
    family, dialect, reason = _family(config, folder)
    tokens = Path(tokenizer).expanduser() if tokenizer else folder
    tokens = tokens if tokens.is_file() else tokens / "tokenizer.model"
    if not tokens.is_file():
        raise CheckpointError(
            f"no tokenizer at {tokens}; "
            f"copy the tokenizer.model of {family} there or set TOKENIZER_PATH"
        )
    return ModelInfo(
        name=folder.resolve().name,
        family=family,
        dialect=dialect,
        path=folder,
        context=int(config["seq_length"]),
        parameters=count_parameters(config),
        tokenizer=tokens,
        weights=_weights(folder),
        config=config,
        reason=reason,
        embedded=folder.resolve() == EMBEDDED.resolve(),
    )


def count_parameters(config: dict[str, Any]) -> int:
    """How many numbers the model of an original ChatGLM2/3 config holds."""
    hidden, ffn = config["hidden_size"], config["ffn_hidden_size"]
    heads, groups = config["num_attention_heads"], config["multi_query_group_num"]
    head_dim = config.get("kv_channels", hidden // heads)
    qkv = (heads + 2 * groups) * head_dim
    layer = qkv * (hidden + 1) + heads * head_dim * hidden + 3 * hidden * ffn + 2 * hidden
    return config["num_layers"] * layer + 2 * config["padded_vocab_size"] * hidden + hidden


def _config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        hint = ""
        if (folder / "adapter_config.json").exists():
            hint = ": this is an adapter, open its base model"
        raise CheckpointError(f"no config.json in {folder}{hint}") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{file} cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{file} is not a JSON object")
    return config


def _family(config: dict[str, Any], folder: Path) -> tuple[str, str, str]:
    """(family, dialect, why). ChatGLM2 and 3 share a layout; names and lengths tell them apart."""
    kind = config.get("model_type")
    if kind != "chatglm" or "num_layers" not in config:
        raise CheckpointError(f"{folder}: model_type {kind!r} is not a ChatGLM2/3 checkpoint")
    if "padded_vocab_size" not in config or config.get("position_encoding_2d"):
        raise CheckpointError(f"{folder}: ChatGLM-6B (v1) is another architecture")
    missing = [key for key in _NUMBERS if not isinstance(config.get(key), int)]
    if missing:
        raise CheckpointError(f"{folder / 'config.json'}: {', '.join(missing)} missing")
    if config.get("pre_seq_len"):
        raise CheckpointError(f"{folder}: a P-Tuning checkpoint; open its base model")
    name = f"{config.get('_name_or_path', '')} {folder.resolve().name}".lower()
    if "chatglm2" in name:
        if "32k" in name and config.get("rope_ratio", 1) != 1:
            config["rope_interpolation"] = True
        return "ChatGLM2", "chatglm2", "named chatglm2"
    return "ChatGLM3", "chatglm3", "ChatGLM2/3 layout, not named chatglm2"


_NUMBERS = (
    "num_layers",
    "hidden_size",
    "ffn_hidden_size",
    "num_attention_heads",
    "multi_query_group_num",
    "padded_vocab_size",
    "seq_length",
)


def _weights(folder: Path) -> tuple[Path, ...]:
    """The weight files, safetensors first; every shard an index names must be there."""
    for name in SINGLES:
        index = folder / INDEXES[SINGLES.index(name)]
        if index.is_file():
            return _shards(folder, index)
        if (folder / name).is_file():
            return (folder / name,)
    raise CheckpointError(f"no weights in {folder}; expected {' or '.join(SINGLES)}")


def _shards(folder: Path, index: Path) -> tuple[Path, ...]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is not a weight index") from error
    for name in names:
        if Path(str(name)).name != name:
            raise CheckpointError(f"{index} names a file outside its folder: {name}")
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder / name} is missing; {index.name} names it")
    return tuple(folder / name for name in names)
