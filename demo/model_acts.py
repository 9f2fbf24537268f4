"""What the operator does with models: look, open, unload, adapters, export. Generators of steps.

Every one asks first whether the visitor is the operator, and reads what the page sent anew: a
page is free to send anything. What takes long runs in a thread, and a step comes every tenth of
a second, so that the page shows how far it is and may be closed.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from demo import model_finds
from demo.desk import Desk, Visitor
from demo.model_finds import Exporting, Find, Group
from demo.model_folders import Folders
from demo.models import UNLOADED
from demo.text import Refused, sentence
from glm.adapters.shelf import Shelved, name_of
from glm.checkpoint.recognise import EMBEDDED, ModelInfo
from glm.errors import GlmError
from glm.opening import Opening

STEP = 0.1
DTYPES = ("auto", "float32", "bfloat16", "float16")
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d{1,2})?")
_LONGEST = 1000  # characters of a path
_log = logging.getLogger(__name__)
Sent = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Step:
    """A sentence, how far it is (0..1), whether it has ended, and what came of it.

    `rank` is that of an adapter file that does not say its alpha.
    """

    text: str
    part: float | None = None
    done: bool = False
    failed: bool = False
    value: Any = None
    rank: int | None = None


Steps = Iterator[Step]


def allowed(visitor: Visitor, what: str, run: Callable[[], Steps]) -> Steps:
    """The steps of something only the operator may do; its failure is the last one."""
    try:
        visitor.user.require_operator(what)
        yield from run()
    except Exception as error:  # border of a request: the page says it
        if not isinstance(error, GlmError):
            _log.exception("the Models tab could not %s", what)
        yield Step(sentence(visitor.say, error), done=True, failed=True)


class Work(threading.Thread):
    """Something slow that a page watches; it ends also when the page is gone."""

    def __init__(self, run: Callable[[], Any]) -> None:
        super().__init__(name="models", daemon=True)
        self._run_it = run
        self._found: Any = None
        self._error: Exception | None = None

    def run(self) -> None:
        try:
            self._found = self._run_it()
        except Exception as error:  # border of a job: whoever watches raises it
            self._error = error

    def watch(self, told: Callable[[], Step]) -> Steps:
        """Steps while it runs; returns what it found. Raises GlmError."""
        self.start()
        while self.is_alive():
            yield told()
            self.join(STEP)
        if self._error is not None:
            raise self._error
        return self._found


# ---- looking ----


def look(desk: Desk, visitor: Visitor, sent: Sent) -> Steps:
    """What stands at a path or hub id; the last step has the Find."""

    def run() -> Steps:
        at = _path(sent.get("at"))
        busy = Step(visitor.say("models.looking", name=at))
        found: Find = yield from Work(lambda: model_finds.look(at)).watch(lambda: busy)
        yield Step("", done=True, value=found)

    return allowed(visitor, "look into folders", run)


def folders(desk: Desk) -> Folders:
    """Where the operator keeps models."""
    return Folders(desk.app.data_dir / "model_folders.json")


def change_folders(desk: Desk, visitor: Visitor, sent: Sent) -> Steps:
    """Look below another folder from now on, or no more."""

    def run() -> Steps:
        if sent.get("drop"):
            folders(desk).drop(str(sent.get("drop")))
            yield Step("", done=True)
            return
        folders(desk).add(str(sent.get("at") or "")[:_LONGEST])
        yield Step("", done=True)

    return allowed(visitor, "list folders", run)


def groups(desk: Desk, visitor: Visitor) -> list[Group]:
    """What is on this machine: built in, in the hub's cache, and below each folder. Raises
    NotAllowed."""
    visitor.user.require_operator("list folders")
    say = visitor.say
    out = [Group("", [model_finds.built_in()])]
    cached = [model_finds.look(id) for id, _ in model_finds.cached()]
    if cached:
        out.append(Group(say("models.cached"), cached))
    for folder in folders(desk).all():
        try:
            found = model_finds.below(folder)
        except Refused:  # it is gone: still on the list, so that it can be taken off
            found = []
        out.append(Group(str(folder), found, str(folder)))
    return out


# ---- the model ----


def open_model(desk: Desk, visitor: Visitor, sent: Sent) -> Steps:
    """Replace the model; the one before it answers meanwhile."""

    def run() -> Steps:
        (at, how), manager = read_opening(desk, sent), desk.app.manager

        def replace_it() -> ModelInfo:
            if sent.get("unload") is True:  # both together would not fit
                manager.step_aside(UNLOADED)
            return manager.open(at, how)

        work = Work(replace_it)
        info = yield from work.watch(lambda: _progress(desk, visitor, at))
        yield Step(visitor.say("models.opened", name=info.name), done=True, value=info)

    return allowed(visitor, "open models", run)


def read_opening(desk: Desk, sent: Sent) -> tuple[str, Opening]:
    """What to open and how. Raises Refused for what no form of ours sends."""
    at, bits = _path(sent.get("at")), str(sent.get("bits") or "")
    dtype, device = str(sent.get("dtype") or "auto"), str(sent.get("device") or "auto")
    if bits not in ("", "8", "4") or dtype not in DTYPES or not _DEVICE.fullmatch(device):
        raise Refused("models.bad_choice")
    manager = desk.app.manager
    info = manager.state().info
    if at == model_finds.BUILT_IN:
        at = str(EMBEDDED)
    same = info is not None and at in (str(info.path), info.name)
    tokenizer = manager.how.tokenizer if same else None  # it belongs to that model alone
    return at, Opening(device, dtype, int(bits) if bits else None, tokenizer)


def come_back(desk: Desk, visitor: Visitor) -> Steps:
    """Open again what stepped aside or failed."""

    def run() -> Steps:
        work = Work(desk.app.manager.come_back)
        info = yield from work.watch(lambda: _progress(desk, visitor, ""))
        yield Step(visitor.say("models.opened", name=info.name), done=True, value=info)

    return allowed(visitor, "open models", run)


def unload(desk: Desk, visitor: Visitor) -> Steps:
    """Give the model's memory free; answers in flight go on to their end."""

    def run() -> Steps:
        busy = Step(visitor.say("models.unloading"))
        yield from Work(lambda: desk.app.manager.step_aside(UNLOADED)).watch(lambda: busy)
        yield Step(visitor.say("models.unloaded"), done=True)

    return allowed(visitor, "unload models", run)


