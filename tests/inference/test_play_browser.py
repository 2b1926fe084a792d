"""The page to play with in a real headless Chromium."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from modgpt.inference.play.server import PlayServer
from tests.chromium import chromium
from tests.inference.test_play import player

pytestmark = pytest.mark.browser
EVIL = "<img src=x onerror=\"document.title='broken'\">"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The page of two small runs, one with a name that must not run, at 1,280 pixels."""
    players = [player(EVIL), player("second", ffn="moe", attention="gated_delta")]
    with (
        PlayServer(players, "127.0.0.1", 0) as server,
        chromium(tmp_path_factory.mktemp("profile")) as driver,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        driver.set_window_size(1280, 1000)
        driver.get(server.address)
        wait(driver, lambda: "second" in driver.find_element(By.ID, "about").text)
        yield driver
        server.shutdown()


def wait(page: Any, condition: Callable[[], Any]) -> None:
    WebDriverWait(page, 60).until(lambda _: condition())


def fill(page: Any, name: str, text: str) -> None:
    field = page.find_element(By.ID, name)
    field.clear()
    field.send_keys(text)


def cards(page: Any, box: str, inside: str) -> list[Any]:
    return page.find_elements(By.CSS_SELECTOR, f"#{box} article:has({inside})")


def test_two_runs_write_side_by_side_by_keyboard_alone(page: Any) -> None:
    fill(page, "prompt", "abc <b>")
    fill(page, "max_new_tokens", "20")
    page.find_element(By.ID, "seed").send_keys(Keys.ENTER)
    wait(
        page,
        lambda: page.find_element(By.ID, "go").is_enabled() and len(cards(page, "written", ".bar")) == 2,
    )
    texts = page.find_elements(By.CSS_SELECTOR, "#written .text")
    assert all(text.text.startswith("abc <b>") and len(text.text) > 8 for text in texts)
    assert len(page.find_elements(By.CSS_SELECTOR, "#written .text .t")) == 40
    assert page.title == "modgpt play", "a name is text, not markup"


def test_surprise_colours_each_token_and_gives_the_mean(page: Any) -> None:
    fill(page, "text", "bad cafe")
    page.find_element(By.CSS_SELECTOR, "#surprise button").click()
    wait(page, lambda: len(cards(page, "surprised", ".mean")) == 2)
    tokens = page.find_elements(By.CSS_SELECTOR, "#surprised article:first-child .t")
    assert [token.get_attribute("textContent") for token in tokens] == list("bad cafe")
    assert "nats, probability" in tokens[1].get_attribute("title")
    assert "nats per character" in page.find_element(By.CSS_SELECTOR, "#surprised .mean").text


def test_a_look_inside_draws_every_head_and_the_experts(page: Any) -> None:
    fill(page, "text", "bad cafe")
    page.find_element(By.CSS_SELECTOR, "#look button").click()
    wait(page, lambda: len(cards(page, "looked", "canvas")) == 2)
    wait(page, lambda: page.find_elements(By.CSS_SELECTOR, "#looked .experts .t"))
    drawn = "return [...document.querySelectorAll('#looked canvas')].map(c => c.width)"
    assert set(page.execute_script(drawn)) == {8}
    coloured = (
        "const c = document.querySelector('#looked canvas');"
        "return c.getContext('2d').getImageData(0, 0, 1, 1).data[1]"
    )
    assert page.execute_script(coloured) < 100, "the first token looks at itself with all its weight"


def test_a_mistake_is_shown_in_its_card(page: Any) -> None:
    fill(page, "text", "xyz")
    page.find_element(By.CSS_SELECTOR, "#surprise button").click()
    wait(page, lambda: len(cards(page, "surprised", ".error")) == 2)
    assert "does not know 'x', 'y', 'z'" in page.find_element(By.CSS_SELECTOR, "#surprised .error").text


@pytest.mark.parametrize("width", [1600, 400])
def test_it_fits_the_screen(page: Any, width: int) -> None:
    page.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
    )
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_nothing_went_wrong_on_the_page(page: Any) -> None:
    errors = [entry for entry in page.get_log("browser") if "400" not in entry["message"]]
    assert not errors
