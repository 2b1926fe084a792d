"""The report as a file: complete, self-contained, and safe whatever the runs are called."""

from __future__ import annotations

import json
import re
import shlex
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from rich.console import Console

from modgpt.compare.comparison import compare
from modgpt.compare.load import LOSS
from modgpt.compare.report.page import vega
from modgpt.compare.report.payload import as_json
from tests.compare.synthetic import (
    DEFAULT,
    EFFECTS,
    OPTIONS,
    grid,
    losses,
    one_at_a_time,
    write_run,
    write_skipped,
    write_sweep,
)

EVIL = "<script>document.title='broken'</script>"


def page(*folders: Path) -> str:
    """The report of some folders, without Vega's own code."""
    text = compare(list(folders), console=Console(quiet=True)).read_text(encoding="utf-8")
    assert text.count(vega()) == 1
    return text.replace(vega(), "VEGA")


def data_of(text: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)
    assert found
    return json.loads(found[1])


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweep")
    cells = grid({"attention": OPTIONS["attention"], "ffn": OPTIONS["ffn"]})
    write_sweep(folder, losses(cells), curves=True)
    write_run(folder, DEFAULT, 9, None, status="failed", reason=f"Error: {EVIL} & 'more'", curves=True)
    write_skipped(folder, DEFAULT | {"attention": "linear"}, 9, "does not fit")
    return folder


@pytest.fixture(scope="module")
def text(sweep: Path) -> str:
    return page(sweep)


def test_nothing_is_loaded_from_elsewhere(sweep: Path, text: str) -> None:
    assert "<script>VEGA</script>" in text
    assert not re.search(r"(?:src|href)\s*=\s*[\"']?(?:https?:)?//", text)
    schema = "https://vega.github.io/schema/"  # the name of a format, which nothing loads
    known = text.replace("http-equiv", "").replace(schema, "")
    assert "@import" not in text and "url(" not in text and "http" not in known
    assert (sweep / "report.html").stat().st_size < 2_000_000


def test_the_head_says_what_was_run_and_what_it_can_tell(text: str) -> None:
    counts = ("<b>27</b> finished", "<b>1</b> failed", "<b>1</b> skipped")
    sentences = ("Seed noise: σ =", "Sizes:", "attention (3), ffn (3)", "The grid is complete")
    for words in (*counts, *sentences, "1 failed or diverged job is missing"):
        assert words in text


def test_there_is_a_row_per_job_and_the_reasons_of_those_that_did_not_finish(text: str) -> None:
    table = text.split('<table id="table"')[1].split("</table>")[0]
    assert table.count("<tr>") == 1 + 29
    failures = text.split('<h2 id="unfinished">')[1]
    assert "does not fit" in failures and "Error:" in failures


def test_what_runs_are_called_cannot_run(tmp_path: Path) -> None:
    for seed, loss in ((1, 1.7), (2, 1.8)):
        made = write_run(tmp_path, DEFAULT | {"pos": EVIL}, 1, loss) if seed == 1 else None
        write_run(tmp_path, DEFAULT, seed, loss, reason=EVIL, device=EVIL, match=EVIL)
        assert made is None or made.exists()
    text = page(tmp_path)
    assert EVIL not in text and "&lt;script&gt;" in text
    assert text.count("<script") == 3 and text.count("</script") == 3
    assert EVIL in json.dumps(data_of(text), ensure_ascii=False)  # and nothing is lost


def test_json_in_a_script_element_stays_json() -> None:
    value = {"a": ["</script><!--", "\u2028", float("nan"), 1.0, None, "ü & <b>"]}
    text = as_json(value)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == {"a": ["</script><!--", "\u2028", None, 1, None, "ü & <b>"]}


def test_the_data_of_the_plots_are_those_of_the_runs(sweep: Path, text: str) -> None:
    data = data_of(text)
    assert len(data["runs"]) == 29
    for run in data["runs"]:
        record = json.loads((sweep / run["name"] / "result.json").read_text())
        assert run["loss"] == (record[LOSS] if record["status"] == "finished" else None)
        assert (run["load"] is not None) == (
            run["choices"]["ffn"] == "moe" and run["status"] == "finished"
        )
        if run["status"] == "finished":
            assert run["per_step"] == 2048 and run["speed"] == record["tokens_per_second"]
            assert run["val"][0] == list(range(100, 701, 100))
            assert run["val"][1][-1] == pytest.approx(record[LOSS], abs=1e-4)
            assert run["flops"] == record["flops_per_token"]
    cells = {run["cell"] for run in data["runs"] if run["status"] == "finished"}
    assert cells == set(range(9))
    failed = next(run for run in data["runs"] if run["status"] == "failed")
    assert failed["cell"] is None and failed["val"][0] and failed["speed"] == 14_000
    (spec,) = data["figures"]["differences"]
    drawn = {
        (row["factor"], row["option"]): row["value"]
        for rows in spec["datasets"].values()
        for row in rows
        if row.get("role") == "option"
    }
    assert drawn["attention", "linear"] == pytest.approx(EFFECTS["attention", "linear"], abs=0.01)


def test_the_rows_of_the_table_are_in_the_order_of_the_data(text: str) -> None:
    table = text.split('<table id="table"')[1].split("</table>")[0]
    names = [unescape(n) for n in re.findall(r"<tr><td><a [^>]*>(.*?)</a></td>", table)]
    assert names == [run["name"] for run in data_of(text)["runs"]]


