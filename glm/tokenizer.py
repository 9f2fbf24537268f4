"""ChatGLM2/3 text <-> token ids, straight on sentencepiece.

Text is always encoded as text: no string a user, a tool or a file holds ever becomes a control
id. Control ids come from the checkpoint: they follow the sentencepiece vocabulary in a fixed
order (THUDM/chatglm3-6b, tokenization_chatglm.py). Other vocabularies have the same shape,
vocabulary.py: ice_tokenizer.py (ChatGLM-6B v1), rank_tokenizer.py (GLM-4), hub_tokenizer.py.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import sentencepiece

from glm.errors import CheckpointError

SPECIALS = (
    "[MASK]",
    "[gMASK]",
    "[sMASK]",
    "sop",
    "eop",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
)
ICE_SPECIALS = (
    "[MASK]",
    "[gMASK]",
    "[sMASK]",
    "<unused_0>",
    "<sop>",
    "<eop>",
    "<ENC>",
    "<dBLOCK>",
)
# Those that the official tokenizer finds in a text: what its config declares as special.
ICE_SPELLED = ("<sop>", "<eop>", "</s>", "[MASK]", "<pad>")
GLM4_SPECIALS = (
    "<|endoftext|>",
    "[MASK]",
    "[gMASK]",
    "[sMASK]",
    "<sop>",
    "<eop>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
    "<|begin_of_image|>",
    "<|end_of_image|>",
    "<|begin_of_video|>",
    "<|end_of_video|>",
)
_SURROGATE = re.compile("[\ud800-\udfff]")
SPACE = "\u2581"  # sentencepiece writes a space as this


@dataclass(frozen=True, slots=True)
class TokenPiece:
    """One token as people see it: a control token's name, else its text or `<0xE4>` for a byte."""

    id: int
    text: str
    special: bool


class Tokenizer:
    """The tokenizer of one checkpoint. Thread-safe: it never changes after it is made."""

    def __init__(self, model_file: str | Path) -> None:
        """Raises CheckpointError, naming the file, when it is missing or no sentencepiece model."""
        path = Path(model_file)
        if not path.is_file():
            raise CheckpointError(
                f"no tokenizer at {path}; expected a sentencepiece tokenizer.model"
            )
        try:
            self._sp = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except (RuntimeError, OSError) as error:
            raise CheckpointError(f"{path} is not a sentencepiece model") from error
        self.text_size: int = self._sp.vocab_size()
        self.special: dict[str, int] = {s: self.text_size + i for i, s in enumerate(SPECIALS)}
        self._names = {i: s for s, i in self.special.items()}
        self.size = self.text_size + len(SPECIALS)
        self.eos: int = self._sp.eos_id()
        self.fingerprint = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        self.pad = 0

    @classmethod
    def open(cls, folder: str | Path) -> Tokenizer:
        """The tokenizer of a checkpoint folder."""
        return cls(Path(folder) / "tokenizer.model")

    def id(self, special: str) -> int:
        """The id of a control token, such as `<|user|>`. Raises KeyError for any other text."""
        return self.special[special]

    def encode(self, text: str) -> list[int]:
        """Plain text to ids. Lone surrogates, which no file can hold, become U+FFFD."""
        ids: list[int] = self._sp.encode(whole(text))
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Ids to text, role ids by their names; broken UTF-8 becomes U+FFFD, one per byte."""
        decoder = self.decoder()
        return "".join([*map(decoder.push, ids), decoder.flush()])

    def decoder(self) -> Decoder:
        """A streaming decoder; one for each stretch of text between control tokens."""
        return Decoder(self._sp, self._names)

    def is_special(self, token: int) -> bool:
        """Is this a control id (eos too), or padding above the vocabulary?"""
        return token >= self.text_size or self._sp.is_control(token)

    def name(self, token: int) -> str:
        """The name of a control id."""
        if token < self.text_size:
            return self._sp.id_to_piece(token)
        return self._names.get(token, f"<unused {token}>")

    def raw(self, token: int) -> bytes | None:
        """The bytes a token stands for; None for a control token."""
        if self.is_special(token) or self._sp.is_unknown(token):
            return None
        piece = self._sp.id_to_piece(token)
        if self._sp.is_byte(token):
            return bytes([int(piece[3:5], 16)])
        return piece.replace(SPACE, " ").encode()

    def pieces(self, ids: Iterable[int]) -> list[TokenPiece]:
        """The tokens one by one, for people."""
        out = []
        for token in ids:
            special = self.is_special(token)
            text = self.name(token) if special else self._sp.id_to_piece(token)
            out.append(TokenPiece(token, text if special else text.replace(SPACE, " "), special))
        return out


class Decoder:
    """Ids to text as they arrive, O(1) a token; never shows half a character.

    The joined output of `push` and one `flush` equals the official decode: sentencepiece's own
    between role tokens, and their names.
    """

    def __init__(self, sp: sentencepiece.SentencePieceProcessor, names: dict[int, str]) -> None:
        self._sp, self._names, self._bytes, self._first = sp, names, b"", True

    def push(self, token: int) -> str:
        """The text that is certain after this token."""
        sp = self._sp
        if token in self._names:
            self._first = True
            return self.flush() + self._names[token]
        if token >= sp.vocab_size() or sp.is_control(token) or sp.is_unknown(token):
            return self.flush()
        if sp.is_byte(token):
            self._bytes += bytes([int(sp.id_to_piece(token)[3:5], 16)])
            self._first = False
            return self._drain(final=False)
        text = sp.id_to_piece(token).replace(SPACE, " ")
        if self._first:
            text, self._first = text.removeprefix(" "), False
        return self._drain(final=True) + text

    def flush(self) -> str:
        """What is held back: the bytes of a character that never became whole."""
        return self._drain(final=True)

    def _drain(self, final: bool) -> str:
        out = []
        while self._bytes:
            need = _utf8_length(self._bytes[0])
            head = self._bytes[:need]
            whole = _decode(head) if need and len(head) == need else None
            if whole is None and need and len(head) < need and not final and _is_tail(head[1:]):
                break
            out.append("\ufffd" if whole is None else whole)
            self._bytes = self._bytes[1 if whole is None else need :]
        return "".join(out)


def whole(text: str) -> str:
    """The text with lone surrogates, which have no UTF-8, as U+FFFD."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return _SURROGATE.sub("\ufffd", text)
    return text


def _utf8_length(first: int) -> int:
    """How many bytes a character has that starts with this one; 0 for no start."""
    if first < 0x80:
        return 1
    for length, low, high in ((2, 0xC2, 0xE0), (3, 0xE0, 0xF0), (4, 0xF0, 0xF5)):
        if low <= first < high:
            return length
    return 0


def _is_tail(data: bytes) -> bool:
    return all(0x80 <= byte < 0xC0 for byte in data)


def _decode(data: bytes) -> str | None:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return None
