"""A sentencepiece model as other programs need it: its pieces with scores and kinds, its flags.

sentencepiece itself does not tell which pieces users defined, nor its normaliser's flags, so the
few fields needed are read from the file's protobuf (sentencepiece_model.proto) by hand.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from glm.errors import CheckpointError

# SentencePiece.Type
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
BPE = 2  # TrainerSpec.ModelType


@dataclass(frozen=True, slots=True)
class TextPiece:
    text: str
    score: float
    kind: int


@dataclass(frozen=True, slots=True)
class PieceModel:
    """What a tokenizer.model says. Ids are the places in `pieces`."""

    pieces: tuple[TextPiece, ...]
    bpe: bool
    dummy_prefix: bool
    extra_spaces_removed: bool
    normaliser: str

    @property
    def defined(self) -> tuple[str, ...]:
        """The pieces that are matched before anything is merged."""
        return tuple(piece.text for piece in self.pieces if piece.kind == USER_DEFINED)

    def like_the_family(self) -> bool:
        """Is it BPE over unchanged text with a space put before, as ChatGLM2/3 have it?"""
        plain = self.normaliser in ("identity", "")
        return self.bpe and self.dummy_prefix and plain and not self.extra_spaces_removed


def read_pieces(file: Path) -> PieceModel:
    """Read a tokenizer.model. Raises CheckpointError, naming the file."""
    try:
        return _model(file.read_bytes())
    except (OSError, ValueError, IndexError, KeyError, struct.error) as error:
        raise CheckpointError(f"{file} is not a sentencepiece model") from error


def _model(data: bytes) -> PieceModel:
    pieces: list[TextPiece] = []
    trainer: dict[int, bytes | int] = {}
    normaliser: dict[int, bytes | int] = {}
    for number, value in _fields(data):
        if number == 1 and isinstance(value, bytes):
            pieces.append(_piece(dict(_fields(value))))
        elif number == 2 and isinstance(value, bytes):
            trainer = dict(_fields(value))
        elif number == 3 and isinstance(value, bytes):
            normaliser = dict(_fields(value))
    if not pieces:
        raise ValueError("no pieces")
    rule = normaliser.get(1, b"")
    return PieceModel(
        tuple(pieces),
        bpe=trainer.get(3, 1) == BPE,
        dummy_prefix=bool(normaliser.get(3, 1)),
        extra_spaces_removed=bool(normaliser.get(4, 1)),
        normaliser=rule.decode() if isinstance(rule, bytes) else "",
    )


def _piece(fields: dict[int, bytes | int]) -> TextPiece:
    text, score, kind = fields[1], fields.get(2, b"\0\0\0\0"), fields.get(3, NORMAL)
    if not isinstance(text, bytes) or not isinstance(score, bytes) or not isinstance(kind, int):
        raise ValueError("a piece of another form")
    return TextPiece(text.decode("utf-8"), struct.unpack("<f", score)[0], kind)


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """(number, value) of a protobuf message; numbers as int, everything else as bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if kind == 2:
            length, at = _varint(data, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at + length > len(data):
            raise ValueError("cut off")
        yield key >> 3, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number too long")
