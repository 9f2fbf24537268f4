"""Owns what is loaded: one base model, its engine and dialect; replaces it without torn state.

`start` loads in a thread, so a page can open first. An answer in flight keeps the model it
began with: a replaced engine is closed when its last stream ends. Adapters will be addressed as
`base:adapter` through the same `model` argument. Light to import: torch comes with `start`.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from glm.chat import EventStream, Options, chat
from glm.dialects import DIALECTS, Dialect, RoleToken
from glm.engines.base import Engine
from glm.errors import BadRequest, CheckpointError, EngineError, GlmError, NotReady
from glm.hub import fetch, is_hub_id
from glm.messages import Conversation, Sampling
from glm.recognise import EMBEDDED, ModelInfo, recognise
from glm.tokenizers import open_tokenizer
from glm.vocabulary import Vocabulary

Status = Literal["loading", "ready", "failed"]


@dataclass(frozen=True, slots=True)
class ModelState:
    """What the page shows. `info` is the model that answers now; `progress` is 0..1 or None."""

    status: Status
    info: ModelInfo | None = None
    message: str = ""
    progress: float | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model that answers."""

    info: ModelInfo
    engine: Engine
    dialect: Dialect
    tokenizer: Vocabulary
    defaults: Sampling


Opener = Callable[[ModelInfo, str, str], Engine]


def open_engine(info: ModelInfo, device: str = "auto", dtype: str = "auto") -> Engine:
    """Load the weights and start the worker. Brings torch."""
    from glm.engines.local import LocalEngine
    from glm.load import load_model

    return LocalEngine(load_model(info, device, dtype), context=info.context)


