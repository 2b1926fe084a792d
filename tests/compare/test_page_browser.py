"""The report in a real headless Chromium: it draws, sorts, filters, and fits the screen."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from modgpt.compare.comparison import compare
from tests.compare.synthetic import DEFAULT, grid, losses, write_run, write_skipped, write_sweep

pytestmark = pytest.mark.browser

FLAGS = (
    # Containers give it little shared memory, and it crashes when that is used up.
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
WIDTHS = (1280, 400)
EVIL = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    chromium, chromedriver = shutil.which("chromium"), shutil.which("chromedriver")
    # No skip: who asks for these tests wants them run.
    assert chromium and chromedriver, "needs Chromium: apt-get install chromium chromium-driver"
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(chromedriver))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """108 combinations, one failed, one skipped, one with a name that must not run."""
    folder = tmp_path_factory.mktemp("sweep")
    write_sweep(folder, losses(grid(), seeds=[1, 2]), curves=True)
    write_run(folder, DEFAULT, 3, None, status="failed", reason=EVIL, curves=True)
    write_run(folder, DEFAULT | {"norm": EVIL.replace("/", "")}, 1, 1.9, curves=True)
    write_skipped(folder, DEFAULT, 4, "does not fit")
    return compare([folder], console=Console(quiet=True))


@pytest.fixture
def page(browser: Any, report: Path) -> Any:
    opened(browser, report, 1280)
    return browser


def opened(browser: Any, report: Path, width: int, scheme: str = "light") -> None:
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", features)
    browser.get(report.as_uri())


def errors(browser: Any) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] != "INFO"]


def column(page: Any, index: int) -> list[str]:
    """The texts in a column of the rows that are shown."""
    script = (
        "return [...document.querySelectorAll('#table tbody tr:not([hidden])')]"
        ".map(row => row.cells[arguments[0]].textContent)"
    )
    return page.execute_script(script, index)


def header(page: Any, label: str) -> tuple[int, Any]:
    cells = page.find_elements(By.CSS_SELECTOR, "#table thead th")
    return next((i, c) for i, c in enumerate(cells) if c.text.split(" ↕")[0].rstrip(" ↑↓") == label)


def curves(page: Any) -> set[str]:
    """The runs whose curves are drawn."""
    script = "return document.getElementById('plot-curves').data?.flatMap(t => t.text) ?? []"
    return {name for name in page.execute_script(script) if name}


def wait(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "the page did not react"
        time.sleep(0.05)


def test_the_table_sorts_by_mouse_and_keyboard(page: Any) -> None:
    index, cell = header(page, "final val loss")
    shown = column(page, index)
    assert cell.get_attribute("aria-sort") == "ascending"
    numbers = [float(x) for x in shown if x]
    assert numbers == sorted(numbers) and shown[-2:] == ["", ""]
    cell.find_element(By.TAG_NAME, "button").click()
    shown = column(page, index)
    assert [float(x) for x in shown if x] == numbers[::-1] and shown[-2:] == ["", ""]
    assert cell.get_attribute("aria-sort") == "descending"
    index, cell = header(page, "pos")
    cell.find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    assert column(page, index) == sorted(column(page, index))
    assert len(page.find_elements(By.CSS_SELECTOR, "#table th[aria-sort]")) == 1


def test_a_filter_narrows_table_curves_and_costs(page: Any) -> None:
    everything = curves(page)
    assert len(everything) == 216 + 2
    page.find_element(By.CSS_SELECTOR, 'fieldset[data-factor="ffn"] input[value="swiglu"]').click()
    wait(lambda: len(curves(page)) == 144)
    assert not any("swiglu" in name for name in curves(page))
    assert len(column(page, 0)) == 144
    page.find_element(By.ID, "search").send_keys("linear ALIBI")
    wait(lambda: len(column(page, 0)) == 12)
    wait(lambda: len(curves(page)) == 12)
    assert curves(page) == set(column(page, 0))
    assert "Showing 12 of 219" in page.find_element(By.ID, "showing").text
    points = "return document.getElementById('plot-pareto').data.slice(1).flatMap(t => t.x).length"
    assert page.execute_script(points) == 6
    page.find_element(By.ID, "search").send_keys("nothing is called this")
    wait(lambda: page.find_element(By.ID, "no-curves").is_displayed())
    page.find_element(By.ID, "reset").click()
    wait(lambda: curves(page) == everything)
    assert not errors(page)


def test_the_curves_have_four_axes(page: Any) -> None:
    ends = {}
    for axis in ("steps", "tokens", "flops", "seconds"):
        Select(page.find_element(By.ID, "curve-x")).select_by_value(axis)
        script = (
            "const t = document.getElementById('plot-curves').data[0];"
            "return t.x[t.text.findIndex((n, i) => n && !t.text[i + 1])]"
        )
        ends[axis] = page.execute_script(script)
    assert ends["steps"] == 700 and ends["tokens"] == 700 * 2048
    assert ends["flops"] == pytest.approx(3 * 1_664_256 * 700 * 2048)
    assert ends["seconds"] == pytest.approx(700 * 2048 / 14_000)
    Select(page.find_element(By.ID, "curve-y")).select_by_value("train")
    Select(page.find_element(By.ID, "curve-scale")).select_by_value("log")
    Select(page.find_element(By.ID, "colour")).select_by_value("pos")
    names = "return document.getElementById('plot-curves').data.map(t => t.name)"
    assert page.execute_script(names) == ["rope", "alibi", "learned", "sinusoidal"]
    assert not errors(page)


def test_the_front_is_that_of_loss_and_cost(page: Any) -> None:
    for cost in ("active_parameters", "flops_per_token", "tokens_per_second", "peak_memory_bytes"):
        Select(page.find_element(By.ID, "pareto-x")).select_by_value(cost)
        traces = page.execute_script(
            "return document.getElementById('plot-pareto').data.map(t => [t.x, t.y])"
        )
        sign = -1 if cost == "tokens_per_second" else 1
        points = {(sign * x, y) for xs, ys in traces[1:] for x, y in zip(xs, ys, strict=True)}
        front = {(sign * x, y) for x, y in zip(*traces[0], strict=True)}
        beaten = {p for p in points for q in points if q != p and q[0] <= p[0] and q[1] <= p[1]}
        assert front == points - beaten
        assert len(page.find_elements(By.CSS_SELECTOR, "#front li")) == len(front)


def test_main_effects_and_experts_are_drawn(page: Any) -> None:
    count = "return document.getElementById('plot-effects').data.flatMap(t => t.x).length"
    assert page.execute_script(count) >= 13
    Select(page.find_element(By.ID, "effect-kind")).select_by_value("deviation")
    assert page.execute_script(count) >= 13
    assert len(page.execute_script("return document.getElementById('plot-load').data")) == 8
    final = page.execute_script("return document.getElementById('plot-final').data[0].y")
    assert sum(final) == pytest.approx(1, abs=1e-3)
    assert not errors(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_fits_the_screen_without_errors(
    browser: Any, report: Path, width: int, scheme: str
) -> None:
    opened(browser, report, width, scheme)
    browser.execute_script("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    inner, outer = browser.execute_script(
        "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert inner <= outer, "the page scrolls sideways"
    wide = browser.execute_script(
        "return [...document.querySelectorAll('.plot svg')].filter("
        "s => s.getBoundingClientRect().right > innerWidth).length"
    )
    assert wide == 0
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 27)")
    assert browser.title.startswith("sweep") and not errors(browser)
    assert not browser.find_elements(By.CSS_SELECTOR, "img[src='x']")
