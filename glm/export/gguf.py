"""One GGUF file for llama.cpp and Ollama (architecture "chatglm"), and a Modelfile beside it.

Names, keys and the tokenizer's form are those of llama.cpp's own converter (conversion/chatglm.py)
and its loader (src/models/chatglm.cpp). Norms and biases stay fp32, matrices are f16, bf16, f32
or q8_0. Checked by reading the file back; llama.cpp itself is no part of this program.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch

from glm.dialects import DIALECTS, foreign
from glm.errors import CheckpointError
from glm.export import beside, compare
from glm.export.fast_tokenizer import byte_level, open_both
from glm.export.layout import EMBEDDING, HEAD, rope_of
from glm.export.pieces import USER_DEFINED, read_pieces
from glm.export.source import Source
from glm.export.values import AUTO, Progress, Verdict
from glm.tokenizer import SPACE

Kind = gguf.GGMLQuantizationType
ARCHITECTURE = gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.CHATGLM]
# dtype -> (kind of a matrix, the number llama.cpp calls the whole file by)
KINDS = {
    "float32": (Kind.F32, gguf.LlamaFileType.ALL_F32),
    "float16": (Kind.F16, gguf.LlamaFileType.MOSTLY_F16),
    "bfloat16": (Kind.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "q8_0": (Kind.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
_OUTER = {EMBEDDING: "token_embd.weight", "model.norm.weight": "output_norm.weight"}
_OUTER[HEAD] = "output.weight"
_INNER = {
    "input_layernorm": "attn_norm",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_FUSED = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
BLOCK = 32  # numbers that q8_0 scales together
STEP = 0.5 + 128 / 2048  # half a step of q8_0, and the rounding of its fp16 scale
PRE = {"sentencepiece": "chatglm-spm", "ranks": "glm4"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of the file: the native weights it is made of, joined by rows."""

    name: str
    parts: tuple[str, ...]
    shape: tuple[int, ...]
    kind: Kind


def write(source: Source, folder: Path, progress: Progress) -> None:
    """Write the file and its Modelfile. Raises CheckpointError for what llama.cpp does not run."""
    config = _checked(source)
    file = folder / file_name(source)
    writer = gguf.GGUFWriter(file, ARCHITECTURE)
    _add_model(writer, source, config)
    _add_tokenizer(writer, source)
    plan = list(entries(source))
    for entry in plan:
        shape, dtype = _stored(entry)
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        writer.add_tensor_info(entry.name, shape, np.dtype(dtype), size, raw_dtype=entry.kind)
    try:
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        said = compare.bar(progress, "writing", len(plan))
        for number, entry in enumerate(plan, 1):
            writer.write_tensor_data(gguf.quantize(_value(source, entry), entry.kind))
            said(number, 0)
    finally:
        writer.close()
    text = f"FROM ./{file.name}\n{foreign.modelfile(source.info.dialect, _newline_piece(source))}\n"
    (folder / "Modelfile").write_text(text, encoding="utf-8")
    note = f"# {source.info.name}\n\n{beside.origin(source)}\n\n"
    note += f"    llama-server -m {file.name} --jinja\n    ollama create my-glm -f Modelfile\n"
    (folder / "README.md").write_text(note, encoding="utf-8")


def check(source: Source, folder: Path, progress: Progress) -> Verdict:
    """Read the file back: every tensor, and the vocabulary. Raises CheckpointError."""
    reader = gguf.GGUFReader(folder / file_name(source))
    found = {tensor.name: tensor for tensor in reader.tensors}
    plan = list(entries(source))
    strange = set(found) ^ {entry.name for entry in plan}
    if strange:
        raise CheckpointError(f"{sorted(strange)[0]} is written or planned, but not both")
    said = compare.bar(progress, "comparing", len(plan))
    for number, entry in enumerate(plan, 1):
        tensor = found[entry.name]
        if not _same(_value(source, entry), tensor.data, entry.kind):
            raise CheckpointError(f"{entry.name} was not written as it is; nothing was kept")
        said(number, 0)
    words = reader.fields["tokenizer.ggml.tokens"].contents()
    if words != _words(source)[0]:
        raise CheckpointError("the vocabulary was not written as it is; nothing was kept")
    kinds = {entry.kind.name for entry in plan}
    return Verdict(len(plan), ", ".join(sorted(kinds)), notes=tuple(_notes(source)))


