"""Owns what is loaded: one base model with its adapters; replaces it without torn state.

`start` loads in a thread, so a page can open first. An answer in flight keeps the model and the
adapter it began with: a replaced engine is closed when its last stream ends. `base:NAME` is the
base with an adapter (`glm/adapters/shelf.py`). Light to import: torch comes with `start`.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from glm.adapters.catalog import Catalog
from glm.adapters.shelf import BASE, OF, Shelf, Shelved
from glm.adapters.values import Adapter
from glm.chat import EventStream, Options, chat
from glm.checkpoint.hub import fetch, is_hub_id
from glm.checkpoint.recognise import EMBEDDED, ModelInfo, recognise
from glm.dialects import DIALECTS, Dialect, RoleToken
from glm.dialects.vocabulary import Vocabulary
from glm.engines.base import Engine
from glm.errors import AdapterGone, CheckpointError, EngineError, GlmError, NotReady
from glm.memory import Memory, read_memory
from glm.messages import Conversation, Sampling
from glm.opening import AS_IS, Opener, Opening, family_defaults, open_engine, quantisation
from glm.tokenizers.opening import open_tokenizer

Status = Literal["loading", "ready", "failed", "aside"]
TRIES = 3  # an adapter may be put away between choosing it and asking


@dataclass(frozen=True, slots=True)
class ModelState:
    """What the page shows. `info` is the model that answers now; `progress` is 0..1 or None.

    "aside": there is none on purpose, and `message` says why.
    """

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
    shelf: Shelf
    how: Opening
    quantised: Any = None


def read_adapter(info: ModelInfo, engine: Engine, path: Path, alpha: float | None) -> Adapter:
    """An adapter's files, in terms of the model that the engine runs. Brings torch."""
    from glm.adapters.opening import open_adapter

    return open_adapter(path, info, engine.config, alpha)  # type: ignore[attr-defined]


