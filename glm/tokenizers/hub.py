"""The tokenizer and the chat template of any model of the Transformers hub, by its own files.

Read through transformers, without remote code; templates run in its Jinja sandbox. Text never
becomes a control id: it is encoded by a copy of the tokenizer that knows no added token save
those of white space. Not covered: tokenizers that have no tokenizer.json and none can be made.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from glm.errors import BadRequest, CheckpointError
from glm.tokenizer import TokenPiece, whole
from glm.tokenizers.hub_bytes import token_bytes

MOST_HELD = 8  # tokens of one character; more than that are broken bytes


class HubTokenizer:
    """The tokenizer of one checkpoint folder. Thread-safe: once made it stays the same."""

    def __init__(self, folder: str | Path) -> None:
        """Raises CheckpointError, naming the folder, when transformers cannot read it."""
        from transformers import AutoTokenizer

        try:
            self._hub = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
            self._all = self._hub.backend_tokenizer
        except Exception as error:  # whatever a foreign file makes transformers raise
            raise CheckpointError(f"no tokenizer in {folder} can be read: {error}") from error
        added = {i: t for i, t in self._hub.added_tokens_decoder.items() if not t.content.isspace()}
        self.special: dict[str, int] = {t.content: i for i, t in added.items()}
        self.swallows = {t.content: (t.lstrip, t.rstrip) for t in added.values()}
        self._names = {i: name for name, i in self.special.items()}
        self._plain = _without(self._all, self.special)
        self.size = max(len(self._hub), max(self._names, default=0) + 1)
        self.eos = int(self._hub.eos_token_id if self._hub.eos_token_id is not None else -1)
        self.begin = tuple(i for i in self._all.encode("").ids if i != self.eos)
        self.stops = tuple(dict.fromkeys([self.eos, *_generation_ends(Path(folder))]))
        self.fingerprint = hashlib.sha256(self._all.to_str().encode()).hexdigest()[:16]

    @property
    def template(self) -> str:
        """The source of the chat template that tools are offered with; "" when there is none."""
        found = self._hub.chat_template
        if isinstance(found, dict):
            found = found.get("tool_use", found.get("default", ""))
        return found or ""

    def apply(self, messages: list[dict[str, Any]], tools: list[Any], prompt: bool) -> str:
        """The conversation as text by the model's template. Raises BadRequest with its reason."""
        try:
            text = self._hub.apply_chat_template(
                messages, tools=tools or None, add_generation_prompt=prompt, tokenize=False
            )
        except Exception as error:  # a template is a program of the checkpoint's authors
            reason = str(error).strip() or type(error).__name__
            raise BadRequest(f"the model's chat template refuses this: {reason}") from error
        return str(text)

    def id(self, special: str) -> int:
        """The id of a control token. Raises KeyError for any other text."""
        return self.special[special]

    def encode(self, text: str) -> list[int]:
        """Plain text to ids, none of them a control id. Lone surrogates become U+FFFD."""
        ids: list[int] = self._plain.encode(whole(text), add_special_tokens=False).ids
        if not any(i in self._names for i in ids):
            return ids
        half = len(text) // 2  # a vocabulary that spells a control token: take it apart
        if not half:
            return []
        return self.encode(text[:half]) + self.encode(text[half:])

    def decode(self, ids: Iterable[int]) -> str:
        """Ids to text, control ids by their names."""
        decoder = self.decoder()
        return "".join([*map(decoder.push, ids), decoder.flush()])

    def decoder(self) -> HubDecoder:
        """A streaming decoder."""
        return HubDecoder(self._all, self._names)

    def is_special(self, token: int) -> bool:
        """Is this a control id, or padding above the vocabulary?"""
        return token in self._names or token >= self.size

    def name(self, token: int) -> str:
        """The name of a control id."""
        return self._names.get(token, f"<unused {token}>")

    @property
    def bytes_known(self) -> bool:
        """Does `raw` tell what every token stands for? Where not, calls cannot be constrained."""
        return self._raw is not None

    def raw(self, token: int) -> bytes | None:
        """The bytes a token stands for; None for a control token, or an id that is no token."""
        return None if self._raw is None or token in self._names else self._raw.get(token)

    @cached_property
    def _raw(self) -> dict[int, bytes] | None:
        return token_bytes(json.loads(self._all.to_str()))

    def pieces(self, ids: Iterable[int]) -> list[TokenPiece]:
        """The tokens one by one, for people."""
        return [
            TokenPiece(i, self.name(i), True)
            if self.is_special(i)
            else TokenPiece(i, self._all.decode([i], skip_special_tokens=False), False)
            for i in ids
        ]


class HubDecoder:
    """Ids to text as they arrive, with a window of the last tokens; never half a character."""

    def __init__(self, backend: Any, names: dict[int, str]) -> None:
        self._backend, self._names = backend, names
        self._shown: list[int] = []  # the tokens of the last text, which may change the next
        self._held: list[int] = []

    def push(self, token: int) -> str:
        """The text that is certain after this token."""
        if token in self._names:
            out = self.flush() + self._names[token]
            self._shown = []
            return out
        self._held.append(token)
        text = self._text()
        if text.endswith("\ufffd") and len(self._held) < MOST_HELD:
            return ""
        return self._show(text)

    def flush(self) -> str:
        """What is held back."""
        return self._show(self._text()) if self._held else ""

    def _text(self) -> str:
        before = self._backend.decode(self._shown, skip_special_tokens=False)
        after = self._backend.decode(self._shown + self._held, skip_special_tokens=False)
        return str(after[len(before) :])

    def _show(self, text: str) -> str:
        self._shown, self._held = self._held, []
        return text


def _without(backend: Any, special: dict[str, int]) -> Any:
    """The same tokenizer, to which the names of control tokens are ordinary text."""
    config = json.loads(backend.to_str())
    config["added_tokens"] = [t for t in config["added_tokens"] if t["content"] not in special]
    config["post_processor"] = None
    config["truncation"] = config["padding"] = None
    return type(backend).from_str(json.dumps(config))


def _generation_ends(folder: Path) -> Iterator[int]:
    try:
        config = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return
    found = config.get("eos_token_id") if isinstance(config, dict) else None
    yield from (i for i in (found if isinstance(found, list) else [found]) if isinstance(i, int))