def file_name(source: Source) -> str:
    return f"{source.info.name}-{_matrix(source)[0].name}.gguf"


def entries(source: Source) -> Iterator[Entry]:
    """The tensors of the file in order."""
    groups: dict[str, list[str]] = {}
    for name in source.names:
        groups.setdefault(_named(name), []).append(name)
    matrix = _matrix(source)[0]
    for written, names in groups.items():
        shapes = [source.shape(name) for name in names]
        shape = (sum(s[0] for s in shapes), *shapes[0][1:])
        kind = matrix if len(shape) == 2 else Kind.F32
        if kind is Kind.Q8_0 and shape[-1] % BLOCK:
            kind = Kind.F16
        yield Entry(written, tuple(names), shape, kind)


def _named(name: str) -> str:
    if name in _OUTER:
        return _OUTER[name]
    _, _, layer, rest = name.split(".", 3)
    module, _, kind = rest.rpartition(".")
    return f"blk.{layer}.{'attn_qkv' if module in _FUSED else _INNER[module]}.{kind}"


def _matrix(source: Source) -> tuple[Kind, gguf.LlamaFileType]:
    if source.dtype != AUTO:
        return KINDS[source.dtype]
    return KINDS[str(source.stored(EMBEDDING)).removeprefix("torch.")]


def _value(source: Source, entry: Entry) -> np.ndarray[Any, Any]:
    """The weight in fp32, merged."""
    value = torch.cat([source.exact(name).float() for name in entry.parts])
    return value.numpy()


def _stored(entry: Entry) -> tuple[tuple[int, ...], type]:
    """Shape and type of the array that is written."""
    if entry.kind in (Kind.F32, Kind.F16):
        return entry.shape, np.float32 if entry.kind is Kind.F32 else np.float16
    return gguf.quant_shape_to_byte_shape(entry.shape, entry.kind), np.uint8


def _same(ours: np.ndarray[Any, Any], data: np.ndarray[Any, Any], kind: Kind) -> bool:
    """Bit for bit what rounding gives; for q8_0 also within half a step of the weight."""
    if not np.array_equal(gguf.quantize(ours, kind).reshape(-1), np.asarray(data).reshape(-1)):
        return False
    if kind is not Kind.Q8_0:
        return True
    blocks = ours.reshape(-1, BLOCK)
    step = np.abs(blocks).max(axis=1, keepdims=True) / 127
    off = np.abs(gguf.dequantize(np.asarray(data), kind).reshape(-1, BLOCK) - blocks)
    return bool((off <= STEP * step + 1e-7).all())


def _checked(source: Source) -> dict[str, Any]:
    info = source.info
    if not source.glm:
        kind = "ChatGLM-6B (v1)" if info.arch == "chatglm1" else info.family
        raise CheckpointError(f"no GGUF of {kind} is written here; use llama.cpp's own converter")
    config = source.config
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    if width * config["num_attention_heads"] != config["hidden_size"]:
        raise CheckpointError("llama.cpp's chatglm needs heads as wide together as the model")
    if _tokenizer_kind(source) not in PRE:
        raise CheckpointError(f"no GGUF with the tokenizer of {info.name} is written here")
    return config


