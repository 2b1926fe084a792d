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
from tests.compare.synthetic import DEFAULT, OPTIONS, grid, losses, write_run, write_skipped, write_sweep

pytestmark = pytest.mark.browser

FLAGS = (
    # Containers give it little shared memory, and it crashes when that is used up.
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
    *("--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
WIDTHS = (1280, 400)
CELLS = grid(OPTIONS | {"norm": ("rmsnorm",), "pos": ("rope", "alibi")})  # 18
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
    """18 combinations of 3 seeds, one failed, one skipped, one with a name that must not run."""
    folder = tmp_path_factory.mktemp("sweep")
    write_sweep(folder, losses(CELLS, seeds=[1, 2, 3]), curves=True)
    write_run(folder, DEFAULT, 8, None, status="failed", reason=EVIL, curves=True)
    write_run(folder, DEFAULT | {"norm": EVIL.replace("/", "")}, 1, 1.9, curves=True)
    write_skipped(folder, DEFAULT, 9, "does not fit")
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
    wait(lambda: drawn(browser))


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


def curves(page: Any) -> int:
    """How many curves of single runs are drawn."""
    return len(page.find_elements(By.CSS_SELECTOR, "#plot-curves:not([hidden]) .mark-line path"))


def points(page: Any) -> list[int]:
    """How many combinations each panel of the costs shows."""
    script = (
        "return [...document.querySelectorAll('[data-figure=costs]')]"
        ".map(e => e.querySelectorAll('.mark-symbol.role-mark path').length)"
    )
    return page.execute_script(script)


def labels(page: Any, plot: str, kind: str) -> list[str]:
    """The texts of a plot's axis labels or legend labels."""
    selector = f"{plot} .role-{kind} text"
    return [e.get_attribute("textContent") for e in page.find_elements(By.CSS_SELECTOR, selector)]


def drawn(page: Any) -> bool:
    """Whether every plot that is shown has been drawn."""
    script = (
        "return [...document.querySelectorAll('.plot:not([hidden])')]"
        ".every(e => e.closest('[hidden]') || e.querySelector('svg, canvas'))"
    )
    return page.execute_script(script) and curves(page) > 0


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
    assert curves(page) == 54 + 2
    cells = points(page)[0]
    page.find_element(By.CSS_SELECTOR, 'fieldset[data-factor="ffn"] input[value="swiglu"]').click()
    wait(lambda: curves(page) == 36)
    assert len(column(page, 0)) == 36
    wait(lambda: points(page)[0] < cells)
    page.find_element(By.ID, "search").send_keys("linear ALIBI")
    wait(lambda: len(column(page, 0)) == 6)
    wait(lambda: curves(page) == 6)
    assert "Showing 6 of 57" in page.find_element(By.ID, "showing").text
    wait(lambda: set(points(page)) == {2})
    page.find_element(By.ID, "search").send_keys("nothing is called this")
    wait(lambda: page.find_element(By.ID, "no-curves").is_displayed())
    assert page.find_element(By.ID, "no-costs").is_displayed()
    page.find_element(By.ID, "reset").click()
    wait(lambda: curves(page) == 54 + 2)
    assert not errors(page)


def test_the_curves_have_four_axes(page: Any) -> None:
    ends = {"steps": "700", "tokens": "1.4M", "flops": "7T", "seconds": "100"}
    for axis, label in ends.items():
        Select(page.find_element(By.ID, "curve-x")).select_by_value(axis)
        wait(lambda label=label: label in labels(page, "#plot-curves", "axis"))
    Select(page.find_element(By.ID, "curve-y")).select_by_value("train")
    Select(page.find_element(By.ID, "curve-scale")).select_by_value("log")
    Select(page.find_element(By.ID, "colour")).select_by_value("pos")
    wait(lambda: "alibi" in labels(page, "#plot-curves", "legend"))
    assert labels(page, "#plot-curves", "legend")[-2:] == ["rope", "alibi"]
    wait(lambda: "alibi" in labels(page, "[data-figure=costs]", "legend"))
    assert "flash" not in labels(page, "[data-figure=costs]", "legend")
    assert not errors(page)


def test_main_effects_and_experts_are_drawn(page: Any) -> None:
    first = labels(page, "[data-figure=main_effects]", "axis")
    assert {"attention", "flash (baseline)", "linear", "pos", "alibi"} <= set(first)
    Select(page.find_element(By.ID, "effect-kind")).select_by_value("deviation")
    wait(lambda: labels(page, "[data-figure=main_effects]", "axis") != first)
    assert len(page.find_elements(By.CSS_SELECTOR, "#plot-load .mark-line path")) == 8
    assert len(page.find_elements(By.CSS_SELECTOR, "#plot-final .mark-rect path")) == 8
    assert not errors(page)


def test_every_plot_can_be_saved_as_png_and_svg(page: Any) -> None:
    plots = [e for e in page.find_elements(By.CSS_SELECTOR, ".plot") if e.is_displayed()]
    assert len(plots) >= 8
    for plot in plots:
        links = plot.find_elements(By.CSS_SELECTOR, ".vega-actions a")
        names = [link.get_attribute("download") for link in links]
        assert [name.rpartition(".")[2] for name in names] == ["svg", "png"]


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
