"""ChatGLM-6B (v1) text <-> token ids, straight on sentencepiece.

The model in ice_text.model reads a newline as `<n>`, a tab as `<|tab|>`, a run of spaces as
`<|blank_k|>`; one who types these marks has typed what they stand for. Its normaliser makes
full-width punctuation half-width and drops spaces at both ends of a text. Text is always encoded
as text: a control token that is spelled stays text, also where the official tokenizer, which cuts
at `sop` and `eop`, makes an id of it. Decoding equals the official decode, which sets punctuation
to the word before it. In the first checkpoints 20,000 image tokens come before the text, and
control tokens, blanks and bytes are not in the file.
Source: THUDM/chatglm-6b, tokenization_chatglm.py; clean_up_tokenization of transformers.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path

import sentencepiece

from glm.dialects.rewriter import Rewriter, beginnings
from glm.errors import CheckpointError
from glm.tokenizer import ICE_SPECIALS, ICE_SPELLED, SPACE, Decoder, TokenPiece, whole

FILE = "ice_text.model"
_LONGEST = 80  # spaces in one mark
_MARKS = {"<n>": "\n", "<|tab|>": "\t"}
_MARKS |= {f"<|blank_{count}|>": " " * count for count in range(2, _LONGEST + 1)}
_SPACES = re.compile(f" {{2,{_LONGEST}}}")
# The official decode drops these spaces in turns; what a turn leaves can be found by a later one.
_LOOSE = r"  ' (?=[ms]|[vr]e)| ' (?![.?!,])| (?=[.?!,]|'[ms]|'[vr]e|n(?:'| ' )t)"
_MAYBE_LOOSE = r"  ?(?:'(?: ?[vr]?)|n(?:'| '? ?)?)?"


class IceTokenizer:
    """The tokenizer of one checkpoint. Thread-safe: it never changes after it is made."""

    def __init__(self, file: str | Path, num_image_tokens: int = 0) -> None:
        """Raises CheckpointError, naming the file, when it is missing or no sentencepiece model."""
        path = Path(file)
        if not path.is_file():
            raise CheckpointError(f"no tokenizer at {path}; expected a sentencepiece {FILE}")
        data = path.read_bytes()
        try:
            self._sp = _open(data)
        except (RuntimeError, OSError) as error:
            raise CheckpointError(f"{path} is not a sentencepiece model") from error
        self._shift = num_image_tokens
        self.size: int = self._shift + self._sp.vocab_size()
        controls = filter(self._sp.is_control, range(self._sp.vocab_size()))
        self.special = {self._sp.id_to_piece(i): i + self._shift for i in controls}
        missing = [name for name in ICE_SPECIALS if name not in self.special]
        if missing:
            raise CheckpointError(f"{path} lacks {missing[0]}; it is not ChatGLM-6B's {FILE}")
        self._controls = frozenset(self.special.values())
        self.eos = self.special["<eop>"]
        self.pad = self.special.get("<pad>", self.eos)
        digest = hashlib.sha256(data).hexdigest()[:16]
        self.fingerprint = f"{digest}+{num_image_tokens}" if num_image_tokens else digest

    @classmethod
    def open(cls, folder: str | Path, num_image_tokens: int = 0) -> IceTokenizer:
        """The tokenizer of a checkpoint folder."""
        return cls(Path(folder) / FILE, num_image_tokens)

    def id(self, special: str) -> int:
        """The id of a control token. Raises KeyError for any other text."""
        return self.special[special]

    def encode(self, text: str) -> list[int]:
        """Plain text to ids. Lone surrogates, which no file can hold, become U+FFFD."""
        text = whole(text).replace("\n", "<n>").replace("\t", "<|tab|>")
        text = _SPACES.sub(lambda run: f"<|blank_{len(run[0])}|>", text)
        return [i + self._shift for i in self._sp.encode(text)]

    def official(self, text: str) -> list[int]:
        """What the official tokenizer makes of a text: control tokens it spells become theirs.

        To compare with other programs, and data they have prepared; no prompt is made by it.
        """
        parts = re.split(f"({'|'.join(map(re.escape, ICE_SPELLED))})", text)
        return [
            i
            for part in parts
            for i in ([self.special[part]] if part in ICE_SPELLED else self.encode(part))
        ]

    def decode(self, ids: Iterable[int]) -> str:
        """Ids to text. Control tokens are dropped; broken UTF-8 becomes U+FFFD, one per byte."""
        decoder = self.decoder()
        return "".join([*map(decoder.push, ids), decoder.flush()])

    def decoder(self) -> IceDecoder:
        """A streaming decoder."""
        return IceDecoder(self._sp, self._shift)

    def is_special(self, token: int) -> bool:
        """Is this a control id, an image token, or padding above the vocabulary?"""
        return not self._shift <= token < self.size or token in self._controls

    def name(self, token: int) -> str:
        """The name of a control id."""
        if token < self._shift:
            return f"<image_{token}>"
        if token >= self.size:
            return f"<unused {token}>"
        return self._sp.id_to_piece(token - self._shift)

    def raw(self, token: int) -> bytes | None:
        """The bytes a token stands for; None for a control token."""
        if self.is_special(token) or self._sp.is_unknown(token - self._shift):
            return None
        piece = self._sp.id_to_piece(token - self._shift)
        if self._sp.is_byte(token - self._shift):
            return bytes([int(piece[3:5], 16)])
        return _readable(piece).encode()

    def pieces(self, ids: Iterable[int]) -> list[TokenPiece]:
        """The tokens one by one, for people."""
        out = []
        for token in ids:
            name, special = self.name(token), self.is_special(token)
            out.append(TokenPiece(token, name if special else _readable(name), special))
        return out


class IceDecoder:
    """Ids to text as they arrive; never shows half a character or half a mark.

    The joined output of `push` and one `flush` equals the official decode.
    """

    def __init__(self, sp: sentencepiece.SentencePieceProcessor, shift: int) -> None:
        self._pieces, self._shift = _Pieces(sp, {}), shift
        self._marks = Rewriter(
            "|".join(map(re.escape, _MARKS)), beginnings(*_MARKS), lambda found: _MARKS[found[0]]
        )
        self._spaces = Rewriter(_LOOSE, _MAYBE_LOOSE, lambda found: found[0].strip(" "))

    def push(self, token: int) -> str:
        """The text that is certain after this token."""
        return self._spaces.push(self._marks.push(self._pieces.push(token - self._shift)))

    def flush(self) -> str:
        """What is held back."""
        text = self._marks.push(self._pieces.flush()) + self._marks.flush()
        return self._spaces.push(text) + self._spaces.flush()


class _Pieces(Decoder):
    """As sentencepiece decodes where its normaliser drops spaces: all those at the beginning."""

    def push(self, token: int) -> str:
        sp = self._sp
        if not 0 <= token < sp.vocab_size() or sp.is_control(token):
            return self.flush()
        if sp.is_byte(token):
            return super().push(token)
        text = " ⁇ " if sp.is_unknown(token) else sp.id_to_piece(token).replace(SPACE, " ")
        if self._first and not sp.is_unknown(token):
            text = text.removeprefix(" ")
        self._first = self._first and not text
        return self._drain(final=True) + text


def _readable(piece: str) -> str:
    return _MARKS.get(piece, piece.replace(SPACE, " "))


# ---- files of the first checkpoints -------------------------------------------------------------

_CONTROL, _USER_DEFINED, _BYTE = 3, 4, 6  # sentencepiece_model.proto, SentencePiece.Type


def _open(data: bytes) -> sentencepiece.SentencePieceProcessor:
    """The model, with what the first checkpoints' code added to it where it is not in the file."""
    sp = sentencepiece.SentencePieceProcessor(model_proto=data)
    if sp.is_unknown(sp.piece_to_id(ICE_SPECIALS[0])) and not sp.is_unknown(sp.piece_to_id("<n>")):
        return sentencepiece.SentencePieceProcessor(model_proto=data + _added())
    return sp


def _added() -> bytes:
    """Control tokens, marks and bytes as a piece of a model file; such pieces can be joined."""
    named = [(name, _CONTROL) for name in ICE_SPECIALS]
    named += [(mark, _USER_DEFINED) for mark in _MARKS if mark != "<n>"]
    named += [(f"<0x{byte:02X}>", _BYTE) for byte in range(256)]
    pieces = [_field(1, name.encode()) + bytes([3 << 3, kind]) for name, kind in named]
    byte_fallback = b"\x98\x02\x01"  # field 35 is true
    return b"".join(_field(1, piece) for piece in pieces) + _field(2, byte_fallback)


def _field(number: int, data: bytes) -> bytes:
    """A field of less than 128 bytes in the encoding of protocol buffers."""
    return bytes([number << 3 | 2, len(data)]) + data
