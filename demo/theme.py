"""How the page looks: one restrained palette and system fonts; nothing comes from elsewhere.

The rules of layout are in the style sheets beside this file, what the browser does by itself is
in the scripts: one of each for the page and the chat, for the Tools tab, for the Models tab.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

HERE = Path(__file__).parent
STYLES = ("style.css", "tools.css", "models.css")
SCRIPTS = ("page.js", "tools.js", "models.js")
FONT = (
    "system-ui",
    "-apple-system",
    "Segoe UI",
    "Noto Sans CJK SC",
    "PingFang SC",
    "Microsoft YaHei",
    "sans-serif",
)
MONO = (
    "ui-monospace",
    "SFMono-Regular",
    "Menlo",
    "Consolas",
    "DejaVu Sans Mono",
    "Noto Sans Mono CJK SC",
    "monospace",
)
ICON = (
    "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E"
    "%3Crect width='32' height='32' rx='8' fill='%231f7a68'/%3E"
    "%3Cpath d='M9 21V11l7 6 7-6v10' fill='none' stroke='white' stroke-width='3' "
    "stroke-linecap='round' stroke-linejoin='round'/%3E%3C/svg%3E"
)
ACCENT = gr.themes.Color(
    name="pine",
    c50="#eef7f4",
    c100="#d7ece6",
    c200="#b0d9ce",
    c300="#82c0b1",
    c400="#52a391",
    c500="#2f8a76",
    c600="#1f7a68",
    c700="#1a6355",
    c800="#174f45",
    c900="#133f38",
    c950="#0a2722",
)


def theme() -> gr.themes.Base:
    """Quiet greys and one green."""
    return gr.themes.Base(
        primary_hue=ACCENT,
        secondary_hue=ACCENT,
        neutral_hue=gr.themes.colors.stone,
        radius_size=gr.themes.sizes.radius_md,
        font=FONT,
        font_mono=MONO,
    )


def head() -> str:
    """The icon, the style and the script.

    The style is here because gradio rewrites the selectors of its `css` argument.
    """
    script = "".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)
    style = "".join((HERE / name).read_text(encoding="utf-8") for name in STYLES)
    return (
        '<meta name="viewport" content="width=device-width, initial-scale=1, '
        'viewport-fit=cover, interactive-widget=resizes-content">'
        f'<link rel="icon" href="{ICON}"><style>{style}</style><script>{script}</script>'
    )


def look() -> dict[str, Any]:
    """Arguments for `gr.mount_gradio_app`."""
    return {"theme": theme(), "head": head()}
