"""The tokenizer of a recognised checkpoint, whichever kind of file it has.

What does not fit the model is refused: more ids than the model has rows, control tokens of
another family, an end token that is none. Light to import; hub tokenizers bring transformers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from glm.checkpoint.families import TokenizerKind, check_native
from glm.checkpoint.recognise import ModelInfo
from glm.dialects.vocabulary import Vocabulary
from glm.errors import CheckpointError
from glm.tokenizer import GLM4_SPECIALS, Tokenizer
from glm.tokenizers.hub import HubTokenizer
from glm.tokenizers.ranks import RankTokenizer

OLD_IMAGES = 20_000  # ids of picture tokens before the text in ChatGLM-6B's first vocabulary
OLD_ROWS = 150_528
# rows of a published model -> ids of its tokenizer (rows are padded)
PUBLISHED = {65_024: 64_798, 151_552: 151_343}


def open_tokenizer(info: ModelInfo) -> Vocabulary:
    """Raises CheckpointError, naming the file, when it cannot be read or is another model's."""
    vocabulary = _OPEN[info.tokenizer_kind](info)
    _check(info, vocabulary)
    return vocabulary


def _sentencepiece(info: ModelInfo) -> Vocabulary:
    return Tokenizer(info.tokenizer)


def _ranks(info: ModelInfo) -> Vocabulary:
    return RankTokenizer(info.tokenizer)


def _ice(info: ModelInfo) -> Vocabulary:
    from glm.tokenizers.ice import IceTokenizer

    old = info.config.get("vocab_size") == OLD_ROWS
    vocabulary: Vocabulary = IceTokenizer(info.tokenizer, OLD_IMAGES if old else 0)
    return vocabulary


def _hub(info: ModelInfo) -> Vocabulary:
    check_native(info.config, info.path)
    return HubTokenizer(info.tokenizer.parent)


_OPEN: dict[TokenizerKind, Callable[[ModelInfo], Vocabulary]] = {
    "sentencepiece": _sentencepiece,
    "ranks": _ranks,
    "ice": _ice,
    "hub": _hub,
}


def _check(info: ModelInfo, vocabulary: Vocabulary) -> None:
    rows, ids = _rows(info.config), vocabulary.size
    if info.tokenizer_kind == "hub":
        ids -= len(vocabulary.special)  # some name control tokens above their rows, unused
        published = None
    else:
        published = PUBLISHED.get(rows)
    if rows and (ids > rows or published not in (None, ids)):
        raise CheckpointError(
            f"{info.tokenizer} is another model's tokenizer: it has {vocabulary.size} ids, "
            f"and {info.name} has {rows} rows"
        )
    if info.dialect.startswith("glm"):
        lacking = [name for name in GLM4_SPECIALS[:10] if name not in vocabulary.special]
        if lacking:
            raise CheckpointError(
                f"{info.tokenizer} is another family's tokenizer: it has no {lacking[0]}"
            )
    ends = _ends(info.config)
    if ends and not any(end == vocabulary.eos or _control(vocabulary, end) for end in ends):
        raise CheckpointError(
            f"{info.tokenizer} is another model's tokenizer: the end token {ends[0]} of "
            "config.json is none of its control tokens"
        )


def _rows(config: dict[str, Any]) -> int:
    found = config.get("padded_vocab_size") or config.get("vocab_size") or 0
    return int(found)


def _ends(config: dict[str, Any]) -> list[int]:
    found = config.get("eos_token_id")
    return [i for i in (found if isinstance(found, list) else [found]) if isinstance(i, int)]


def _control(vocabulary: Vocabulary, token: int) -> bool:
    return token < vocabulary.size and vocabulary.is_special(token)
