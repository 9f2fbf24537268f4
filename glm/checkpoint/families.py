"""The families of checkpoints, one row each: how one is told, and what opens it.

The first row whose `when` holds is the family. Two checkpoints may have the same config.json and
yet divide positions differently (ChatGLM2-6B-32k, ChatGLM3-6B-32k): names and the text of the
folder's own program files, which is read and never run, tell them apart. A folder that says
neither can say `"rope_interpolation": true` in its config.json.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from glm.errors import CheckpointError

Arch = Literal["chatglm", "chatglm1", "native"]
TokenizerKind = Literal["sentencepiece", "ice", "ranks", "hub"]
# How positions turn: `2d` positions and blocks of ChatGLM-6B, `base` 10000 * rope_ratio,
# `divided` positions / rope_ratio over base 10000, `config` as transformers reads the config.
Rope = Literal["2d", "base", "divided", "config"]


@dataclass(frozen=True, slots=True)
class Clues:
    """What a folder says about itself. `name` in lower case, `code` the text of its *_chatglm.py,
    `template` its chat template, `ranks` whether its tokenizer.model is a file of token ranks.
    """

    config: Mapping[str, Any]
    name: str = ""
    code: str = ""
    template: str = ""
    ranks: bool = False

    @property
    def kind(self) -> str:
        return str(self.config.get("model_type"))

    @property
    def ratio(self) -> float:
        return float(self.config.get("rope_ratio") or 1)

    def named(self, *words: str) -> bool:
        return any(re.search(rf"(?<![a-z]){re.escape(w)}(?![a-z])", self.name) for w in words)


@dataclass(frozen=True, slots=True)
class Family:
    """A row. `told` says why, after "because"; `base` whether it is a model that does not chat."""

    name: str
    when: Callable[[Clues], bool]
    told: str
    dialect: str
    arch: Arch
    tokenizer: TokenizerKind
    rope: Rope = "config"
    base: Callable[[Clues], bool] = lambda clues: clues.named("base")


def _first(clues: Clues) -> bool:
    config = clues.config
    two = config.get("position_encoding_2d") or "inner_hidden_size" in config
    return clues.kind == "chatglm" and bool(two) and "padded_vocab_size" not in config


def _original(clues: Clues) -> bool:
    return clues.kind == "chatglm" and not _first(clues)


def _glm4(clues: Clues) -> bool:
    large = clues.config.get("padded_vocab_size", clues.config.get("vocab_size", 0)) or 0
    return _original(clues) and (clues.ranks or large > 100_000)


def _second(clues: Clues) -> bool:
    named = clues.named("chatglm2", "codegeex2")
    rounds = "build_prompt" in clues.code and "observation" not in clues.code
    return _original(clues) and (named or (rounds and not clues.named("chatglm3")))


def _divides(clues: Clues) -> bool:
    """Does its own code divide positions? Without code, ChatGLM2 does when it has a ratio."""
    if clues.config.get("rope_interpolation"):
        return _original(clues)
    if "rope_ratio" in clues.code:
        return _original(clues) and "/ self.rope_ratio" in clues.code
    return _second(clues) and clues.ratio != 1


def _thinks(clues: Clues) -> bool:
    return clues.kind == "glm4" and (clues.named("z1") or "<think>" in clues.template)


def _fourth_seven(clues: Clues) -> bool:
    close = "{function-name}<arg_key>" in clues.template
    return clues.kind.startswith("glm4_moe") and (close or clues.named("4.7", "4_7"))


def _exported(clues: Clues, mark: str = "") -> bool:
    """A ChatGLM2/3 on the native Glm classes, as glm/export/native.py writes it; GLM-4's own
    templates have <sop>.
    """
    return clues.kind == "glm" and "]sop" in clues.template and mark in clues.template


def _no_template(clues: Clues) -> bool:
    return clues.named("base") or not clues.template


FAMILIES: tuple[Family, ...] = (
    Family(
        "ChatGLM-6B",
        _first,
        "model_type chatglm with two-dimensional positions",
        "chatglm",
        "chatglm1",
        "ice",
        "2d",
    ),
    Family(
        "GLM-4",
        _glm4,
        "ChatGLM layout with GLM-4's vocabulary of byte ranks; rope_ratio multiplies the base",
        "glm4",
        "chatglm",
        "ranks",
        "base",
        base=lambda clues: clues.named("glm-4-9b") and not clues.named("chat"),
    ),
    Family(
        "ChatGLM2-32k",
        lambda clues: _second(clues) and _divides(clues),
        "ChatGLM2/3 layout, named or coded as ChatGLM2, with a rope_ratio: positions are divided "
        "by it (linear RoPE), as this model alone was trained",
        "chatglm2",
        "chatglm",
        "sentencepiece",
        "divided",
    ),
    Family(
        "ChatGLM2",
        _second,
        "ChatGLM2/3 layout, named or coded as ChatGLM2",
        "chatglm2",
        "chatglm",
        "sentencepiece",
        "base",
    ),
    Family(
        "ChatGLM3",
        _divides,
        "ChatGLM2/3 layout, and its files say that positions are divided by rope_ratio",
        "chatglm3",
        "chatglm",
        "sentencepiece",
        "divided",
    ),
    Family(
        "ChatGLM3",
        _original,
        "ChatGLM2/3 layout, not named chatglm2; rope_ratio multiplies the base",
        "chatglm3",
        "chatglm",
        "sentencepiece",
        "base",
    ),
    Family(
        "GLM-Z1",
        _thinks,
        "model_type glm4, and its name or chat template thinks first",
        "glm_z1",
        "native",
        "hub",
    ),
    Family(
        "GLM-4-0414",
        lambda clues: clues.kind == "glm4",
        "model_type glm4",
        "glm4",
        "native",
        "hub",
        base=_no_template,
    ),
    Family(
        "ChatGLM2",
        lambda clues: _exported(clues, "[Round "),
        "model_type glm with ChatGLM2's chat template",
        "chatglm2",
        "native",
        "sentencepiece",
    ),
    Family(
        "ChatGLM3",
        _exported,
        "model_type glm with ChatGLM3's chat template",
        "chatglm3",
        "native",
        "sentencepiece",
    ),
    Family(
        "GLM-4",
        lambda clues: clues.kind == "glm",
        "model_type glm",
        "glm4",
        "native",
        "hub",
        base=_no_template,
    ),
    Family(
        "GLM-4.7",
        _fourth_seven,
        "model_type glm4_moe, and its name or chat template is GLM-4.7's",
        "glm47",
        "native",
        "hub",
    ),
    Family(
        "GLM-4.5",
        lambda clues: clues.kind.startswith("glm4_moe"),
        "model_type glm4_moe",
        "glm45",
        "native",
        "hub",
        base=_no_template,
    ),
    Family(
        "hub model",
        lambda clues: isinstance(clues.config.get("model_type"), str),
        "a model of the hub, by its own chat template",
        "template",
        "native",
        "hub",
        base=_no_template,
    ),
)


def tell(clues: Clues, folder: Path) -> Family:
    """The family of a folder. Raises CheckpointError for what no row opens."""
    for family in FAMILIES:
        if family.when(clues):
            _check(family, clues, folder)
            return family
    raise CheckpointError(f"{folder / 'config.json'} has no model_type, so nothing can open it")


_CHATGLM = ("ChatGLMModel", "ChatGLMForConditionalGeneration", "ChatGLMForCausalLM")
_LAYERS = {"full_attention", "sliding_attention"}


def _check(family: Family, clues: Clues, folder: Path) -> None:
    """Refuse what is no model that writes text, before its weights are looked at."""
    config = clues.config
    kinds = [str(kind) for kind in config.get("architectures") or []]
    ours = family.arch != "native"
    writes = [k for k in kinds if k in _CHATGLM or (not ours and _continues(k))]
    if kinds and not writes:
        raise CheckpointError(
            f"{folder}: {kinds[0]} is no model that continues text; open a causal language model"
        )
    if ours and config.get("vision_config"):
        raise CheckpointError(f"{folder}: this model reads pictures, which is not supported")
    other = sorted(set(config.get("layer_types") or []) - _LAYERS)
    if other:
        raise CheckpointError(
            f"{folder}: layers of {', '.join(other)} are not supported; only attention is"
        )


def _continues(architecture: str) -> bool:
    return architecture.endswith(("ForCausalLM", "LMHeadModel"))


def check_native(config: Mapping[str, Any], folder: Path) -> None:
    """Does transformers itself know this architecture? Raises CheckpointError. Brings transformers,
    not torch.
    """
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    kind = config.get("model_type")
    if kind in CONFIG_MAPPING_NAMES:
        return
    if config.get("auto_map"):
        raise CheckpointError(
            f"{folder}: model_type {kind!r} needs program code out of the checkpoint, which is "
            "never run here; open a version of it made for transformers (often named -hf)"
        )
    raise CheckpointError(
        f"{folder}: transformers {transformers.__version__} does not know model_type {kind!r}"
    )