def _progress(desk: Desk, visitor: Visitor, at: str) -> Step:
    state = desk.app.manager.state()
    text = visitor.say("models.opening", name=at) if at else visitor.say("model.loading")
    detail = state.message if state.status == "loading" else ""
    return Step(f"{text} · {detail}" if detail else text, state.progress)


# ---- adapters ----


def add_adapter(desk: Desk, visitor: Visitor, sent: Sent) -> Steps:
    """Add an adapter to the present base. A file without its alpha asks for it: `Step.rank`."""

    def run() -> Steps:
        path, name = _path(sent.get("at")), str(sent.get("name") or "").strip()
        alpha, manager = _alpha(sent.get("alpha")), desk.app.manager
        busy = Step(visitor.say("models.adding", name=name or name_of(Path(path))))
        work = Work(lambda: manager.add_adapter(path, name, alpha))
        try:
            item: Shelved = yield from work.watch(lambda: busy)
        except GlmError as error:
            rank = getattr(error, "rank", None)
            if not isinstance(rank, int):
                raise
            yield Step(visitor.say("models.alpha", rank=rank), done=True, rank=rank)
            return
        yield Step(visitor.say("models.added", name=item.name), done=True, value=item)

    return allowed(visitor, "add adapters", run)


def remove_adapter(desk: Desk, visitor: Visitor, sent: Sent) -> Steps:
    """Forget an adapter; its files stay."""

    def run() -> Steps:
        name = str(sent.get("name") or "")
        desk.app.manager.remove_adapter(name)
        yield Step(visitor.say("models.removed", name=name), done=True)

    return allowed(visitor, "remove adapters", run)


def _alpha(value: Any) -> float | None:
    if value in (None, ""):
        return None
    try:
        alpha = float(value)
    except (TypeError, ValueError):
        alpha = 0.0
    if not 0 < alpha < 100_000:
        raise Refused("models.bad_alpha")
    return alpha


# ---- export ----


def export(desk: Desk, visitor: Visitor, sent: Sent) -> Steps:
    """Write the present model or an adapter for another program; the last step has the verdict."""

    def run() -> Steps:
        wanted, now = read_export(desk, sent), [Step(visitor.say("models.exporting"))]

        def progress(text: str, part: float | None) -> None:
            now[0] = Step(f"{visitor.say('models.exporting')} · {text}", part)

        work = Work(lambda: model_finds.export(wanted, progress))
        done: model_finds.Exported = yield from work.watch(lambda: now[0])
        yield Step(visitor.say("models.exported", path=done.folder), done=True, value=done)

    return allowed(visitor, "export", run)


def read_export(desk: Desk, sent: Sent) -> Exporting:
    """Raises Refused for what cannot be asked."""
    target, name = str(sent.get("target")), str(sent.get("adapter") or "")
    info = desk.app.manager.state().info
    if target not in model_finds.TARGETS:
        raise Refused("models.bad_choice")
    if info is None:
        raise Refused("models.nothing_loaded")
    item = next((one for one in desk.app.manager.adapters() if one.name == name), None)
    if name and item is None:
        raise Refused("models.no_adapter", name=name)
    if item is None and target in model_finds.ADAPTER_TARGETS:
        raise Refused("models.needs_adapter")
    folder = Path(_path(sent.get("folder"))).expanduser()
    if not folder.is_absolute():
        folder = desk.app.data_dir / "exports" / folder
        if ".." in folder.parts:
            raise Refused("models.bad_choice")
    plain = Exporting(info.path.resolve(), folder, target)
    return replace(plain, adapter=item.path, alpha=item.alpha) if item else plain


def _path(value: Any) -> str:
    text = str(value or "").strip()
    if not text or len(text) > _LONGEST or "\0" in text:
        raise Refused("models.no_path")
    return text