class Links(HTMLParser):
    """The addresses of links."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if tag == "a" and name == "href"]


def links(text: str) -> list[str]:
    found = Links()
    found.feed(text)
    return [address for address in found.found if not address.startswith("#")]


def test_every_job_links_to_its_folder_and_its_sample(tmp_path: Path) -> None:
    """Relative to the page, so that both can be moved together; whatever the folders are called."""
    top = tmp_path / "java script:alert(1)" / "a%41 <b> #1?"
    runs = write_sweep(top, losses([DEFAULT, DEFAULT | {"ffn": "moe"}], [1, 2]))
    (runs / "flash-moe-rmsnorm-rope-s1" / "sample.txt").write_text("ROMEO: Is the day so young?")
    for out in (tmp_path / "out" / "here", top, tmp_path / "java script:alert(1)"):
        report = compare([runs], out, Console(quiet=True))
        found = links(report.read_text(encoding="utf-8").replace(vega(), ""))
        assert all(address.startswith(("./", "../")) for address in found)
        paths = {(report.parent / unquote(address)).resolve() for address in found}
        folders = {path.resolve() for path in runs.glob("*-s?")}
        assert paths == folders | {(runs / "flash-moe-rmsnorm-rope-s1" / "sample.txt").resolve()}
        assert len(found) == 5


def test_every_job_has_the_command_that_repeats_it(tmp_path: Path) -> None:
    override = "data.path='a b; rm -rf $HOME'"
    write_run(tmp_path, DEFAULT | {"ffn": "moe"}, 3, 1.7, overrides=[override])
    (run,) = data_of(page(tmp_path))["runs"]
    words = shlex.split(run["command"])
    assert words == ["modgpt", "train", "ffn=moe", "seed=3", "threads=1", override]


def test_a_verdict_is_a_word_and_a_sign_and_not_a_colour_alone(text: str) -> None:
    table = text.split('data-name="Verdicts"')[1].split("</table>")[0]
    sign = r'<span class="chip (\w+)"><span aria-hidden="true">(.)</span> ([a-z ]+)</span>'
    chips = re.findall(sign, table)
    assert {(kind, word) for kind, _, word in chips} == {("worse", "worse"), ("open", "cannot tell")}
    assert len({sign for _, sign, _ in chips}) == 2


def test_one_seed_is_a_caution_on_the_first_screen(tmp_path: Path, text: str) -> None:
    unknown = "Seed noise: unknown, because no combination finished with more than one seed."
    single = page(write_sweep(tmp_path, losses(one_at_a_time(), seeds=[1])))
    assert unknown in single.split('class="cautions"')[1].split("</ul>")[0]
    assert unknown not in text


def test_the_page_is_provisional_while_jobs_run(tmp_path: Path, text: str) -> None:
    write_sweep(tmp_path, losses([DEFAULT, DEFAULT | {"ffn": "moe"}]))
    write_run(tmp_path, DEFAULT, 9, None, status="running", final_step=10)
    assert "<b>Provisional:</b> 1 job still runs." in page(tmp_path) and "Provisional" not in text


def test_the_page_is_provisional_while_a_sweep_adds_seeds(tmp_path: Path) -> None:
    write_sweep(tmp_path, losses([DEFAULT, DEFAULT | {"ffn": "moe"}]))
    looks = {"looks": [3], "confidence": 0.97, "same_within": 0.02}
    for complete in (False, True):
        (tmp_path / "until_sure.json").write_text(json.dumps(looks | {"complete": complete}))
        assert ("<b>Provisional:</b> the sweep will add seeds" in page(tmp_path)) is not complete


def test_heat_maps_of_pairs_that_never_met_are_put_away(tmp_path: Path, text: str) -> None:
    assert text.count('<table class="heat data"') == 1 and "not crossed" not in text
    single = page(write_sweep(tmp_path, losses(one_at_a_time())))
    assert single.count('<table class="heat data"') == 6 and "Pairs that were not crossed (6)" in single
    assert "not run" in single and "No test of interactions" in single


@pytest.mark.parametrize("runs", [1, 3])
def test_a_single_combination_has_a_report(tmp_path: Path, runs: int) -> None:
    text = page(write_sweep(tmp_path, losses([DEFAULT], range(runs)), curves=True))
    assert "nothing but the seed" in text and 'id="plot-effects"' not in text
    assert ("descriptive" in text) == (runs == 1)


def test_nothing_finished_has_a_report_too(tmp_path: Path) -> None:
    write_run(tmp_path, DEFAULT, 1, None, status="failed", reason="OutOfMemoryError: 3 GiB")
    write_run(tmp_path, DEFAULT | {"ffn": "moe"}, 1, None, status="running", final_step=None)
    text = page(tmp_path)
    assert "nothing to compare yet" in text and "OutOfMemoryError: 3 GiB" in text


def test_many_curves_are_thinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_sweep(tmp_path, losses([DEFAULT | {"ffn": "moe"}], range(4)), curves=True)
    monkeypatch.setattr("modgpt.compare.report.payload.MOST_POINTS", 80)
    for run in data_of(page(tmp_path))["runs"]:
        assert len(run["train"][0]) == 20 and run["train"][0][-1] == 700
        assert len(run["load"]) == 8 and len(run["load"][0][0]) == 8