class Manager:
    """One per process; thread-safe. `model` is a folder or a hub id, None the embedded model."""

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        device: str = "auto",
        dtype: str = "auto",
        tokenizer: str | Path | None = None,
        opener: Opener = open_engine,
    ) -> None:
        self._wanted = str(model or EMBEDDED)
        self._device, self._dtype, self._tokenizer = device, dtype, tokenizer
        self._opener = opener
        self._loaded: Loaded | None = None
        self._state = ModelState("loading", message="starting")
        self._changed = threading.Condition()
        self._loading = threading.Lock()  # one load at a time; a second waits for the first
        self._streams: weakref.WeakKeyDictionary[EventStream, Engine] = weakref.WeakKeyDictionary()
        self._closed = False

    # ---- loading ----

    def start(self) -> None:
        """Load the model in a thread; `state` tells how it goes."""
        threading.Thread(target=self._start, name="model-loader", daemon=True).start()

    def wait(self, timeout: float | None = None) -> ModelState:
        """The state once loading has ended, or after `timeout` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._state.status != "loading", timeout)
            return self._state

    def state(self) -> ModelState:
        return self._state

    def open(self, model: str | Path, tokenizer: str | Path | None = None) -> ModelInfo:
        """Replace the base model; blocks until it answers.

        Raises CheckpointError; the model before it then still serves. Opening what is already
        loaded returns at once.
        """
        with self._loading:
            current = self._loaded
            wanted = str(model)
            if current and wanted in (current.info.name, str(current.info.path), self._wanted):
                return current.info
            try:
                loaded = self._load(wanted, tokenizer)
            except Exception as error:
                sentence = str(error) if isinstance(error, GlmError) else f"{wanted}: {error}"
                status: Status = "ready" if current else "failed"
                self._set(ModelState(status, current.info if current else None, sentence))
                if isinstance(error, GlmError):
                    raise
                raise CheckpointError(sentence) from error
            self._wanted = wanted
            self._swap(loaded)
            return loaded.info

    def _start(self) -> None:
        try:
            self.open(self._wanted, self._tokenizer)
        except CheckpointError:
            return  # the state carries the sentence

    def _load(self, wanted: str, tokenizer: str | Path | None) -> Loaded:
        self._progress(f"opening {wanted}", None)
        folder = fetch(wanted, self._progress) if is_hub_id(wanted) else Path(wanted)
        info = recognise(folder, tokenizer)
        if is_hub_id(wanted):
            info = replace(info, name=wanted)
        tokens = open_tokenizer(info)
        dialect = DIALECTS[info.dialect](tokens)
        self._progress(f"loading {info.name}", None)
        engine = self._opener(info, self._device, self._dtype)
        return Loaded(info, engine, dialect, tokens, family_defaults(info, dialect))

    def _swap(self, loaded: Loaded) -> None:
        with self._changed:
            before, self._loaded = self._loaded, loaded
            self._state = ModelState("ready", loaded.info)
            self._changed.notify_all()
            busy = before is not None and before.engine in self._streams.values()
        if before and not busy:
            before.engine.close()

    def _progress(self, message: str, fraction: float | None) -> None:
        info = self._loaded.info if self._loaded else None
        self._set(ModelState("loading", info, message, fraction))

    def _set(self, state: ModelState) -> None:
        with self._changed:
            self._state = state
            self._changed.notify_all()

    # ---- answering ----

    def models(self) -> list[str]:
        """Names a conversation may address; adapters of the base will follow it."""
        return ["base"]

    def defaults(self) -> Sampling:
        """The sampling the loaded model's family or checkpoint asks for."""
        loaded = self._loaded
        return loaded.defaults if loaded else Sampling()

    def chat(
        self,
        conversation: Conversation,
        sampling: Sampling | None = None,
        *,
        model: str = "base",
        options: Options | None = None,
    ) -> EventStream:
        """Answer with a loaded model; returns at once. Raises NotReady and `Engine.submit`'s."""
        loaded = self._ready()
        if model not in self.models():
            raise BadRequest(f"no model {model!r}; available: {', '.join(self.models())}")
        sampling = sampling or loaded.defaults
        stream = chat(loaded.engine, loaded.dialect, conversation, sampling, options or Options())
        with self._changed:
            self._streams[stream] = loaded.engine
        weakref.finalize(stream, self._let_go, loaded.engine)
        return stream

    def count(self, text: str) -> int:
        """How many tokens a text has; 0 before a model is loaded."""
        loaded = self._loaded
        return len(loaded.tokenizer.encode(text)) if loaded else 0

    def xray(self, ids: Iterable[int]) -> list[RoleToken]:
        """The tokens of a prompt or an answer, for people. Raises NotReady."""
        return self._ready().dialect.xray(ids)

    def close(self) -> None:
        """End the worker. Open answers finish with an error."""
        self._closed = True
        with self._changed:
            loaded, self._loaded = self._loaded, None
            self._state = ModelState("failed", message="closed")
            self._changed.notify_all()
            engines = set(self._streams.values())
        for engine in {loaded.engine, *engines} if loaded else engines:
            engine.close()

    def _ready(self) -> Loaded:
        loaded = self._loaded
        if loaded is None:
            state = self._state
            if self._closed:
                raise EngineError("the program is closing")
            reason = state.message if state.status == "failed" else "the model is still loading"
            raise NotReady(reason)
        return loaded

    def _let_go(self, engine: Engine) -> None:
        """After a stream: a replaced engine ends with its last answer."""
        with self._changed:
            current = self._loaded.engine if self._loaded else None
            idle = engine is not current and engine not in self._streams.values()
        if idle:
            engine.close()


def family_defaults(info: ModelInfo, dialect: Dialect) -> Sampling:
    """The dialect's defaults, changed by the checkpoint's generation_config.json."""
    import json

    file = info.path / "generation_config.json"
    try:
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = {}
    limit = min(dialect.defaults.max_tokens, max(1, info.context // 2))
    changes: dict[str, Any] = {"max_tokens": limit}
    for key in ("temperature", "top_p", "top_k", "repetition_penalty"):
        if isinstance(config.get(key), int | float):
            changes[key] = config[key]
    if config.get("do_sample") is False:
        changes["temperature"] = 0.0
    return replace(dialect.defaults, **changes)
