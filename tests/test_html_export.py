"""demo/html_export.py: one file that reads well, shows everything and runs nothing."""

from __future__ import annotations

import json
import re
import time
from html.parser import HTMLParser

import pytest

from demo import rich_text as rich
from demo.highlight import highlight
from demo.html_export import FOLDER, export_html
from demo.mathml import mathml
from demo.rich_text import rich_text
from glm.messages import Conversation, Message, ToolCall, ToolSpec
from glm.store.exchange import Transcript

TAGS = {
    *("html", "head", "meta", "title", "style", "body", "main", "header", "footer", "article"),
    *("h1", "h2", "h3", "h4", "h5", "h6", "p", "br", "hr", "strong", "em", "s", "a", "code", "pre"),
    *(
        "ul",
        "ol",
        "li",
        "blockquote",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "dl",
        "dt",
        "dd",
    ),
    *("details", "summary", "figure", "figcaption", "div", "span"),
}
ATTRIBUTES = {
    *("charset", "class", "content", "href", "http-equiv", "lang", "name", "rel", "start", "title"),
    *("style", "xmlns", "display"),
}


class Page(HTMLParser):
    """The elements, attributes, text and links of a page."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.attributes, self.links, self.words = set(), set(), [], []
        self.open: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        if "math" not in self.open:
            self.tags.add(tag)
            self.attributes |= {name for name, _ in attrs}
        self.links += [value for name, value in attrs if name in ("href", "src", "style")]
        if tag not in ("meta", "br", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        return "".join(self.words)


def export(*messages, lang="en", title="T", tools=()):
    return export_html(Transcript(Conversation(messages, tools), title), lang)


def test_a_page_holds_all_parts_of_a_conversation():
    page = Page(
        export(
            Message("system", "Be **brief**."),
            Message("user", "Rain?\nToday?"),
            Message("assistant", "I look.", (ToolCall("f<b>", {"city": "北京"}),), thinking="*hm*"),
            Message("tool", '{"rain": true}', name="f<b>"),
            Message("assistant", "- No.\n- `x`"),
            title="A <title>\n&",
            tools=(ToolSpec("f<b>", "Does <i>f</i>"),),
        )
    )
    for words in (
        *("A <title> &", "Be brief.", "Rain?", "Today?", "I look.", "f<b>", '"city": "北京"', "hm"),
        *('{"rain": true}', "No.", "Does <i>f</i>", "3 messages", "Tools on offer (1)", "Result"),
    ):
        assert words in page.text
    assert page.open == [] and page.tags <= TAGS and page.attributes <= ATTRIBUTES


def test_chinese_labels_are_used_for_a_chinese_page():
    page = export(Message("user", "你好"), Message("assistant", "你好！"), lang="zh", title="")
    assert 'lang="zh-CN"' in page and "助手" in page and "<h1>对话</h1>" in page
    labels = json.loads((FOLDER / "labels.json").read_text(encoding="utf-8"))
    assert labels["en"].keys() == labels["zh"].keys()


EVIL = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[x](javascript:alert(1)) [y](JaVaScRiPt:alert(1)) [z](\x01javascript:alert(1)) <javascript:x>",
    "[x](data:text/html;base64,PHNjcmlwdD4=) [f](file:///etc/passwd) [v](vbscript:x) [r](../../x)",
    "[a]: javascript:alert(1)\n\n[a] ![a]",
    "![pixel](https://evil.example/pixel.png) ![p](data:image/svg+xml,<svg/onload=alert(1)>)",
    '![x" onerror="alert(1)](https://e.example/"onload="x)',
    '[t](https://e.example "a\\" onclick=\\"x")',
    "$\\href{javascript:alert(1)}{x}$ $\\style{background:url(//e.example)}{x}$ $\\class{a}{x}$",
    "$\\text{<script>alert(1)</script>}$ \\[\\text{<img src=x onerror=alert(1)>}\\]",
    "$</math><script>alert(1)</script>$ $$\\text{&lt;script&gt;}</math>$$",
    "$\\text{]]><!DOCTYPE x>}$",
    '$\\color{red" onclick="x}{y}$ $\\begin{array}{c" onclick="x}1\\end{array}$',
    '```"><script>alert(1)</script>\n</code></pre><script>alert(1)</script>\n```',
    "```html\n<script>'</script><img onerror=x>\n```",
    "</details></main></style><style>*{background:url(//e.example)}</style>",
    "`<b>` <!-- --><iframe src=//e.example> &lt;script&gt; <a href=javascript:x>",
    "\0<scr\0ipt>\ud800",
]


@pytest.mark.parametrize("evil", EVIL, ids=range(len(EVIL)))
def test_nothing_in_a_conversation_can_run_or_load(evil):
    call = ToolCall(evil, {evil: evil})
    page = Page(
        export(
            Message("user", evil),
            Message("assistant", evil, (call,), thinking=evil),
            Message("tool", evil, name=evil),
            Message("tool", "{" + evil, name=evil),
            Message("system", evil),
            title=evil,
            tools=(ToolSpec(evil, evil),),
        )
    )
    assert page.tags <= TAGS | {"math"} and page.attributes <= ATTRIBUTES
    assert all(re.match(r"https?://|mailto:|#", link) for link in page.links)
    assert page.open == []


def test_a_page_forbids_scripts_and_requests_and_asks_for_none():
    source = export(Message("user", "hi"))
    assert "default-src 'none'" in source
    style = source.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style and "@import" not in style and "@font-face" not in style
    assert "prefers-color-scheme: dark" in style


# ---- formulas ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source", ["$$x^2$$", "\\[x^2\\]", "$$\nx^2\n$$", "- a\n\n  \\[\n  x^2\n  \\]", "so $$x^2$$."]
)
def test_a_formula_of_its_own_is_a_block(source):
    assert '<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">' in rich_text(source)


@pytest.mark.parametrize(
    "source", ["is $x^2$.", "\\(x^2\\)", "**$x^2$**", "| a |\n|-|\n| $x^2$ |", "是$x^2$吗"]
)
def test_a_formula_in_a_line_is_inline(source):
    html = rich_text(source)
    assert 'display="inline"><mrow><msup><mi>x</mi><mn>2</mn></msup></mrow></math>' in html


@pytest.mark.parametrize(
    "text",
    [
        "$5 and $6",
        "$5, $6 and $7.50",
        "US$5 or US$ 6",
        "from $100-$200",
        "价格$5，另一个$6",
        "5$ and 6$",
        "\\$5 and \\$6",
        "just a $ sign, $$ and \\( too",
        "`$x$`",
        "$ x $",
    ],
)
def test_money_stays_money(text):
    page = rich_text(text)
    assert "<math" not in page
    assert Page(page).text.strip() == text.replace("\\$", "$").replace("\\(", "(").replace("`", "")


def test_a_formula_beside_prices_is_still_found():
    page = rich_text("It costs $5, so $x = 5$ and $y$.")
    assert page.count("<math") == 2 and "It costs $5, so " in page


def test_code_is_not_searched_for_formulas():
    page = rich_text("```\n$x$ \\(y\\)\n```\n\n    $z$\n")
    assert "<math" not in page and "$x$ \\(y\\)" in page


@pytest.mark.parametrize(
    "tex", ["\\frac{1", "x^{", "\\unknowncommand{x}", "{" * 3000, "x" * 5000, "\\frac"]
)
def test_broken_tex_is_shown_as_its_source(tex):
    page = Page(rich_text(f"a\n\n$$\n{tex}\n$$\n\nb"))
    assert "math" not in page.tags and tex in page.text
    assert page.text.split()[-1] == "b"


def test_common_tex_is_understood():
    for tex in (
        *(r"\begin{aligned}a&=b\\[2pt]c&<d\end{aligned}", r"\begin{cases}1&x>0\\0\end{cases}"),
        *(r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\left(\frac{a}{b}\right)", r"\text{若 }x<1"),
        *(r"\lim_{x\to0}\frac{\sin x}{x}", r"\mathbb{R}^n\ne\emptyset", r"\vec{v}\cdot\hat{n}"),
        *(r"\oint_C\mathrm{d}s", r"\binom{n}{k}", r"\sqrt[3]{x}", r"a\le b\implies\forall x\in A"),
    ):
        found = mathml(tex, block=True)
        assert found is not None and "&amp;" not in found and "2pt" not in found, tex
    assert "<munderover>" in mathml(r"\sum_{i=1}^n i", block=True)
    assert "<msubsup>" in mathml(r"\sum_{i=1}^n i", block=False)


# ---- size --------------------------------------------------------------------------------


def test_more_than_a_thousand_formulas_are_converted():
    assert rich_text("$x_1$ and " * 1200).count("<math") == 1200
    assert rich_text("$$\nx\n$$\n\n" * 1100).count("<math") == 1100


def test_formulas_past_the_limit_are_shown_as_source(monkeypatch):
    monkeypatch.setattr(rich, "FORMULAS", 3)
    page = rich_text("$x$ " * 5)
    assert page.count("<math") == 3 and page.count('<code class="tex">x</code>') == 2


@pytest.mark.parametrize(
    "piece",
    [
        *("$", "$5 ", "$$", "$$\n", "\\(", "\\[", "\\[\n", "\\]x\n\\[\n", "\\$", "`", "```\n", "["),
        *("![", "](", "*a ", "_", "> ", "- ", "<", "&", "|a", "~", "\\"),
    ],
)
def test_time_grows_with_the_length_of_strange_text(piece):
    started = time.thread_time()
    rich_text(piece * (20_000 // len(piece)))
    assert time.thread_time() - started < 3


# ---- code --------------------------------------------------------------------------------


def test_code_is_coloured_and_complete():
    code = 'def f(x):  # "no"\n    return "a#b" + \'\\\'\' + 1.5e3 < None & x\n'
    marked = highlight(code, "Python")
    assert Page(marked).text == code
    for piece in (
        '<span class="word">def</span>',
        '<span class="comment"># "no"</span>',
        '<span class="string">"a#b"</span>',
        '<span class="number">1.5e3</span>',
    ):
        assert piece in marked
    assert highlight("select 1 -- x", "sql").startswith('<span class="word">select</span>')
    assert highlight("<b> & 'x'", "text") == "&lt;b&gt; &amp; 'x'"


@pytest.mark.parametrize("piece", ['"', "'", "/*", '"""', "//", "#", "\\", "<!--", "a", "1", "/"])
def test_colouring_takes_time_in_proportion(piece):
    code = piece * 10_000
    started = time.thread_time()
    for language in ("python", "c", "sql", "html", "json", "unknown"):
        assert Page(highlight(code, language)).text == code
    assert time.thread_time() - started < 3
