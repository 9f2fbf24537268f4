"""Components whose words follow the language: written once where the component is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import gradio as gr
from gradio.components import Component

from demo.text import Say

C = TypeVar("C", bound=Component)


class Labels:
    """Remembers what each component says; `updates` says it again in another language."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._known: list[tuple[Component, Callable[[Say], dict[str, Any]]]] = []

    def make(self, kind: Callable[..., C], words: dict[str, str], **fixed: Any) -> C:
        """A component; `words` are properties and the keys of their sentences."""

        def properties(say: Say) -> dict[str, Any]:
            return {name: say(key) for name, key in words.items()}

        return self.add(kind(**properties(self._say), **fixed), properties)

    def add(self, component: C, properties: Callable[[Say], dict[str, Any]]) -> C:
        """A component whose properties are computed from the words."""
        self._known.append((component, properties))
        return component

    def html(self, draw: Callable[[Say], str], **fixed: Any) -> gr.HTML:
        """A piece of fixed HTML with words in it; `draw` escapes them."""
        made = gr.HTML(draw(self._say), apply_default_css=False, **fixed)
        return self.add(made, lambda say: {"value": draw(say)})

    @property
    def components(self) -> list[Component]:
        return [component for component, _ in self._known]

    def updates(self, say: Say) -> dict[Component, Any]:
        return {component: gr.update(**words(say)) for component, words in self._known}