def _add_model(writer: gguf.GGUFWriter, source: Source, config: dict[str, Any]) -> None:
    rope = rope_of(config)
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_name(source.info.name)
    writer.add_context_length(source.info.context)
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    width = config["hidden_size"] // config["num_attention_heads"]
    writer.add_rope_dimension_count(width // 2)
    writer.add_rope_freq_base(rope["rope_theta"])
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(_matrix(source)[1])
    if _matrix(source)[0] is Kind.Q8_0:
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def _add_tokenizer(writer: gguf.GGUFWriter, source: Source) -> None:
    kind = _tokenizer_kind(source)
    words, scores, types = _words(source)
    tokenizer, _ = open_both(source.info)
    dialect = DIALECTS[source.info.dialect](tokenizer)
    writer.add_tokenizer_model("llama" if kind == "sentencepiece" else "gpt2")
    writer.add_tokenizer_pre(PRE[kind])
    writer.add_token_list(words)
    writer.add_token_types(types)
    if kind == "sentencepiece":
        writer.add_token_scores(scores)
        writer.add_add_space_prefix(True)
        writer.add_unk_token_id(0)
    else:
        _, merges = byte_level(source.info.tokenizer)
        writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_eos_token_id(tokenizer.eos)
    writer.add_pad_token_id(source.info.config.get("pad_token_id") or tokenizer.pad)
    for token in dialect.stop[1:2]:
        writer.add_eot_token_id(token)
    for token in dialect.stop[2:3]:
        writer.add_eom_token_id(token)
    writer.add_add_bos_token(False)
    writer.add_add_eos_token(False)
    template = foreign.chat_template(source.info.dialect, True, _newline_piece(source))
    if template:
        writer.add_chat_template(template)


def _words(source: Source) -> tuple[list[str], list[float], list[int]]:
    """Text, score and type of every id, padding too."""
    size = source.config["vocab_size"]
    if _tokenizer_kind(source) == "sentencepiece":
        pieces = read_pieces(source.info.tokenizer).pieces
        words = [_word(piece.text, piece.kind) for piece in pieces]
        scores, types = [piece.score for piece in pieces], [piece.kind for piece in pieces]
    else:
        vocabulary, _ = byte_level(source.info.tokenizer)
        words = sorted(vocabulary, key=vocabulary.__getitem__)
        scores, types = [0.0] * len(words), [int(gguf.TokenType.NORMAL)] * len(words)
    tokenizer, _ = open_both(source.info)
    special = {token: name for name, token in tokenizer.special.items()}
    for token in range(len(words), size):
        words.append(special.get(token, f"[PAD{token}]"))
        control = token in special
        types.append(int(gguf.TokenType.CONTROL if control else gguf.TokenType.UNUSED))
        scores.append(0.0)
    return words, scores, types


def _word(text: str, kind: int) -> str:
    return text.replace(SPACE, " ") if kind == USER_DEFINED else text


def _tokenizer_kind(source: Source) -> str:
    return source.info.tokenizer_kind


def _newline_piece(source: Source) -> bool:
    """Is the head of every block, a space and a line break, one piece of the vocabulary?"""
    if _tokenizer_kind(source) != "sentencepiece":
        return False
    return f"{SPACE}\n" in read_pieces(source.info.tokenizer).defined


def _notes(source: Source) -> Iterator[str]:
    if source.dtype == "q8_0":
        yield "q8_0 rounds the weights: answers are close to the model's, not equal"
    if _tokenizer_kind(source) == "sentencepiece":
        defined = len(read_pieces(source.info.tokenizer).defined)
        if defined:
            yield (
                f"this tokenizer has {defined} pieces of its own that llama.cpp looks for before "
                "it adds the first space, so a few texts become other ids there"
            )


def describe(file: Path) -> tuple[str, dict[str, int], tuple[tuple[str, str], ...]]:
    """What a GGUF file is, its numbers by type, and facts for people. Raises CheckpointError."""
    try:
        reader = gguf.GGUFReader(file)
    except (OSError, ValueError, IndexError, KeyError) as error:
        raise CheckpointError(f"{file} is damaged or no GGUF file: {error}") from error
    numbers: dict[str, int] = {}
    for tensor in reader.tensors:
        kind = tensor.tensor_type.name
        numbers[kind] = numbers.get(kind, 0) + int(tensor.n_elements)
    family = str(_field(reader, "general.architecture") or "unknown")
    facts = [("name", _field(reader, "general.name"))]
    facts.append(("weights", ", ".join(f"{kind} ({n:,} numbers)" for kind, n in numbers.items())))
    facts.append(("context", _field(reader, f"{family}.context_length")))
    facts.append(("rope", _field(reader, f"{family}.rope.freq_base")))
    facts.append(("vocabulary", _field(reader, f"{family}.vocab_size")))
    shown = tuple((label, str(value)) for label, value in facts if value is not None)
    return f"GGUF file of the architecture {family}", numbers, shown


def _field(reader: gguf.GGUFReader, key: str) -> Any:
    found = reader.fields.get(key)
    return found.contents() if found else None
