"""The bytes of each token of a tokenizer.json, where its decoder leaves no doubt about them.

Two kinds are known: byte-level tokenizers, and those in sentencepiece's manner, which write a
space as `▁` (and may have a token for each byte). Their decoders may drop the spaces that the
first token after a control token begins with; all else is the bytes of the tokens in order.
Any other decoder (word pieces, clean-ups, replacements) is not known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from glm.tokenizer import SPACE

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_FUSE, _BYTES = {"type": "Fuse"}, {"type": "ByteFallback"}
_SPACES = {"type": "Replace", "pattern": {"String": SPACE}, "content": " "}
_STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}


def token_bytes(config: Mapping[str, Any]) -> dict[int, bytes] | None:
    """Token -> bytes, of added tokens for those of white space only; None where not known."""
    steps, vocabulary = _steps(config.get("decoder") or {}), _vocabulary(config.get("model") or {})
    if vocabulary is None:
        return None
    added = {token["id"]: token["content"] for token in config.get("added_tokens", ())}
    pieces = {i: piece for piece, i in vocabulary.items() if i not in added}
    white = {i: text.encode() for i, text in added.items() if text.isspace()}
    if [step.get("type") for step in steps] == ["ByteLevel"]:
        known = _alphabet()
        if not all(char in known for piece in pieces.values() for char in piece):
            return None
        return white | {i: bytes(map(known.__getitem__, piece)) for i, piece in pieces.items()}
    if not _like_sentencepiece(steps):
        return None
    by_byte = _BYTES in steps
    return white | {i: _piece(piece, by_byte) for i, piece in pieces.items()}


def _steps(decoder: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if decoder.get("type") == "Sequence":
        return list(decoder.get("decoders", ()))
    return [decoder] if decoder else []


def _like_sentencepiece(steps: list[Mapping[str, Any]]) -> bool:
    if len(steps) == 1 and steps[0].get("type") == "Metaspace":
        return bool(steps[0].get("replacement") == SPACE)
    # In this order, as Llama 2 and Gemma have them; to strip before joining would hit each token.
    return [step for step in steps if step != _BYTES] in (
        [_SPACES, _FUSE],
        [_SPACES, _FUSE, _STRIP],
    )


def _vocabulary(model: Mapping[str, Any]) -> dict[str, int] | None:
    found = model.get("vocab")
    if model.get("type") == "BPE" and isinstance(found, Mapping):
        plain = not model.get("continuing_subword_prefix") and not model.get("end_of_word_suffix")
        return dict(found) if plain else None
    if model.get("type") == "Unigram" and isinstance(found, list):
        return {piece: i for i, (piece, _) in enumerate(found)}
    return None


def _piece(piece: str, by_byte: bool) -> bytes:
    byte = _BYTE.fullmatch(piece) if by_byte else None
    return bytes([int(byte[1], 16)]) if byte else piece.replace(SPACE, " ").encode()


@cache
def _alphabet() -> dict[str, int]:
    """The character that byte-level tokenizers write for each byte (GPT-2, encoder.py)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = [byte for byte in range(256) if byte not in plain]
    shown = [(chr(256 + i), byte) for i, byte in enumerate(other)]
    return {**{chr(byte): byte for byte in plain}, **dict(shown)}
