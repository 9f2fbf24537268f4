"""tokenizer.json for other programs, made from the checkpoint's own tokenizer.

The ids of plain text are those of our tokenizer (tests compare them on random text). What other
programs cannot do is keep text that spells a control token apart from the token: their chat
templates are strings. See the note the export writes beside it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from glm.checkpoint.recognise import ModelInfo
from glm.errors import CheckpointError
from glm.export.pieces import BYTE, CONTROL, NORMAL, PieceModel, TextPiece, read_pieces
from glm.tokenizer import GLM4_SPECIALS, SPACE, SPECIALS
from glm.tokenizer import Tokenizer as OurTokenizer
from glm.tokenizers.ranks import RankTokenizer, read_ranks

# GLM-4's way to cut text into words, that of cl100k; see glm/tokenizers/ranks.py.
WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def open_both(info: ModelInfo) -> tuple[Any, Tokenizer]:
    """Our tokenizer of a ChatGLM2/3 or GLM-4 checkpoint, and the same for other programs."""
    if info.tokenizer_kind == "ranks":
        return RankTokenizer(info.tokenizer), from_ranks(info.tokenizer)
    return OurTokenizer(info.tokenizer), from_sentencepiece(info.tokenizer)


def from_sentencepiece(file: Path) -> Tokenizer:
    """The tokenizers.Tokenizer of a ChatGLM2/3 tokenizer.model. Raises CheckpointError."""
    model = read_pieces(file)
    if not model.like_the_family():
        raise CheckpointError(f"{file} is not built as ChatGLM2/3's, so no tokenizer.json is made")
    vocabulary = {piece.text: number for number, piece in enumerate(model.pieces)}
    out = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=_merges(model.pieces),
            unk_token=model.pieces[0].text,
            fuse_unk=True,
            byte_fallback=True,
            ignore_merges=bool(model.defined),
        )
    )
    out.normalizer = normalizers.Sequence(
        [normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)]
    )
    if model.defined:
        out.pre_tokenizer = _apart(model)
    spaced = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    out.decoder = decoders.Sequence([*spaced, decoders.Strip(" ", 1, 0)])
    _specials(out, (model.pieces[0].text, model.pieces[2].text, *SPECIALS))
    return out


def from_ranks(file: Path) -> Tokenizer:
    """The tokenizers.Tokenizer of a GLM-4 tokenizer.model. Raises CheckpointError."""
    vocabulary, merges = byte_level(file)
    out = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=True))
    out.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    out.decoder = decoders.ByteLevel()
    _specials(out, GLM4_SPECIALS)
    return out


def byte_level(file: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Ranks as a vocabulary of printable characters, and the merges that make it, in order."""
    ranks = read_ranks(file)
    names = _byte_names()
    written = {token: "".join(names[byte] for byte in token) for token in ranks}
    merges = []
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        if len(token) > 1:
            left, right = _halves(token, rank, ranks)
            merges.append((written[left], written[right]))
    return {written[token]: rank for token, rank in ranks.items()}, merges


def _merges(pieces: tuple[TextPiece, ...]) -> list[tuple[str, str]]:
    """Every way to make a piece of two others, in the order sentencepiece merges them."""
    number = {piece.text: i for i, piece in enumerate(pieces) if piece.kind == NORMAL}
    out = []
    for text in sorted(number, key=lambda text: (-pieces[number[text]].score, number[text])):
        cuts = [(text[:at], text[at:]) for at in range(1, len(text))]
        pairs = [(a, b) for a, b in cuts if a in number and b in number]
        out += sorted(pairs, key=lambda pair: (number[pair[0]], number[pair[1]]))
    return out


def _apart(model: PieceModel) -> pre_tokenizers.PreTokenizer:
    """The user's pieces stand alone, the longest first, as sentencepiece's prefix matcher cuts.

    A word that is a piece becomes its id, so the names of bytes and controls must be no words.
    """
    longest = sorted(model.defined, key=len, reverse=True)
    names = [piece.text[1:] for piece in model.pieces if piece.kind in (BYTE, CONTROL)]
    torn = f"<(?={'|'.join(map(re.escape, names))})"
    return pre_tokenizers.Split(Regex("|".join([*map(re.escape, longest), torn])), "isolated")


def _specials(tokenizer: Tokenizer, names: tuple[str, ...]) -> None:
    tokens = [AddedToken(name, normalized=False, special=True) for name in names]
    tokenizer.add_special_tokens(tokens)


def _halves(token: bytes, rank: int, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens that are joined to this one: what merging below its rank leaves."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        best, at = min((ranks.get(parts[i] + parts[i + 1], rank), i) for i in range(len(parts) - 1))
        if best >= rank:
            break
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    if len(parts) != 2:
        raise CheckpointError(f"token {rank} of the tokenizer.model is no pair of earlier tokens")
    return parts[0], parts[1]


def _byte_names() -> dict[int, str]:
    """The printable character that byte-level BPE writes for each byte (GPT-2's table)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    out = {byte: chr(byte) for byte in plain}
    others = (byte for byte in range(256) if byte not in out)
    return out | {byte: chr(256 + number) for number, byte in enumerate(others)}
