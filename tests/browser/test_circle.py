"""Everything a visitor can do to a conversation, in a real browser, over a scripted model."""

from __future__ import annotations

import json

import pytest

from glm.errors import EngineError
from tests.browser.driver import Visit, browser
from tests.browser.scripted_server import serving

pytestmark = [pytest.mark.browser, pytest.mark.slow]

ATTACK = (
    '<img src=x onerror="window.pwned=1"><script>window.pwned=2</script> '
    "![cat](http://evil.example/cat.png) [click](javascript:window.pwned=3) "
    "$\\href{javascript:window.pwned=4}{x}$ <iframe src=http://evil.example></iframe>\n\n"
    "![a][b]\n\n[b]: http://evil.example/b.png\n\n<svg onload=window.pwned=5>"
)
RICH = (
    "# Title\n\nInline $a<b$ and \\(c^2\\).\n\n$$x=1$$\n\n\\[y=2\\]\n\n"
    "```python\nprint('<b>')\n```\n\n| a | b |\n|---|---|\n| 1 | 2 |\n"
)


def script(asked: str) -> str | BaseException:
    last = asked.strip().rsplit("\n", 1)[-1]
    if "attack" in last:
        return ATTACK
    if "rich" in last:
        return RICH
    if "break" in last:
        return EngineError("/srv/secret")
    if "long" in last:
        return "word " * 2000
    return f"I heard: {last.strip()}"


@pytest.fixture(scope="module")
def place(tmp_path_factory, chromium):
    folder = tmp_path_factory.mktemp("page")
    with serving(folder, script, pause=0.01) as (url, streams), browser(chromium) as opened:
        yield opened, url, streams, folder


@pytest.fixture
def visit(place, request):
    opened, url, _, folder = place
    made = Visit(opened, url, folder / "shots")
    yield made
    made.shot(request.node.name)
    assert made.outside == []
    assert made.problems == []
    made.close()


def test_edit_retry_undo_and_going_between_branches(visit):
    assert visit.ask("one") == "I heard: one"
    assert visit.ask("two") == "I heard: two"
    visit.press("edit", "#live .user-row")
    visit.page.fill(".editor textarea", "three")
    visit.page.click(".editor .go")
    visit.wait_for_answer("three")
    assert visit.answer() == "I heard: three"
    visit.page.locator("#live .user-row .i-before").click()
    visit.wait_for_answer("two")
    visit.press("retry")
    visit.page.wait_for_selector("#live .bot-row .branches:has-text('2 / 2')")
    visit.press("undo")
    visit.wait_for_answer("one")
    assert visit.page.input_value("#composer textarea") == "two"
    visit.reload()
    assert visit.question() == "one"


def test_an_answer_is_edited_judged_and_copied(visit):
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit.ask("hello")
    visit.press("edit")
    visit.page.fill(".editor textarea", "Better.")
    visit.page.click(".editor .go")
    visit.page.wait_for_selector("#live .bot-row:has-text('Better.')")
    visit.press("like")
    visit.press("copy")
    visit.page.wait_for_selector(".i-done")
    assert visit.page.evaluate("navigator.clipboard.readText()") == "Better."
    visit.reload()
    assert visit.page.get_attribute("#live .bot-row .i-like", "aria-pressed") == "true"


def test_nothing_a_model_or_a_visitor_writes_runs_or_loads(visit):
    visit.ask("attack")
    assert "onerror" in visit.answer()
    visit.send(ATTACK.replace("\n", " "))
    visit.wait_for_answer("onerror")
    visit.page.locator(".side-more[data-do=rename]").first.click()
    visit.page.fill(".side-title", ATTACK[:150])
    visit.page.press(".side-title", "Enter")
    visit.page.wait_for_selector(".side-open:has-text('onerror')")
    for link in visit.page.locator("#chat .message a").all():
        assert not (link.get_attribute("href") or "").startswith("javascript")
    assert visit.page.locator("#chat .message :is(img, iframe, script, svg image)").count() == 0
    visit.reload()
    assert visit.page.evaluate("window.pwned") is None


def test_markdown_formulas_and_code_are_drawn(visit):
    visit.ask("rich")
    page = visit.page
    assert page.locator("#live .bot-row .katex").count() == 4
    assert page.locator("#live .bot-row .katex-display").count() == 2
    assert page.locator("#live .bot-row pre .token").count() > 0
    assert "print('<b>')" in page.inner_text("#live .bot-row pre")
    assert page.locator("#live .bot-row td").count() == 2


def test_the_xray_of_a_turn(visit):
    visit.ask("hello")
    visit.press("eye")
    visit.page.wait_for_selector("#xray .tok")
    ids = visit.page.locator("#xray .tok i").all_inner_texts()
    assert all(text.isdigit() for text in ids) and len(ids) > 6
    visit.page.keyboard.press("Escape")
    visit.page.wait_for_selector("#xray", state="hidden")


