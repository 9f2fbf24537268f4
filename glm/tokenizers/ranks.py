"""GLM-4 text <-> token ids: byte-pair ranks from the checkpoint's tokenizer.model.

The file has one line a token, base64 and rank, as tiktoken writes them; control ids follow the
ranks in a fixed order (THUDM/glm-4-9b-chat, tokenization_chatglm.py). Text is always encoded as
text. Merging is by a heap, so a long word costs n log n. No real GLM-4 file was at hand: the
algorithm is tested on generated ranks.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import hashlib
import heapq
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from pathlib import Path

from glm.errors import CheckpointError
from glm.tokenizer import GLM4_SPECIALS, TokenPiece, whole

_SPACE = "\\t\\n\\x0b\\x0c\\r \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000"


class RankTokenizer:
    """The tokenizer of one checkpoint. Thread-safe: only its cache of words changes."""

    def __init__(self, file: str | Path, specials: tuple[str, ...] = GLM4_SPECIALS) -> None:
        """Raises CheckpointError, naming the file, when it holds no ranks."""
        path = Path(file)
        self._ranks = read_ranks(path)
        self.text_size = max(self._ranks.values()) + 1
        self.special = {name: self.text_size + i for i, name in enumerate(specials)}
        self.size = self.text_size + len(specials)
        self.eos = self.special[specials[0]]
        self.pad = self.eos
        self.fingerprint = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
        self._names = {i: name for name, i in self.special.items()}
        self._bytes = {rank: token for token, rank in self._ranks.items()}
        self._merged = lru_cache(maxsize=1 << 16)(self._merge)

    def id(self, special: str) -> int:
        """The id of a control token. Raises KeyError for any other text."""
        return self.special[special]

    def encode(self, text: str) -> list[int]:
        """Plain text to ids. Lone surrogates become U+FFFD."""
        ids: list[int] = []
        for word in _words().findall(whole(text)):
            data = word.encode("utf-8")
            ids += self._merged(data) if len(data) < 64 else self._merge(data)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Ids to text, control ids by their names; broken UTF-8 becomes U+FFFD."""
        decoder = self.decoder()
        return "".join([*map(decoder.push, ids), decoder.flush()])

    def decoder(self) -> RankDecoder:
        """A streaming decoder."""
        return RankDecoder(self._bytes, self._names)

    def is_special(self, token: int) -> bool:
        """Is this a control id, or padding above the vocabulary?"""
        return token >= self.text_size

    def name(self, token: int) -> str:
        """The name of a control id."""
        return self._names.get(token, f"<unused {token}>")

    def raw(self, token: int) -> bytes | None:
        """The bytes a token stands for; None for a control token, or an id that is no token."""
        return self._bytes.get(token)

    def pieces(self, ids: Iterable[int]) -> list[TokenPiece]:
        """The tokens one by one, for people; a part of a character as `<0xE4>`."""
        out = []
        for token in ids:
            special = self.is_special(token)
            text = self.name(token) if special else _readable(self._bytes.get(token, b""))
            out.append(TokenPiece(token, text, special))
        return out

    def _merge(self, data: bytes) -> tuple[int, ...]:
        """Join the neighbours of the lowest rank until none is left."""
        if data in self._ranks:
            return (self._ranks[data],)
        parts: list[bytes] = [data[i : i + 1] for i in range(len(data))]
        before = list(range(-1, len(parts) - 1))
        after = [*range(1, len(parts)), -1]
        queue: list[tuple[int, int, bytes, bytes]] = []

        def offer(left: int) -> None:
            right = after[left] if left >= 0 else -1
            rank = self._ranks.get(parts[left] + parts[right]) if right >= 0 else None
            if rank is not None:
                heapq.heappush(queue, (rank, left, parts[left], parts[right]))

        for i in range(len(parts)):
            offer(i)
        while queue:
            _, left, first, second = heapq.heappop(queue)
            right = after[left]
            if right < 0 or parts[left] != first or parts[right] != second:
                continue  # one of the two has been joined with another
            parts[left], parts[right] = first + second, b""
            after[left] = after[right]
            if after[left] >= 0:
                before[after[left]] = left
            offer(left)
            offer(before[left])
        return tuple(self._ranks[part] for part in parts if part)


class RankDecoder:
    """Ids to text as they arrive; never shows half a character."""

    def __init__(self, pieces: dict[int, bytes], names: dict[int, str]) -> None:
        self._pieces, self._names = pieces, names
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """The text that is certain after this token."""
        if token in self._names:
            return self.flush() + self._names[token]
        return self._utf8.decode(self._pieces.get(token, b""))

    def flush(self) -> str:
        """What is held back: the bytes of a character that never became whole."""
        return self._utf8.decode(b"", final=True)


def read_ranks(path: Path) -> dict[bytes, int]:
    """Token bytes to rank. Raises CheckpointError, naming the file."""
    if not path.is_file():
        raise CheckpointError(f"no tokenizer at {path}; expected a tokenizer.model of ranks")
    try:
        lines = path.read_bytes().splitlines()
        pairs = [line.split() for line in lines if line]
        ranks = {base64.b64decode(token, validate=True): int(rank) for token, rank in pairs}
    except (ValueError, binascii.Error) as error:
        raise CheckpointError(f"{path} is not a file of token ranks") from error
    if any(bytes([byte]) not in ranks for byte in range(256)):
        raise CheckpointError(f"{path} lacks single bytes, so not every text has ids")
    return ranks


def is_rank_file(path: Path) -> bool:
    """Does the first line look like base64 and a number?"""
    with path.open("rb") as file:
        return re.fullmatch(rb"[A-Za-z0-9+/]+={0,2} \d+\r?\n?", file.readline(400)) is not None


def _readable(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "".join(f"<0x{byte:02X}>" for byte in data)


@cache
def _words() -> re.Pattern[str]:
    """GLM-4's way to cut text into words (that of cl100k), in the words of `re`."""
    letters, numbers = _category("L"), _category("N")
    apart = f"[^{_SPACE}{letters}{numbers}]"
    return re.compile(
        "'(?:[sSſtTmMdD]|[rR][eE]|[vV][eE]|[lL][lL])"
        f"|[^\\r\\n{letters}{numbers}]?[{letters}]+"
        f"|[{numbers}]{{1,3}}"
        f"| ?{apart}+[\\r\\n]*"
        f"|[{_SPACE}]*[\\r\\n]+"
        f"|[{_SPACE}]+(?![^{_SPACE}])"
        f"|[{_SPACE}]+"
    )


def _category(first: str) -> str:
    """All characters of a Unicode category as the inside of a regular expression's class."""
    return "".join(f"{re.escape(chr(start))}-{re.escape(chr(end))}" for start, end in _runs(first))


def _runs(first: str) -> Iterator[tuple[int, int]]:
    start = None
    for code in range(sys.maxunicode + 2):
        inside = code <= sys.maxunicode and unicodedata.category(chr(code))[0] == first
        if inside and start is None:
            start = code
        elif not inside and start is not None:
            yield start, code - 1
            start = None
