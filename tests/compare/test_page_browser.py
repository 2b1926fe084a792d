"""The report in a real headless Chromium: it draws, sorts, filters, and fits the screen."""

from __future__ import annotations

import csv
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from modgpt.compare.comparison import compare, read_comparison, write_comparison
from tests.chromium import chromium
from tests.compare.synthetic import DEFAULT, OPTIONS, grid, losses, write_run, write_skipped, write_sweep

pytestmark = pytest.mark.browser

WIDTHS = (1600, 400)
CELLS = grid(OPTIONS | {"norm": ("rmsnorm",), "pos": ("rope", "alibi")})  # 18
EVIL = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


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


@pytest.fixture
def saved(page: Any, tmp_path: Path) -> Callable[[str], bytes]:
    """The content of a file of this name, once the browser has downloaded it."""
    behaviour = {"behavior": "allow", "downloadPath": str(tmp_path)}
    page.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)

    def read(name: str) -> bytes:
        wait(lambda: (tmp_path / name).exists() and (tmp_path / name).stat().st_size > 0)
        return (tmp_path / name).read_bytes()

    return read


def opened_filters(page: Any) -> None:
    page.find_element(By.CSS_SELECTOR, "details.filters summary").click()


def scrolled_to(page: Any, element: Any) -> Any:
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
    return element


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
    opened_filters(page)
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


def test_differences_and_experts_are_drawn(page: Any) -> None:
    found = labels(page, "[data-figure=differences]", "axis")
    assert {"attention", "flash (baseline)", "linear", "pos", "alibi"} <= set(found)
    assert len(page.find_elements(By.CSS_SELECTOR, "#plot-load .mark-line path")) == 8
    assert len(page.find_elements(By.CSS_SELECTOR, "#plot-final .mark-rect path")) == 8
    assert not errors(page)


def test_every_plot_can_be_saved_as_png_and_svg(page: Any, saved: Callable[[str], bytes]) -> None:
    frames = [e for e in page.find_elements(By.CSS_SELECTOR, ".frame") if e.is_displayed()]
    assert len(frames) >= 8
    for frame in frames:
        buttons = frame.find_elements(By.CSS_SELECTOR, ".save button")
        assert [button.text for button in buttons] == ["PNG", "SVG"]
    for number in (0, 5):
        for button in frames[number].find_elements(By.CSS_SELECTOR, ".save button"):
            scrolled_to(page, button).click()
    for name in ("differences-1", "curves"):
        assert saved(f"{name}.png").startswith(b"\x89PNG")
        text = saved(f"{name}.svg").decode()
        assert text.startswith("<svg") and "<path" in text
    assert not errors(page)


def test_the_page_of_verdicts_is_the_first_screen(browser: Any, report: Path) -> None:
    opened(browser, report, 1600)
    table = browser.find_element(By.CSS_SELECTOR, ".overview")
    assert table.rect["y"] + table.rect["height"] < 900, "the verdicts need no scrolling"
    for selector in (".evidence", ".findings", ".cautions"):
        assert browser.find_element(By.CSS_SELECTOR, selector).is_displayed()
    place = (
        "const row = [...document.querySelectorAll('.overview tbody tr')]"
        ".find(r => r.querySelector('.name').textContent === arguments[0]);"
        "const point = row.querySelector('.drawing b').getBoundingClientRect();"
        "return point.x + point.width / 2"
    )
    zero, alibi, linear = (browser.execute_script(place, o) for o in ("flash", "alibi", "linear"))
    assert (linear - zero) / (alibi - zero) == pytest.approx(0.2 / 0.05, rel=0.25), "drawn to scale"


def test_every_table_sorts_filters_and_downloads(page: Any, saved: Callable[[str], bytes]) -> None:
    tables = page.find_elements(By.CSS_SELECTOR, "table.data")
    assert len(tables) >= 8 == len({t.get_attribute("data-name") for t in tables} & {
        "Verdicts", "Differences from the baseline", "Combinations", "attention × ffn",
        "Tests of the interactions", "Combinations on the fronts", "Jobs", "Jobs that did not finish",
    })  # fmt: skip
    for table in tables:
        name = table.get_attribute("data-name")
        tools = page.find_elements(
            By.CSS_SELECTOR, f".bar [aria-label$={json.dumps(': ' + name, ensure_ascii=False)}]"
        )
        assert [t.tag_name for t in tools] == (["button"] if name == "Jobs" else ["input", "button"])
        for heading in table.find_elements(By.CSS_SELECTOR, "thead th:not([data-skip])"):
            assert heading.find_element(By.TAG_NAME, "button").get_attribute("textContent")
    verdicts = page.find_element(By.CSS_SELECTOR, ".overview")
    number = verdicts.find_element(By.CSS_SELECTOR, "th.number button")
    number.click()
    names = [e.text for e in verdicts.find_elements(By.CSS_SELECTOR, "td.option .name")]
    assert names.index("alibi") < names.index("linear") < names.index("flash"), "baselines come last"
    box = page.find_element(By.CSS_SELECTOR, "[aria-label='Filter: Verdicts']")
    box.send_keys("worse linear")
    wait(lambda: len(verdicts.find_elements(By.CSS_SELECTOR, "tbody tr:not([hidden])")) == 1)
    page.find_element(By.CSS_SELECTOR, "[aria-label='Download as CSV: Verdicts']").click()
    rows = list(csv.DictReader(saved("verdicts.csv").decode().splitlines()))
    assert [row["option"] for row in rows] == ["linear"] and rows[0]["verdict"] == "▲ worse"
    assert float(rows[0]["Δ loss"]) == pytest.approx(0.2, abs=0.02)
    assert not errors(page)


