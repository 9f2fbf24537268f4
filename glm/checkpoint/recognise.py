"""What a checkpoint folder is, told from its files; nothing is loaded and no code in it runs.

The table in families.py is the one place that knows the families; this file gathers the
clues and the numbers. Not covered: GGUF files, and models that are not one causal text model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glm.checkpoint.families import Arch, Clues, Family, TokenizerKind, tell
from glm.checkpoint.weights import Header, read_header, weight_files
from glm.errors import CheckpointError
from glm.tokenizers.ranks import is_rank_file

EMBEDDED = Path(__file__).parents[2] / "assets" / "tiny"
UNSAID_CONTEXT = 2048  # tokens, for a hub model whose config names no length
TOKENIZER_FILES: dict[TokenizerKind, tuple[str, ...]] = {
    "sentencepiece": ("tokenizer.model",),
    "ranks": ("tokenizer.model",),
    "ice": ("ice_text.model",),
    "hub": ("tokenizer.json", "tokenizer.model", "vocab.json"),
}
LENGTHS = ("seq_length", "max_sequence_length", "max_position_embeddings", "n_positions")


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A recognised checkpoint. `context` in tokens; `parameters` counted from the config of the
    ChatGLM layouts, else from the weights' headers.

    `arch` is which loader opens it, `tokenizer_kind` which tokenizer; `packed_bits` 4 or 8 for the
    family's own packed checkpoints; `file_dtype` the number type of safetensors files. `chat` is
    False for a base model, which continues text and was not trained to answer. `reason` says
    for people why it was recognised and what to mind.
    """

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
    arch: Arch = "chatglm"
    tokenizer_kind: TokenizerKind = "sentencepiece"
    packed_bits: int | None = None
    file_dtype: str | None = None
    chat: bool = True


def recognise(path: str | Path, tokenizer: str | Path | None = None) -> ModelInfo:
    """Read a folder's config and file list. Raises CheckpointError, naming the file at fault.

    `tokenizer` is another folder (or file) to take the tokenizer from (`TOKENIZER_PATH`).
    """
    try:
        folder = Path(path).expanduser()
        if not folder.is_dir():
            raise CheckpointError(f"no folder at {folder}")
    except (OSError, RuntimeError, ValueError) as error:  # too long, nobody's home, a NUL
        raise CheckpointError(f"no folder at {str(path)[:100]} ({error})") from error
    config = _config(folder)
    try:
        return _recognised(folder, config, tokenizer)
    except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError) as error:
        file = folder / "config.json"  # where a text stands for a number, a number for a list
        raise CheckpointError(f"{file} has a value that no model has: {error}") from error


def _recognised(
    folder: Path, config: dict[str, Any], tokenizer: str | Path | None = None
) -> ModelInfo:
    place = Path(tokenizer).expanduser() if tokenizer else folder
    clues = _clues(config, folder, place)
    family = tell(clues, folder)
    _check_numbers(config, family, folder)
    if family.rope == "divided":
        config["rope_interpolation"] = True
    tokens = _tokenizer(place, family)
    weights = weight_files(folder)
    header = read_header(weights)
    parameters = _parameters(config, family, header, weights)
    note = _prefix_note(config, parameters, weights, folder)
    context, length_note = _context(config)
    base = family.base(clues)
    base_note = "; a base model: it continues text and was not trained to chat" if base else ""
    return ModelInfo(
        name=_name(folder),
        family=family.name,
        dialect=family.dialect,
        path=folder,
        context=context,
        parameters=parameters,
        tokenizer=tokens,
        weights=weights,
        config=config,
        reason=f"{family.told}{note}{length_note}{base_note}",
        embedded=folder.resolve() == EMBEDDED.resolve(),
        arch=family.arch,
        tokenizer_kind=family.tokenizer,
        packed_bits=_packed_bits(config, family, folder),
        file_dtype=header.dtype if header else None,
        chat=not base,
    )


def count_parameters(config: dict[str, Any]) -> int:
    """How many numbers the model of an original ChatGLM config holds, ChatGLM-6B's too."""
    hidden, layers = config["hidden_size"], _number(config, "num_layers", "num_hidden_layers")
    if "padded_vocab_size" not in config and "num_layers" in config:
        return _count_first(config)
    ffn = _number(config, "ffn_hidden_size", "intermediate_size")
    heads = config["num_attention_heads"]
    groups = _number(config, "multi_query_group_num", "num_key_value_heads")
    head_dim = _number(config, "kv_channels", "head_dim") or hidden // heads
    qkv = (heads + 2 * groups) * head_dim
    layer = qkv * (hidden + 1) + heads * head_dim * hidden + 3 * hidden * ffn + 2 * hidden
    rows = _number(config, "padded_vocab_size", "vocab_size")
    return int(layers * layer + 2 * rows * hidden + hidden)


def _count_first(config: dict[str, Any]) -> int:
    hidden = config["hidden_size"]
    ffn = config.get("inner_hidden_size") or 4 * hidden
    attention = 4 * hidden * hidden + 4 * hidden
    layer = attention + 2 * hidden * ffn + ffn + hidden + 4 * hidden
    return int(config["num_layers"] * layer + 2 * config["vocab_size"] * hidden + 2 * hidden)


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