def test_files_go_along_and_conversations_are_saved_and_opened(visit, tmp_path):
    file = tmp_path / "sales.csv"
    file.write_text("city,amount\nParis,3\n")
    visit.page.set_input_files("#composer input[type=file]", str(file))
    visit.page.wait_for_selector("#files:has-text('sales.csv')")
    assert "tokens" in visit.page.inner_text("#files")
    visit.ask("how many?")
    assert visit.page.locator("#live .user-row .thought-group").count() == 1
    visit.page.click("#top .i-settings")
    saved = {}
    for kind in ("json", "markdown", "html"):
        with visit.page.expect_download() as download:
            visit.page.click(f"#save [data-kind={kind}]")
        saved[kind] = tmp_path / download.value.suggested_filename
        download.value.save_as(saved[kind])
    messages = json.loads(saved["json"].read_text())["messages"]
    assert [m["role"] for m in messages] == ["user", "assistant"] and "Paris" in str(messages)
    assert "how many?" in saved["html"].read_text()
    visit.page.set_input_files("#drawer input[type=file]", str(saved["markdown"]))
    visit.page.wait_for_function("document.querySelectorAll('.side-row').length === 2")
    assert "how many?" in visit.question()


def test_rename_search_and_delete(visit):
    visit.ask("about apples")
    visit.page.click("#new")
    visit.page.wait_for_selector("body.blank")
    visit.ask("about pears")
    assert visit.conversations() == ["about pears", "about apples"]
    visit.page.locator(".side-more[data-do=rename]").first.click()
    visit.page.fill(".side-title", "Fruit")
    visit.page.press(".side-title", "Enter")
    visit.page.wait_for_selector(".side-open:has-text('Fruit')")
    visit.page.fill("#search :is(input, textarea)", "apples")
    visit.page.wait_for_function("document.querySelectorAll('.side-row').length === 1")
    visit.page.fill("#search :is(input, textarea)", "")
    visit.page.wait_for_function("document.querySelectorAll('.side-row').length === 2")
    visit.page.locator(".side-more[data-do=remove]").first.click()
    visit.page.click("dialog .pill:not(.danger)")
    assert len(visit.conversations()) == 2
    visit.page.locator(".side-more[data-do=remove]").first.click()
    visit.page.click("dialog .danger")
    visit.page.wait_for_selector("body.blank")
    assert visit.conversations() == ["about apples"] and "?c=" not in visit.page.url


def test_a_failure_is_a_sentence_and_the_next_message_works(visit):
    visit.send("break")
    visit.page.wait_for_selector(".notice")
    assert "try again" in visit.page.inner_text(".notice")
    assert "/srv" not in visit.page.content()
    assert visit.ask("better") == "I heard: better"
    assert visit.page.locator(".notice").count() == 0


def test_closing_the_window_ends_its_answer(place, visit):
    opened, url, streams, folder = place
    other = Visit(opened, url, folder / "shots")
    other.send("long")
    other.page.wait_for_selector("#live [data-testid=bot]")
    [stream] = [stream for stream in streams if not stream.closed.is_set()]
    other.close()
    assert stream.closed.wait(10)
    assert visit.ask("still fine?") == "I heard: still fine?"


def test_language_theme_and_the_way_to_other_models(visit):
    visit.page.click("#top [data-do=language]")
    visit.page.wait_for_selector("#new:has-text('新对话')")
    visit.page.click("#top .i-theme")
    assert visit.page.evaluate("document.body.classList.contains('dark')")
    visit.reload()
    assert visit.page.inner_text("#new") == "新对话"
    assert visit.page.evaluate("document.body.classList.contains('dark')")
    visit.page.click("#line .link")
    visit.page.wait_for_selector("#models table")
    visit.page.locator("#models [data-do=choose]").first.click()
    visit.page.wait_for_selector(".m-find:has-text('THUDM/chatglm3-6b')")
    assert visit.page.input_value("#m-form [name=at]") == "THUDM/chatglm3-6b"
    visit.page.fill("#m-form [name=at]", "/no/such/folder")
    visit.page.press("#m-form [name=at]", "Enter")
    visit.page.wait_for_selector(".m-find .why")


def test_two_visitors_do_not_see_each_other(place, visit):
    opened, _, _, folder = place
    visit.ask("my secret")
    other = Visit(opened, visit.page.url, folder / "shots")
    assert other.page.locator(".message-row").count() == 0
    assert other.conversations() == []
    assert "my secret" not in other.page.content()
    other.close()


def test_dragging_a_file_over_the_page_says_what_to_do(visit):
    visit.page.evaluate(
        """() => {
            const carry = new DataTransfer();
            carry.items.add(new File(["a,b"], "t.csv", { type: "text/csv" }));
            for (const kind of ["dragenter", "drop"])
                document.querySelector("#scroll").dispatchEvent(
                    new DragEvent(kind, { dataTransfer: carry, bubbles: true, cancelable: true }));
        }"""
    )
    visit.page.wait_for_selector("#files:has-text('t.csv')")