def test_no_downloaded_cell_is_a_formula(browser: Any, tmp_path: Path) -> None:
    for seed in (1, 2):
        write_run(tmp_path, DEFAULT, seed, 1.7 + seed / 1000)
        write_run(tmp_path, DEFAULT | {"norm": "=1+1"}, seed, 1.6 + seed / 1000)
    report = compare([tmp_path], console=Console(quiet=True))
    browser.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    browser.get(report.as_uri())
    browser.find_element(By.CSS_SELECTOR, "[aria-label='Download as CSV: Verdicts']").click()
    wait(lambda: (tmp_path / "verdicts.csv").exists())
    rows = list(csv.DictReader((tmp_path / "verdicts.csv").read_text().splitlines()))
    assert [row["option"] for row in rows] == ["rmsnorm baseline", "'=1+1"]
    assert float(rows[1]["Δ loss"]) < 0, "a negative number is no formula"


def test_a_job_gives_its_folder_and_its_command(page: Any, report: Path) -> None:
    row = page.find_element(By.CSS_SELECTOR, "#table tbody tr")
    link = row.find_element(By.CSS_SELECTOR, "a")
    assert link.get_attribute("href") == f"{report.parent.as_uri()}/{link.text}/"
    scrolled_to(page, row.find_element(By.CSS_SELECTOR, ".copy")).send_keys(Keys.ENTER)
    wait(lambda: page.find_element(By.ID, "command").is_displayed())
    shown = page.find_element(By.CSS_SELECTOR, "#command code").text
    assert shown.startswith("modgpt train ") and "seed=" in shown
    assert page.execute_async_script("navigator.clipboard.readText().then(arguments[0])") == shown
    assert not errors(page)


def test_the_keyboard_reaches_the_verdicts_and_shows_where_it_is(page: Any) -> None:
    page.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    seen = []
    for _ in range(10):
        active = page.switch_to.active_element
        seen.append(active.accessible_name)
        style = page.execute_script("return getComputedStyle(arguments[0]).outlineStyle", active)
        assert style != "none", f"no focus is visible on {seen[-1]}"
        active.send_keys(Keys.TAB)
    assert {"Filter: Verdicts", "Download as CSV: Verdicts", "Verdicts", "verdict"} <= set(seen)


def test_an_open_page_loads_itself_again_and_keeps_its_place(browser: Any, tmp_path: Path) -> None:
    write_sweep(tmp_path, losses(CELLS[:6], seeds=[1, 2]), curves=True)
    write_run(tmp_path, DEFAULT, 8, None, status="running", final_step=10, curves=True)
    found = read_comparison([tmp_path])
    report = write_comparison(found, tmp_path, refresh=5)
    opened(browser, report, 1280)
    assert "every 5 s" in browser.find_element(By.ID, "live").text
    browser.execute_script("window.old = true")
    header(browser, "pos")[1].find_element(By.TAG_NAME, "button").send_keys(Keys.ENTER)
    opened_filters(browser)
    browser.find_element(By.CSS_SELECTOR, 'fieldset[data-factor="ffn"] input[value="swiglu"]').click()
    Select(browser.find_element(By.ID, "colour")).select_by_value("status")
    browser.execute_script("scrollTo(0, 700)")
    write_run(tmp_path, DEFAULT, 9, 1.7, curves=True)
    write_comparison(read_comparison([tmp_path]), tmp_path, refresh=None)
    wait(lambda: not browser.execute_script("return window.old") and drawn(browser))
    # The browser itself may move it a little, to keep what is read in its place.
    wait(lambda: abs(browser.execute_script("return scrollY") - 700) < 60)
    assert header(browser, "pos")[1].get_attribute("aria-sort") == "ascending"
    boxes = 'fieldset[data-factor="ffn"] input[value="swiglu"]'
    assert not browser.find_element(By.CSS_SELECTOR, boxes).is_selected()
    assert "of 14 jobs" in browser.find_element(By.ID, "showing").text
    assert Select(browser.find_element(By.ID, "colour")).first_selected_option.text == "status"
    assert not errors(browser)


def test_a_page_that_nobody_writes_any_more_says_so(browser: Any, tmp_path: Path) -> None:
    write_sweep(tmp_path, losses(CELLS[:2], seeds=[1, 2]), curves=True)
    write_run(tmp_path, DEFAULT, 8, None, status="running", final_step=10)
    report = write_comparison(read_comparison([tmp_path]), tmp_path, refresh=5)
    text = report.read_text(encoding="utf-8")
    report.write_text(re.sub(r'"made":[\d.]+', '"made":1700000000', text), encoding="utf-8")
    opened(browser, report, 1280)
    assert "Nothing has written this page" in browser.find_element(By.ID, "live").text


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
