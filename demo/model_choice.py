"""Which of the loaded models answers a conversation: the base, or the base with adapters.

A conversation keeps its choice, "" until it was answered once. An adapter may go while its
conversation stays; then nothing is answered in its name until a person chose again.
"""

from __future__ import annotations

from html import escape

from demo.text import Refused, Say
from glm.adapters.shelf import BASE, JOIN, OF, Shelved
from glm.manager import Manager

MOST_PAIRS = 24  # of a LoRA and a prefix that are offered


def names(model: str) -> list[str]:
    """The adapters of an address: ["weather"] of "base:weather", none of "base"."""
    return [name for name in model.partition(OF)[2].split(JOIN) if name]


def title(model: str) -> str:
    """What people call an address."""
    return f" {JOIN} ".join(names(model)) or BASE


def is_here(manager: Manager, model: str) -> bool:
    """Does the address name something that answers? "" is whatever is the default.

    While no model is loaded nobody can tell, and nothing counts as gone.
    """
    if not model or manager.state().info is None:
        return True
    known, both = manager.models(), names(model)
    together = len(both) == 2 and model.startswith(BASE + OF)
    return model in known or (together and all(f"{BASE}{OF}{name}" in known for name in both))


def chosen(manager: Manager, model: str) -> str:
    """The address that answers. Raises Refused when it is gone."""
    if not is_here(manager, model):
        raise Refused("choice.gone", name=title(model))
    return model or manager.default


def options(manager: Manager) -> list[tuple[str, str]]:
    """What can be chosen, as (address, words): each alone, then each LoRA with each prefix."""
    adapters = {item.name: item for item in manager.adapters()}
    out = [(one, _words(one, adapters)) for one in manager.models()]
    ranked = [item.name for item in adapters.values() if item.info and item.info.rank]
    prefixes = [item.name for item in adapters.values() if item.info and item.info.tokens]
    if len(ranked) * len(prefixes) > MOST_PAIRS:
        return out  # too many to look through
    pairs = [f"{BASE}{OF}{a}{JOIN}{b}" for a in ranked for b in prefixes if a != b]
    return out + [(pair, title(pair)) for pair in pairs]


def _words(model: str, adapters: dict[str, Shelved]) -> str:
    item = adapters.get(title(model))
    about = kind(item) if item else ""
    return f"{title(model)} · {about}" if about else title(model)


def kind(item: Shelved) -> str:
    """ "LoRA r=8", "P-Tuning v2 · 128", or "" before it was read."""
    info = item.info
    if info is None:
        return ""
    if info.rank:
        return f"{info.kind} r={info.rank}"
    return f"{info.kind} · {info.tokens}" if info.tokens else info.kind


def draw(manager: Manager, model: str, say: Say, field: str) -> str:
    """The selector; nothing where there is nothing to choose. `field` is its attribute."""
    found = options(manager)
    current = model or manager.default
    gone = not is_here(manager, model)
    if gone:
        found.insert(0, (model, say("choice.was", name=title(model))))
    elif current not in dict(found):
        found.append((current, title(current)))
    if len(found) < 2:
        return ""
    rows = "".join(_option(address, words, address == current) for address, words in found)
    label = escape(say("choice.label"))
    mark = " gone" if gone else ""
    return (
        f'<label class="choice{mark}" title="{label}"><select {field} aria-label="{label}">'
        f"{rows}</select></label>"
    )


def _option(address: str, words: str, here: bool) -> str:
    mark = " selected" if here else ""
    return f'<option value="{escape(address)}"{mark}>{escape(words)}</option>'


def draw_gone(manager: Manager, model: str, say: Say, button: str) -> str:
    """A sentence for a conversation whose adapter went, and the way back to the base."""
    if is_here(manager, model):
        return ""
    text = escape(say("choice.gone", name=title(model)))
    return (
        f'<div class="notice gone" role="alert"><span>{text}</span>'
        f'<button type="button" class="pill" {button}>{escape(say("choice.base"))}</button></div>'
    )
