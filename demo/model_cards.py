"""What answers now, what it takes, and its adapters, as safe HTML.

Names, reasons, warnings and paths come from files of strangers: all of it is escaped here.
`models.js` acts on the data attributes that are written here, and on no others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from demo.model_choice import kind, title
from demo.models import why_none
from demo.text import Say
from glm.adapters.shelf import BASE, OF, Shelved
from glm.adapters.values import AdapterInfo
from glm.checkpoint.recognise import ModelInfo
from glm.manager import Manager, ModelState
from glm.memory import Memory

Describe = Callable[[Shelved], AdapterInfo | None]


@dataclass(frozen=True, slots=True)
class Now:
    """What one look at the manager gives; `operator` may read paths and act."""

    state: ModelState
    memory: Memory
    bits: int | None
    number_type: str
    models: Sequence[str]
    operator: bool
    error: Any = None  # what fewer bits have cost: glm.quantisation.error.QuantisationError


def now(manager: Manager, operator: bool) -> Now:
    """One look, so that what is drawn belongs together."""
    how = manager.how
    kind = manager.number_type or ("" if how.dtype == "auto" else how.dtype)
    names, error = manager.models(), manager.quantised
    return Now(manager.state(), manager.memory(), how.bits, kind, names, operator, error)


def answers(seen: Now, say: Say) -> str:
    """The card of what answers now."""
    state, info = seen.state, seen.state.info
    head = f'<p class="m-kicker">{escape(say("models.now"))}</p>'
    if info is None:
        return f'<section class="m-card {state.status}">{head}{_nothing(seen, say)}</section>'
    body = _title(info, seen, say)
    if state.status == "loading":
        body += working(state.message, state.progress)
    elif state.message and seen.operator:
        body += f'<p class="why" role="alert">{escape(state.message)}</p>'
    if info.embedded:
        body += f'<p class="m-why">{escape(say("models.small"))}</p>'
    elif seen.operator:
        body += f'<p class="m-why">{escape(info.reason)} · {escape(str(info.path))}</p>'
    body += _facts(info, seen, say)
    if seen.operator:
        body += memory(seen.memory, say)
    else:
        body += f'<p class="m-why">{escape(say("models.visitor"))}</p>'
    return f'<section class="m-card {state.status}">{head}{body}</section>'


def _nothing(seen: Now, say: Say) -> str:
    state = seen.state
    if state.status == "loading":
        text = escape(say("model.loading"))
        detail = state.message if seen.operator else ""
        return f"<h2>{text}</h2>{working(detail, state.progress)}"
    key = "models.aside" if state.status == "aside" else "models.failed"
    text = f"<h2>{escape(say(key))}</h2>"
    if not seen.operator:
        return text
    button = _button("m-back", say("models.back"), "go")
    mark = ' class="m-why"' if state.status == "aside" else ' class="why" role="alert"'
    why = f"<p{mark}>{escape(why_none(state, say))}</p>" if state.message else ""
    return f'{text}{why}<div class="row m-left">{button}</div>{memory(seen.memory, say)}'


def _title(info: ModelInfo, seen: Now, say: Say) -> str:
    chips = chip(info.family) + (chip(say("models.built_in")) if info.embedded else "")
    if not getattr(info, "chat", True):
        chips += chip(say("models.base_model"), "warn")
    button = ""
    if seen.operator and seen.state.status != "loading":
        button = _button("m-unload", say("models.unload"), title=say("models.unload_hint"))
    return (
        f'<div class="m-title"><h2>{escape(info.name)}</h2>{chips}'
        f'<span class="gap"></span>{button}</div>'
    )


def _facts(info: ModelInfo, seen: Now, say: Say) -> str:
    packed = seen.bits or getattr(info, "packed_bits", None)
    adapters = [title(model) for model in seen.models if model != BASE]
    rows = [
        ("models.context", say("models.tokens", count=f"{info.context:,}")),
        ("models.parameters", count(info.parameters)),
        ("models.numbers", seen.number_type or say("models.chosen_alone")),
        ("models.quantised", say("models.bits", bits=packed) if packed else say("models.none")),
    ]
    if seen.error is not None:
        rows.append(("models.error", _error(seen.error, say)))
    if adapters and not seen.operator:
        rows.append(("models.adapters", ", ".join(adapters)))
    return facts((say(key), value) for key, value in rows)


def _error(found: Any, say: Say) -> str:
    """What quantising has cost, measured when the model was opened."""
    words = say("models.error_weights", share=f"{found.weights:.1%}")
    if found.logits is None:
        return words
    values = {"share": f"{found.logits:.1%}", "same": found.same, "places": found.places}
    return f"{say('models.error_logits', **values)} · {words}"


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Names and values beside each other."""
    inside = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in rows
    )
    return f'<dl class="m-facts">{inside}</dl>'


def memory(found: Memory, say: Say) -> str:
    """A bar of who has the memory, of the accelerator where there is one."""
    there = bool(found.device_total)
    total = found.device_total if there else found.total
    left = found.device_free if there else found.free
    known = found.model + found.adapters
    program = 0 if there else max(0, found.process - known)
    others = max(0, total - left - known - program)
    rows = [
        ("weights", found.model),
        ("adapters", found.adapters),
        ("program", program),
        ("others", others),
        ("free", left),
    ]
    shown = [(name, bytes) for name, bytes in rows if bytes or name == "free"]
    bar = "".join(
        f'<i class="{name}" style="flex-grow:{bytes / max(total, 1):.4f}"></i>'
        for name, bytes in shown
    )
    legend = "".join(
        f'<li class="{name}">{escape(say(f"memory.{name}"))} <b>{size(bytes)}</b></li>'
        for name, bytes in shown
    )
    where = say("models.on_device" if there else "models.on_machine", total=size(total))
    return (
        f'<div class="m-memory"><span>{escape(where)}</span><div class="m-bar" aria-hidden="true">'
        f'{bar}</div><ul class="m-legend">{legend}</ul></div>'
    )


