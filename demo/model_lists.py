"""What could be opened: the field for a path or id, what was found there, and the lists below.

As safe HTML: names, paths and reasons of strangers' files are escaped here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from demo import model_finds
from demo.model_acts import DTYPES
from demo.model_cards import chip, count, facts, size, submit
from demo.model_finds import BUILT_IN, TARGETS, Find, Group
from demo.model_fit import Fit, fits, free, token_bytes
from demo.models import rows as known_models
from demo.text import Say
from glm.checkpoint.recognise import ModelInfo
from glm.memory import Memory


def open_form(say: Say) -> str:
    """The field, and which hub an id is asked of."""
    address, online = model_finds.hub()
    hub = say("models.hub" if online else "models.hub_off", address=address)
    label = escape(say("models.path"))
    return (
        f'<form class="m-form" data-form="look"><label class="field"><span>{label}</span></label>'
        f'<div class="m-pair"><input name="at" type="text" autocomplete="off" spellcheck="false" '
        f'aria-label="{label}" placeholder="{escape(say("models.path_hint"))}">'
        f'{submit(say("models.look"))}</div><small class="m-hint">{escape(hint(hub, say))}</small>'
        "</form>"
    )


def hint(hub: str, say: Say) -> str:
    """What pressing the button does, and what it does not."""
    return f"{say('models.look_hint')} {hub}"


def report(find: Find, memory: Memory, text: str, say: Say) -> str:
    """What was found at a path or id, and the way to open or add it."""
    name = escape(find.name)
    if find.kind == "nothing":
        return (
            f'<section class="m-find"><h3>{name}</h3><p class="why" role="alert">'
            f"{escape(find.why)}</p></section>"
        )
    full = ""
    if text:
        full = (
            f'<details class="source"><summary>{escape(say("models.report"))}</summary>'
            f'<pre class="text" tabindex="0">{escape(text)}</pre></details>'
        )
    if find.kind == "adapter":
        return f'<section class="m-find">{_adapter(find, say)}{full}</section>'
    chips, why = _chips(find, say), say("models.download", size=size(find.bytes))
    if find.kind == "hub" and not find.bytes:
        why = say("models.download_unknown")
    why = why if find.kind == "hub" else f"{find.why} · {find.at}"
    return (
        f'<section class="m-find"><div class="m-title"><h3>{name}</h3>{chips}</div>'
        f'<p class="m-why">{escape(why)}</p>{_opening(find, memory, say)}{full}</section>'
    )


def _chips(find: Find, say: Say) -> str:
    info = find.info
    out = chip(info.family) if info else ""
    out += chip(count(find.parameters)) if find.parameters else ""
    out += chip(say("models.tokens", count=f"{info.context:,}")) if info else ""
    if info and not getattr(info, "chat", True):
        out += chip(say("models.base_model"), "warn")
    return out


def _adapter(find: Find, say: Say) -> str:
    info = find.adapter
    rows = []
    if info:
        rows = [
            (say("models.kind"), info.kind),
            (say("models.made_for"), info.base or say("models.unknown")),
            (say("models.from_run"), info.run),
            (say("models.size"), size(info.bytes)),
        ]
    shown = facts((name, value) for name, value in rows if value)
    return (
        f'<div class="m-title"><h3>{escape(find.name)}</h3>{chip(say("models.an_adapter"))}</div>'
        f'<p class="m-why">{escape(find.why)}</p>{shown}<div class="row m-left">'
        f'<button type="button" class="pill go" data-act="m-add" data-at="{escape(find.at)}">'
        f"{escape(say('models.add_this'))}</button></div>"
    )


def _opening(find: Find, memory: Memory, say: Say) -> str:
    """The ways to open it, each with what it needs."""
    info = find.info
    ways = ways_of(find, memory)
    best = next(
        (w for w in ways if w.verdict == "fits" and not w.problem), ways[0] if ways else None
    )
    tiles = "".join(_tile(way, way is best, say) for way in ways)
    room = say("models.free", free=size(free(memory)))
    cache = token_bytes(info.config) * info.context if info else 0
    if cache:
        room += " " + say("models.cache", size=size(cache), count=f"{info.context:,}")
    instead = any(way.verdict == "instead" for way in ways)
    first = ""
    if instead:
        checked = " checked" if best and best.verdict == "instead" else ""
        first = (
            f'<label class="m-check"><input type="checkbox" name="unload"{checked}>'
            f"<span>{escape(say('models.unload_first'))}</span></label>"
        )
    label = escape(say("models.quantised"))
    return (
        f'<form class="m-form" data-form="open" data-at="{escape(find.at)}">'
        f'<div class="m-fits" role="radiogroup" aria-label="{label}">{tiles}</div>'
        f'<small class="m-hint">{escape(room)}</small>{first}{_details(say)}'
        f'<div class="row m-left">{submit(say("models.open"))}</div></form>'
    )


def ways_of(find: Find, memory: Memory) -> list[Fit]:
    """The ways to open a find; none for a model of unknown size."""
    if not find.parameters:
        return []
    info: ModelInfo | None = find.info
    packed = getattr(info, "packed_bits", None)
    found = fits(find.parameters, info.config if info else {}, memory, packed)
    return [
        Fit(way.bits, way.width, way.bytes, way.verdict, model_finds.why_not(way.bits, info))
        for way in found
    ]


def _tile(way: Fit, here: bool, say: Say) -> str:
    off = " disabled" if way.problem else ""
    verdict = "off" if way.problem else way.verdict
    about = say(f"fit.{verdict}")
    why = f' title="{escape(way.problem)}"' if len(way.problem) > 1 else ""
    return (
        f'<label class="m-fit {verdict}"{why}><input type="radio" name="bits" '
        f'value="{way.bits or ""}"{" checked" if here else ""}{off}>'
        f"<b>{escape(say('models.bits', bits=way.width))}</b><span>{size(way.bytes)}</span>"
        f"<em>{escape(about)}</em></label>"
    )


def _details(say: Say) -> str:
    alone = say("models.chosen_alone")
    numbers = [(one, alone if one == "auto" else one) for one in DTYPES]
    places = [(one, alone if one == "auto" else one) for one in model_finds.devices()]
    return (
        f'<details class="source"><summary>{escape(say("models.more"))}</summary>'
        f'<div class="m-pair">{select("dtype", say("models.numbers"), numbers)}'
        f"{select('device', say('models.device'), places)}</div>"
        f'<small class="m-hint">{escape(say("models.device_hint"))}</small></details>'
    )


def select(name: str, label: str, options: Iterable[tuple[str, str]]) -> str:
    rows = "".join(
        f'<option value="{escape(value)}">{escape(words)}</option>' for value, words in options
    )
    return (
        f'<label class="field"><span>{escape(label)}</span><select name="{name}">{rows}</select>'
        "</label>"
    )


# ---- the lists ----


def lists(groups: Sequence[Group], current: str, lang: str, say: Say) -> str:
    """What is on this machine, what the hub has, and the field for another folder."""
    body = "".join(_group(group, current, say) for group in groups)
    here = {find.at for group in groups for find in group.finds}
    return (
        f"<h3>{escape(say('models.here'))}</h3>{body}{_folder_form(say)}"
        f"<h3>{escape(say('models.worth'))}</h3>{_worth(here, lang, say)}"
    )


def _group(group: Group, current: str, say: Say) -> str:
    drop = ""
    if group.folder:
        label = escape(say("models.drop", path=group.folder))
        drop = (
            f'<button type="button" class="icon i-close" data-act="m-drop" '
            f'data-at="{escape(group.folder)}" title="{label}" aria-label="{label}"></button>'
        )
    rows = "".join(_row(find, current, say) for find in group.finds)
    rows = rows or f'<p class="m-empty">{escape(say("models.folder_empty"))}</p>'
    head = (
        f'<div class="m-group"><span>{escape(group.title)}</span>{drop}</div>'
        if group.title
        else ""
    )
    return f'{head}<div class="m-rows">{rows}</div>'


def _row(find: Find, current: str, say: Say) -> str:
    at = escape(find.at)
    here = find.info is not None and str(find.info.path.resolve()) == current
    if find.kind == "nothing":
        return (
            f'<div class="m-row off"><div class="m-name"><b>{escape(find.name)}</b>'
            f"<small>{escape(find.why)}</small></div></div>"
        )
    about = find.info.family if find.info else find.why
    if find.at == BUILT_IN:
        about = say("models.built_in")
    if find.kind == "adapter":
        act, label, about = "m-add", say("models.add"), say("models.an_adapter")
    else:
        act, label = "m-open", say("models.open")
    last = (
        chip(say("models.now"), "live")
        if here
        else f'<button type="button" class="pill small" data-act="{act}" data-at="{at}">'
        f"{escape(label)}</button>"
    )
    return _line((at, find.name, about), size(find.bytes) if find.bytes else "", last, say)


def _line(names: tuple[str, str, str], right: str, last: str, say: Say) -> str:
    """A row: a click on the name looks, the button acts."""
    at, name, about = names
    title = escape(say("models.look_at", name=name))
    return (
        f'<div class="m-row"><button type="button" class="m-name" data-act="m-look" '
        f'data-at="{at}" title="{title}"><b>{escape(name)}</b><small>{escape(about)}</small>'
        f'</button><span class="m-size">{escape(right)}</span>{last}</div>'
    )


def _worth(here: set[str], lang: str, say: Say) -> str:
    """The models of assets/models.json that are not on this machine."""
    out = ""
    for row in known_models():
        if row["id"] in here:
            continue
        at = escape(row["id"])
        button = (
            f'<button type="button" class="pill small" data-act="m-look" data-at="{at}">'
            f"{escape(say('models.look'))}</button>"
        )
        note = row["note"].get(lang) or row["note"]["en"]
        out += _line((at, row["id"], note), row["memory"], button, say)
    return f'<div class="m-rows">{out}</div>'


def _folder_form(say: Say) -> str:
    label = escape(say("models.folder"))
    return (
        f'<form class="m-form" data-form="folder"><div class="m-pair"><input name="at" type="text" '
        f'autocomplete="off" spellcheck="false" aria-label="{label}" placeholder="{label}">'
        f'<button type="submit" class="pill">{escape(say("models.search"))}</button></div></form>'
    )


# ---- export ----


def export_form(info: ModelInfo | None, names: Sequence[str], where: Path, say: Say) -> str:
    """What to write for another program, with which adapter, where."""
    if info is None:
        return f'<p class="m-empty">{escape(say("models.nothing_loaded"))}</p>'
    targets = [(one, say(f"target.{one}")) for one in TARGETS]
    adapters = [("", say("models.without")), *((name, name) for name in names)]
    hints = "".join(
        f'<small class="m-hint" data-for="{one}"{"" if one == TARGETS[0] else " hidden"}>'
        f"{escape(say(f'target.{one}_hint'))}</small>"
        for one in TARGETS
    )
    folder, own = escape(say("models.export_folder")), escape(f"{info.name}-{TARGETS[0]}")
    hint = escape(say("models.export_hint", path=where))
    return (
        f'<form class="m-form" data-form="export" data-base="{escape(info.name)}">'
        f"{select('target', say('models.target'), targets)}"
        f"{hints}{select('adapter', say('models.export_adapter'), adapters)}"
        f'<label class="field"><span>{folder}</span><input name="folder" type="text" '
        f'autocomplete="off" spellcheck="false" value="{own}" data-own="{own}">'
        f"<small>{hint}</small></label>"
        f'<div class="row m-left">{submit(say("models.export"))}</div></form>'
    )


def exported(text: str, verdict: str, notes: Iterable[str], say: Say) -> str:
    """What an export wrote and what the comparison says."""
    more = "".join(f"<li>{escape(note)}</li>" for note in notes)
    listed = f"<ul>{more}</ul>" if more else ""
    return (
        f'<div class="opening done" role="status"><b>{escape(text)}</b>'
        f"<p>{escape(say('models.compared'))}: {escape(verdict)}</p>{listed}</div>"
    )
