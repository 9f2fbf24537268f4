"""The Tools tab as a visitor meets it: `python launch.py`, the embedded model, the real tools."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from tests.browser.driver import Visit, browser
from tests.program import running

pytestmark = [pytest.mark.browser, pytest.mark.slow]
SERVER = Path(__file__).resolve().parents[1] / "mcp_server_example.py"
ANSWERED = """() => !document.body.classList.contains("t-busy")
    && document.querySelector("#t-live .step:last-child .answer + .bar")"""


@pytest.fixture(scope="module")
def place(tmp_path_factory, chromium):
    folder = tmp_path_factory.mktemp("circle")
    with running(folder) as program, browser(chromium) as opened:
        program.wait_for_output("is ready")
        yield opened, program.url, folder / "shots"


@pytest.fixture
def visit_as(place, request):
    opened, url, shots = place
    made = []

    def visit(**about) -> Visit:
        found = Visit(opened, f"{url}/?tab=tools", shots, **about)
        found.page.set_default_timeout(60_000)
        found.page.wait_for_selector("#t-hero .example:not(:disabled)")
        made.append(found)
        return found

    yield visit
    for number, one in enumerate(made):
        one.shot(f"{request.node.name}-{number}")
        assert (one.outside, one.problems) == ([], [])
        one.close()


def play(visit: Visit, example: str) -> None:
    """Begin an example of the gallery in a new session."""
    if visit.page.locator("body:not(.t-blank)").count():
        visit.page.click("#t-new")
    visit.page.click(f"#t-hero [data-id={example}]")


def answer(visit: Visit) -> str:
    """The last answer, once the run rests."""
    visit.page.wait_for_function(ANSWERED)
    return visit.page.locator("#t-live .answer").last.inner_text()


def observed(visit: Visit) -> str:
    """The last observation."""
    return visit.page.locator("#t-live .card.seen pre.text").last.inner_text()


def called(visit: Visit) -> list[str]:
    return visit.page.locator("#t-live .card.call .name").all_inner_texts()


def enabled(visit: Visit) -> list[str]:
    switches = visit.page.locator("#t-cards [data-set=enabled]:checked")
    return [switch.get_attribute("data-name") or "" for switch in switches.all()]


def temperature(observation: str) -> str:
    return re.search(r"-?\d+", json.loads(observation)["temperature"]).group()


def test_the_weather_through_the_tool_and_another_city_in_a_fork(visit_as):
    visit = visit_as()
    page = visit.page
    play(visit, "weather")
    assert temperature(observed_after(visit)) in answer(visit)
    assert called(visit) == ["get_weather"] and "Paris" in observed(visit)
    page.click("#t-live [data-act=t-fork]")
    page.fill("#t-sheet [data-arg=city]", "Oslo")
    page.click("#t-sheet [value=run]")
    page.wait_for_selector("#t-live .card.seen:has-text('Oslo')")
    assert temperature(observed_after(visit)) in answer(visit)
    page.click("#t-live [data-act=t-sides]")
    page.wait_for_selector(".side-branch >> nth=1")
    first, second = page.locator(".side-branch").all_inner_texts()
    assert "Paris" in first and "Oslo" in second
    visit.shot("fork-desktop-en")
    page.keyboard.press("Escape")
    page.wait_for_selector("#t-sheet", state="hidden")
    visit.shot("weather-desktop-en")


def observed_after(visit: Visit) -> str:
    answer(visit)
    return observed(visit)


def test_arithmetic_through_the_calculator(visit_as):
    visit = visit_as(dark=True)
    play(visit, "sum")
    assert "503" in answer(visit)
    assert called(visit) == ["calculator"] and observed(visit) == "503"


def test_a_pasted_function_alone_is_used_with_constrained_calls(visit_as):
    visit = visit_as()
    page = visit.page
    play(visit, "own")
    assert "12" in answer(visit)
    assert called(visit) == ["get_ticket_price"] and "12" in observed(visit)
    assert enabled(visit) == ["get_ticket_price"]
    assert page.is_checked("#t-cards [data-set=constrained]")
    page.locator(".tool[data-tool=get_ticket_price]").scroll_into_view_if_needed()


def test_step_mode_changes_an_argument_and_the_answer_changes(visit_as):
    visit = visit_as()
    page = visit.page
    play(visit, "step")
    page.wait_for_selector("#t-live form.decide")
    visit.shot("step-desktop-en")
    assert page.input_value("#t-live [data-arg=expression]").replace(" ", "") == "12*8"
    page.fill("#t-live [data-arg=expression]", "7 * 6")
    page.click("#t-live form.decide [value=run]")
    said = answer(visit)
    assert "42" in said and "96" not in said
    assert observed(visit) == "42"


def test_a_plot_of_the_interpreter_is_seen(visit_as):
    visit = visit_as()
    page = visit.page
    play(visit, "plot")
    answer(visit)
    page.wait_for_function(
        "(box => box.scrollHeight - box.scrollTop - box.clientHeight < 60)"
        "(document.querySelector('#t-scroll'))"
    )
    assert page.eval_on_selector("#t-live img.plot", "img => img.complete && img.naturalWidth") > 99


def test_an_mcp_server_is_added_approved_and_tried(visit_as):
    visit = visit_as()
    page = visit.page
    entry = {"example": {"command": sys.executable, "args": [str(SERVER)]}}
    page.click("#t-servers .paste summary")
    page.fill("#t-servers .paste-form textarea", json.dumps({"mcpServers": entry}))
    page.click("#t-servers .paste-form .go")
    page.wait_for_selector("#t-servers .offer.new:has-text('Add two numbers')")
    page.locator("#t-servers .server").scroll_into_view_if_needed()
    visit.shot("server-desktop-en")
    assert page.locator(".tool:has-text('Add two numbers')").count() == 0
    page.click("#t-servers [data-act=t-approve]")
    card = ".tool:has-text('Add two numbers')"
    page.wait_for_selector(card)
    page.click("[data-act=t-all][data-on='0']")
    page.click(f"{card} [role=switch]")
    page.click(f"{card} details.try summary")
    page.fill(f"{card} [data-arg=a]", "19")
    page.fill(f"{card} [data-arg=b]", "23")
    page.click(f"{card} .try-form .go")
    page.wait_for_selector(f"{card} .tried .card:has-text('42')")
    assert len(enabled(visit)) == 1
    page.locator(f"{card} .tried").scroll_into_view_if_needed()
    visit.shot("tried-desktop-en")
    price = ".tool:has-text('room price')"
    page.click(f"{card} [role=switch]")
    page.click(f"{price} [role=switch]")
    with page.expect_response(lambda answered: "/run/" in answered.url):
        page.click(f"{price} .policies .allow")
    page.fill("#t-composer textarea", "What is the room price in Rome?")
    page.press("#t-composer textarea", "Enter")
    assert "80 euros" in answer(visit)
    assert called(visit) == ["get_room_price"] and observed(visit) == "80 euros"


def test_a_phone_in_chinese(visit_as):
    visit = visit_as(phone=True, locale="zh-CN")
    page = visit.page
    visit.shot("gallery-phone-zh")
    play(visit, "weather")
    assert temperature(observed_after(visit)) in answer(visit)
    visit.shot("weather-phone-zh")
    page.click("#top .i-settings")
    page.wait_for_selector("#t-panel .tool")
    visit.shot("panel-phone-zh")
    page.keyboard.press("Escape")
    page.wait_for_selector("#t-panel", state="hidden")
    page.click("#t-live [data-act=t-fork]")
    page.wait_for_selector("#t-sheet form.decide")
    visit.shot("fork-phone-zh")
    page.keyboard.press("Escape")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_desktop_in_chinese(visit_as):
    visit = visit_as(locale="zh-CN")
    visit.shot("gallery-desktop-zh")
    play(visit, "sum")
    assert "503" in answer(visit)