def _clues(config: dict[str, Any], folder: Path, place: Path) -> Clues:
    ours = config.get("model_type") == "chatglm"
    ranks = place if place.is_file() else place / "tokenizer.model"
    origin = str(config.get("_name_or_path", "")).replace("\\", "/").rstrip("/")
    return Clues(
        config=config,
        name=f"{origin.rpartition('/')[2]} {_name(folder)}".lower(),
        code="".join(map(_text, sorted(folder.glob("*_chatglm.py")))) if ours else "",
        template=_template(folder),
        ranks=ours and ranks.is_file() and is_rank_file(ranks),
    )


def _name(folder: Path) -> str:
    """The folder's name; of a folder in the hub's cache, the model's."""
    whole = folder.resolve()
    if whole.parent.name == "snapshots":
        return whole.parent.parent.name.rpartition("--")[2]
    return whole.name.replace("___", ".")  # as ModelScope writes a dot


def _template(folder: Path) -> str:
    if (folder / "chat_template.jinja").is_file():
        return _text(folder / "chat_template.jinja")
    try:
        settings = json.loads(_text(folder / "tokenizer_config.json") or "{}")
    except ValueError:
        return ""
    found = settings.get("chat_template") if isinstance(settings, dict) else None
    return found if isinstance(found, str) else json.dumps(found) if found else ""


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _check_numbers(config: dict[str, Any], family: Family, folder: Path) -> None:
    for keys in _NUMBERS[family.arch]:
        if not any(isinstance(config.get(key), int) for key in keys):
            raise CheckpointError(f"{folder / 'config.json'}: {keys[0]} missing")


_SHARED = (("num_layers", "num_hidden_layers"), ("hidden_size",), ("num_attention_heads",))
# What must be in a config: the original name of a number, then transformers' own.
_NUMBERS: dict[Arch, tuple[tuple[str, ...], ...]] = {
    "chatglm": (
        *_SHARED,
        ("ffn_hidden_size", "intermediate_size"),
        ("multi_query_group_num", "num_key_value_heads"),
        ("padded_vocab_size", "vocab_size"),
        ("seq_length", "max_position_embeddings"),
    ),
    "chatglm1": (*_SHARED, ("vocab_size",), ("max_sequence_length",)),
    "native": (),
}


def _number(config: dict[str, Any], *keys: str) -> int:
    return next((int(config[key]) for key in keys if config.get(key)), 0)


def _tokenizer(place: Path, family: Family) -> Path:
    if place.is_file():
        return place
    names = TOKENIZER_FILES[family.tokenizer]
    for name in names:
        if (place / name).is_file():
            return place / name
    raise CheckpointError(
        f"no tokenizer at {place / names[0]}; "
        f"copy the {names[0]} of {family.name} there or set TOKENIZER_PATH"
    )


def _packed_bits(config: dict[str, Any], family: Family, folder: Path) -> int | None:
    bits = config.get("quantization_bit") if family.arch != "native" else None
    if bits not in (None, 0, 4, 8):
        raise CheckpointError(f"{folder / 'config.json'}: quantization_bit {bits!r} is not 4 or 8")
    return bits or None


def _parameters(
    config: dict[str, Any], family: Family, header: Header | None, weights: tuple[Path, ...]
) -> int:
    if family.arch != "native":
        return count_parameters(config)
    if header:
        return header.numbers
    return sum(file.stat().st_size for file in weights) // 2  # pickles: as if 16 bits each


def _context(config: dict[str, Any]) -> tuple[int, str]:
    """The length, and a note where it is not the one the config names."""
    length = _number(config, *LENGTHS)
    if not length:
        return UNSAID_CONTEXT, "; its config names no length"
    window = config.get("sliding_window") or 0
    layers = config.get("layer_types")
    slides = "sliding_attention" in layers if layers else config.get("use_sliding_window", True)
    if window and slides and window < length:
        return window, f"; its attention slides, so only {window} of {length} tokens are used"
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if "longrope" in (rope.get("rope_type"), rope.get("type")):
        # Beyond it all rows of a step and what they have kept would turn by other angles.
        first = _number({**config, **rope}, "original_max_position_embeddings") or length
        if first < length:
            return first, f"; beyond {first} of {length} tokens its positions turn otherwise"
    return length, ""


def _prefix_note(
    config: dict[str, Any], parameters: int, weights: tuple[Path, ...], folder: Path
) -> str:
    """A P-Tuning folder with the whole model inside opens as its base, one without is refused."""
    length = config.get("pre_seq_len")
    if not length:
        return ""
    if sum(file.stat().st_size for file in weights) < parameters // 4:  # int4 would be half
        raise CheckpointError(
            f"{folder}: a P-Tuning checkpoint without the model; "
            "open its base model, then this folder as an adapter"
        )
    return f"; its P-Tuning prefix of {length} tokens is not applied: open it as an adapter"