def adapters(items: Sequence[Shelved], describe: Describe, loaded: bool, say: Say) -> str:
    """The adapters of the present base."""
    if not items:
        key = "models.no_adapters" if loaded else "models.nothing_loaded"
        return f'<p class="m-empty">{escape(say(key))}</p>'
    return "".join(_adapter(item, item.info or describe(item), say) for item in items)


def _adapter(item: Shelved, info: AdapterInfo | None, say: Say) -> str:
    shown = Shelved(item.name, item.path, item.alpha, item.version, info, item.problem)
    chips = chip(kind(shown)) if kind(shown) else ""
    chips += chip(say("models.in_memory" if item.loaded else "models.put_away"), "soft")
    warnings = [item.problem] if item.problem else []
    rows: list[tuple[str, str]] = []
    if info:
        warnings += info.warnings
        rows = [
            (say("models.from_run"), info.run or str(item.path)),
            (say("models.made_for"), info.base or say("models.unknown")),
            (say("models.layout"), " · ".join(filter(None, (info.dialect, info.layout)))),
            (say("models.size"), size(info.bytes)),
        ]
    else:
        rows = [(say("models.from_run"), str(item.path))]
    told = "".join(f'<p class="m-warning">{escape(text)}</p>' for text in warnings)
    use = _button("m-use", say("models.use"), "small go", model=f"{BASE}{OF}{item.name}")
    forget = (
        f'<button type="button" class="link bad" data-act="m-forget" '
        f'data-name="{escape(item.name)}">{escape(say("models.remove"))}</button>'
    )
    return (
        f'<article class="m-adapter"><div class="m-title"><b>{escape(item.name)}</b>{chips}</div>'
        f"{facts((name, value) for name, value in rows if value)}{told}"
        f'<div class="row m-left">{use}{forget}</div></article>'
    )


def add_form(say: Say) -> str:
    """Add an adapter by its path; the answer is drawn below it."""
    path, name = escape(say("models.adapter_path")), escape(say("models.adapter_name"))
    hint = escape(say("models.adapter_hint"))
    return (
        f'<form class="m-form" data-form="adapter"><label class="field"><span>{path}</span>'
        f'<input name="at" type="text" autocomplete="off" spellcheck="false" '
        f'placeholder="/runs/weather/adapter"><small>{hint}</small></label>'
        f'<div class="m-pair"><label class="field"><span>{name}</span><input name="name" '
        f'type="text" autocomplete="off" maxlength="80"></label>{submit(say("models.add"))}'
        "</div></form>"
    )


def alpha_form(text: str, at: str, name: str, say: Say) -> str:
    """A bare file does not say its alpha: asked once, then kept."""
    return (
        f'<form class="m-form m-alpha" data-form="adapter" data-at="{escape(at)}" '
        f'data-name="{escape(name)}"><p>{escape(text)}</p><div class="m-pair"><label class="field">'
        f'<span>alpha</span><input name="alpha" type="number" min="0.01" step="any" value="16">'
        f"</label>{submit(say('models.add'))}</div></form>"
    )


def working(text: str, part: float | None) -> str:
    """Something under way; without a share, a bar that only moves."""
    share = "" if part is None else f' style="--share:{100 * part:.1f}%"'
    mark = " m-unknown" if part is None else ""
    percent = "" if part is None else f" · {part:.0%}"
    return (
        f'<div class="m-working" role="status"><span>{escape(text)}{percent}</span>'
        f'<i class="m-progress{mark}"{share}></i></div>'
    )


def said(text: str, failed: bool) -> str:
    """How something ended."""
    if not text:
        return ""
    mark, role = ("failed", "alert") if failed else ("done", "status")
    return f'<div class="opening {mark}" role="{role}">{escape(text)}</div>'


def chip(text: str, more: str = "") -> str:
    return f'<span class="chip {more}">{escape(text)}</span>'


def submit(label: str) -> str:
    return f'<button type="submit" class="pill go">{escape(label)}</button>'


def _button(act: str, label: str, more: str = "", **data: Any) -> str:
    hint = f' title="{escape(str(data.pop("title")))}"' if "title" in data else ""
    values = "".join(f' data-{key}="{escape(str(value))}"' for key, value in data.items())
    return (
        f'<button type="button" class="pill {more}" data-act="{act}"{values}{hint}>'
        f"{escape(label)}</button>"
    )


def size(bytes: int) -> str:
    """ "12.5 GB", "31 MB"."""
    if bytes >= 1e8:
        return f"{bytes / 1e9:.1f} GB"
    return f"{bytes / 1e6:.0f} MB" if bytes >= 1e6 else f"{bytes / 1e3:.0f} kB"


def count(number: int) -> str:
    """ "6.2 B", "31.4 M"."""
    return f"{number / 1e9:.1f} B" if number >= 1e9 else f"{number / 1e6:.1f} M"
