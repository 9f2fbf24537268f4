"""A TeX formula as MathML that is safe to put into a page, by mdtex2html.

The converter passes on what it finds (`\\text{<script>}`, `\\href{javascript:...}`), so its
output is read as XML and written anew with known elements and attributes only. What cannot be
converted, or came out incomplete, is None: the caller shows the source.
"""

from __future__ import annotations

import html
import re
import warnings
from xml.etree import ElementTree

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its source has invalid escapes that Python warns about
    import mdtex2html

LENGTH = 4000  # characters of a formula that is converted
# Stand-ins during the conversion: these two would be taken for markup.
_LESS, _GREATER = "\ue000", "\ue001"
_NAMESPACE = "{http://www.w3.org/1998/Math/MathML}"
_CHILDREN = {"mfrac": 2, "mroot": 2, "msub": 2, "msup": 2, "munder": 2, "mover": 2}
_CHILDREN |= {"msubsup": 3, "munderover": 3}
_ELEMENTS = set(_CHILDREN) | {
    *("math", "menclose", "merror", "mi", "mmultiscripts", "mn", "mo", "mpadded", "mphantom"),
    *("mprescripts", "mrow", "ms", "mspace", "msqrt", "mstyle", "mtable", "mtd", "mtext", "mtr"),
    "none",
}
_ATTRIBUTES = {
    *("accent", "columnalign", "columnlines", "columnspacing", "depth", "displaystyle", "fence"),
    *("form", "height", "linethickness", "lspace", "mathbackground", "mathcolor", "mathsize"),
    *("mathvariant", "maxsize", "minsize", "movablelimits", "notation", "rowlines", "rowspacing"),
    *("rspace", "scriptlevel", "separator", "stretchy", "symmetric", "voffset", "width"),
}
_LIMITS = {"msub": "munder", "msup": "mover", "msubsup": "munderover"}
_LARGE = set("∑∏∐⋀⋁⋂⋃⨀⨁⨂⨆") | {"lim", "max", "min", "sup", "inf", "argmax", "argmin"}
_ROW_GAP = re.compile(r"\\\\[ \t]*\[-?[\d.]{1,8} ?(?:pt|em|ex|mm|cm)\]")  # \\[2pt]
# The one aligned environment that the converter knows without numbering each formula (1).
_ALIGNED = re.compile(r"\{(?:align|aligned|split|gather\*?|gathered|eqnarray\*?)\}")
_ROMAN = re.compile(r"<mi>(&#x000[4-7][0-9A-F];)</mi>")  # \mathrm{d}; a lone letter is italic
_VALUE = re.compile(r"[\w#.,+% \-]{1,60}", re.ASCII)


def mathml(tex: str, block: bool) -> str | None:
    """The `<math>` element of a formula, or None when it cannot be shown as one."""
    if len(tex) > LENGTH or not tex.strip() or "`" in tex:
        return None
    source = _ROW_GAP.sub(r"\\\\", tex).replace("<", _LESS).replace(">", _GREATER)
    source = _ALIGNED.sub("{align*}", source)
    page = mdtex2html.convert(rf"\[{source}\]", splitParagraphs=False)
    start, end = page.find("<math"), page.rfind("</math>")
    if start < 0 or end < 0:
        return None
    found = page[start : end + len("</math>")]
    found = _ROMAN.sub(r'<mi mathvariant="normal">\1</mi>', found)
    found = re.sub(r"&(?!#x?[0-9A-Fa-f]+;)", "&amp;", found)
    try:
        root = ElementTree.fromstring(found)
        if block:
            _set_limits(root)
        inside = "".join(map(_written, root))
    except (ElementTree.ParseError, _Unsafe, RecursionError):
        return None
    display = "block" if block else "inline"
    return f'<math xmlns="{_NAMESPACE[1:-1]}" display="{display}">{inside}</math>'


def _set_limits(root: ElementTree.Element) -> None:
    """Put the limits of sums and the like above and below, as a formula of its own has them."""
    for element in root.iter():
        name = element.tag.removeprefix(_NAMESPACE)
        if name in _LIMITS and len(element) and (element[0].text or "") in _LARGE:
            element.tag = _NAMESPACE + _LIMITS[name]


class _Unsafe(Exception):
    """An element that is unknown or incomplete, or a command that was not understood."""


def _written(element: ElementTree.Element) -> str:
    name = element.tag.removeprefix(_NAMESPACE)
    text = (element.text or "").replace(_LESS, "<").replace(_GREATER, ">")
    if name not in _ELEMENTS or len(element) != _CHILDREN.get(name, len(element)):
        raise _Unsafe(name)
    if re.match(r"\\[A-Za-z]", text):
        raise _Unsafe(text)
    if name == "mi" and text in ("<", ">"):
        name = "mo"
    attributes = "".join(
        f' {key}="{value}"'
        for key, value in element.attrib.items()
        if key in _ATTRIBUTES and _VALUE.fullmatch(value)
    )
    inside = html.escape(text, quote=False) + "".join(map(_written, element))
    return f"<{name}{attributes}>{inside}</{name}>"
