"""The head of the page and the empty chat: fixed HTML with words in it."""

from __future__ import annotations

from html import escape

from demo.text import Say

EXAMPLES = 6


def head(say: Say) -> str:
    """Brand, and the buttons for conversations, language, light or dark, settings."""
    return (
        f"{button(say, 'menu', 'menu')}"
        f'<a class="brand" href="./" aria-label="{escape(say("app.name"))}">'
        f'<span class="logo"></span><b>{escape(say("app.name"))}</b></a>'
        '<span class="gap"></span>'
        f'<button class="quiet" data-do="language">{escape(say("page.language"))}</button>'
        f"{button(say, 'theme', 'theme')}{button(say, 'settings', 'settings')}"
    )


def button(say: Say, icon: str, action: str) -> str:
    """A round button with a picture from style.css."""
    label = escape(say(f"page.{action}"))
    return (
        f'<button class="icon i-{icon}" data-do="{action}" aria-label="{label}" '
        f'title="{label}"></button>'
    )


def hero(say: Say) -> str:
    """What an empty chat shows: what this is, and something to begin with."""
    examples = "".join(
        f'<button class="example" data-do="ask">{escape(say(f"example.{i}"))}</button>'
        for i in range(1, EXAMPLES + 1)
    )
    return (
        f'<span class="logo big"></span><h1>{escape(say("chat.title"))}</h1>'
        f'<p>{escape(say("app.tagline"))}</p><div class="examples">{examples}</div>'
    )