class Manager:
    """One per process; thread-safe. `model` is a folder or a hub id, None the embedded model.

    `adapter` is opened with the first model, whose answers then have it by default. `data` is the
    folder in which the adapters of a base are remembered.
    """

    def __init__(
        self,
        model: str | Path | None = None,
        how: Opening = AS_IS,
        *,
        adapter: str | Path | None = None,
        data: Path | None = None,
        opener: Opener = open_engine,
    ) -> None:
        self._wanted, self._how, self._opener = str(model or EMBEDDED), how, opener
        self._adapter = Path(adapter) if adapter else None
        self._catalog = Catalog(data / "adapters.json" if data else None)
        self._default = BASE
        self._loaded: Loaded | None = None
        self._state = ModelState("loading", message="starting")
        self._changed = threading.Condition()
        self._loading = threading.Lock()  # one load at a time; a second waits for the first
        self._streams: weakref.WeakKeyDictionary[EventStream, Engine] = weakref.WeakKeyDictionary()
        self._entering: list[Engine] = []  # one for each question on its way
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

    def open(self, model: str | Path, how: Opening | None = None) -> ModelInfo:
        """Replace the base model; blocks until it answers.

        Raises CheckpointError; the model before it then still serves. Opening what is already
        loaded, in the same way, returns at once.
        """
        with self._loading:
            current, how = self._loaded, how or self._how
            wanted = str(model)
            if current and how == current.how and _is_open(current, wanted, self._wanted):
                return current.info
            try:
                loaded = self._load(wanted, how)
            except Exception as error:
                sentence = str(error) if isinstance(error, GlmError) else f"{wanted}: {error}"
                status: Status = "ready" if current else "failed"
                self._set(ModelState(status, current.info if current else None, sentence))
                if isinstance(error, GlmError):
                    raise
                raise CheckpointError(sentence) from error
            if wanted != self._wanted or self._default not in loaded.shelf.addresses():
                self._default = BASE
            self._wanted, self._how = wanted, how
            self._swap(loaded)
            return loaded.info

    def step_aside(self, why: str) -> None:
        """Give the memory of the model free, for a training run or by wish; `come_back` opens it.

        Answers in flight go on to their end. New ones are refused with the reason.
        """
        with self._loading, self._changed:
            loaded, self._loaded = self._loaded, None
            self._state = ModelState("aside", message=why)
            self._changed.notify_all()
        if loaded:
            self._let_go(loaded.engine)

    def make_room(self, needed: int, why: str) -> bool:
        """See that `needed` bytes are free: adapters are put away, then the model steps aside.

        False when that is still too little. Of an accelerator where the model is on one.
        """
        if self._free_memory() >= needed:
            return True
        if (loaded := self._loaded) is not None:
            loaded.shelf.put_all_away()
            if self._free_memory() < needed:
                self.step_aside(why)
        return self._free_memory() >= needed

    def _free_memory(self) -> int:
        found = self.memory()
        return found.device_free if found.device_total else found.free

    def come_back(self) -> ModelInfo:
        """Open what stepped aside. Raises CheckpointError."""
        return self.open(self._wanted)

    def _start(self) -> None:
        try:
            self.open(self._wanted)
            if self._adapter:
                self._default = BASE + OF + self.add_adapter(self._adapter).name
        except GlmError as error:
            state = self._state  # a failed load has said so there
            if state.status == "ready":
                self._set(ModelState("ready", state.info, str(error)))

    def _load(self, wanted: str, how: Opening) -> Loaded:
        self._progress(f"opening {wanted}", None)
        folder = fetch(wanted, self._progress) if is_hub_id(wanted) else Path(wanted)
        info = recognise(folder, how.tokenizer)
        if is_hub_id(wanted):
            info = replace(info, name=wanted)
        tokens = open_tokenizer(info)
        dialect = DIALECTS[info.dialect](tokens)
        self._progress(f"loading {info.name}", None)
        engine = self._opener(info, how)
        quantised = quantisation(engine, info, dialect) if how.bits else None
        defaults = family_defaults(info, dialect)
        key = wanted if is_hub_id(wanted) else str(folder.expanduser().resolve())
        shelf = Shelf(engine, key, partial(read_adapter, info, engine), self._catalog)
        return Loaded(info, engine, dialect, tokens, defaults, shelf, how, quantised)

    def _swap(self, loaded: Loaded) -> None:
        with self._changed:
            before, self._loaded = self._loaded, None if self._closed else loaded
            self._set(ModelState("ready", loaded.info))
        for one in (before, loaded):
            if one:
                self._let_go(one.engine)

    def _progress(self, message: str, fraction: float | None) -> None:
        info = self._loaded.info if self._loaded else None
        self._set(ModelState("loading", info, message, fraction))

    def _set(self, state: ModelState) -> None:
        with self._changed:
            if not self._closed:
                self._state = state
            self._changed.notify_all()

    # ---- answering ----

    def models(self) -> list[str]:
        """Names a conversation may address: the base, then the base with each adapter."""
        loaded = self._loaded
        return loaded.shelf.addresses() if loaded else [BASE]

    @property
    def default(self) -> str:
        """What answers where nothing was chosen."""
        return self._default

    @property
    def how(self) -> Opening:
        """How the present model was opened."""
        return self._how

    @property
    def number_type(self) -> str:
        """What the weights are computed in, such as "bfloat16"; "" where that is not known."""
        engine = self._loaded.engine if self._loaded else None
        kind = getattr(getattr(engine, "config", None), "dtype", None)
        return str(kind or "").removeprefix("torch.")

    @property
    def quantised(self) -> Any:
        """What opening in fewer bits has cost: a `QuantisationError`, or None."""
        return self._loaded.quantised if self._loaded else None

    def adapters(self) -> list[Shelved]:
        """The adapters that are known for the present base."""
        loaded = self._loaded
        return loaded.shelf.all() if loaded else []

    def add_adapter(self, path: str | Path, name: str = "", alpha: float | None = None) -> Shelved:
        """Open an adapter beside the present base; it can be chosen as `base:NAME` from then on.

        Raises CheckpointError, BadRequest when it does not fit, NotReady without a model.
        """
        return self._ready().shelf.add(Path(path), name, alpha)

    def remove_adapter(self, name: str) -> None:
        """Forget an adapter; its files stay. Raises BadRequest for an unknown name."""
        self._ready().shelf.remove(name)
        if self._default == BASE + OF + name:
            self._default = BASE

    def memory(self) -> Memory:
        """What the model and its adapters take, and what is left."""
        engine = self._loaded.engine if self._loaded else None
        return read_memory(
            getattr(engine, "model_bytes", 0) or 0, getattr(engine, "adapter_bytes", 0) or 0
        )

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
        """Answer with a loaded model; returns at once. Raises NotReady and `Engine.submit`'s.

        `model` is one of `models()`, or `base:A+B` for a LoRA and a prefix together; BadRequest
        names what there is.
        """
        with self._using() as loaded:
            sampling, options = sampling or loaded.defaults, options or Options()
            engine, dialect = loaded.engine, loaded.dialect
            for tries in range(TRIES, 0, -1):
                with_adapter = replace(options, adapter=loaded.shelf.key(model))
                try:
                    stream = chat(engine, dialect, conversation, sampling, with_adapter)
                    break
                except AdapterGone:
                    if tries == 1:
                        raise
            with self._changed:
                self._streams[stream] = engine
            weakref.finalize(stream, self._let_go, engine)
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

    @contextmanager
    def _using(self) -> Iterator[Loaded]:
        """The present model, which stays open meanwhile. Raises NotReady."""
        with self._changed:
            loaded = self._ready()
            self._entering.append(loaded.engine)
        try:
            yield loaded
        finally:
            with self._changed:
                self._entering.remove(loaded.engine)
            self._let_go(loaded.engine)

    def _ready(self) -> Loaded:
        loaded = self._loaded
        if loaded is None:
            state = self._state
            if self._closed:
                raise EngineError("the program is closing")
            reason = "the model is still loading" if state.status == "loading" else state.message
            raise NotReady(reason)
        return loaded

    def _let_go(self, engine: Engine) -> None:
        """A replaced engine ends with its last answer."""
        with self._changed:
            current = self._loaded.engine if self._loaded else None
            writing = [its for stream, its in self._streams.items() if not stream.finished]
            idle = engine is not current and engine not in (*writing, *self._entering)
        if idle:
            engine.close()


def _is_open(loaded: Loaded, asked: str, wanted: str) -> bool:
    """Is this what is loaded, under the words it was opened with, its path, or its bare name?"""
    place = Path(asked).expanduser()
    if asked == wanted or place.resolve() == loaded.info.path.resolve():
        return True
    return asked == loaded.info.name and not place.exists()
