"""What a dialect needs of a tokenizer, whichever file it was read from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from glm.tokenizer import TokenPiece


class TextDecoder(Protocol):
    """Ids to text as they arrive; never shows half a character."""

    def push(self, token: int) -> str:
        """The text that is certain after this token."""

    def flush(self) -> str:
        """What is held back."""


class Vocabulary(Protocol):
    """Text <-> ids of one checkpoint. `special` are its control tokens by name; `encode` makes
    none of their ids, whatever the text spells.
    """

    special: dict[str, int]
    eos: int
    size: int
    fingerprint: str

    def id(self, special: str) -> int: ...

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: Iterable[int]) -> str: ...

    def decoder(self) -> TextDecoder: ...

    def is_special(self, token: int) -> bool: ...

    def name(self, token: int) -> str: ...

    def pieces(self, ids: Iterable[int]) -> list[TokenPiece]: ...
