"""Pictures of the page of `modgpt play`, for the documentation.

python docs/drawing/play_pictures.py RUN RUN     needs Chromium; writes docs/figures/play_*.png
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # for tests.chromium

from PIL import Image
from selenium.webdriver.common.by import By

from modgpt.inference.play.panels import Player
from modgpt.inference.play.server import PlayServer
from modgpt.runs.folder import load_run
from tests.chromium import chromium

FIGURES = Path(__file__).parents[1] / "figures"
WIDTH, HEIGHT, MOST_SECONDS = 1200, 3000, 120  # high enough for the whole page


def main() -> None:
    parser = argparse.ArgumentParser(description="Pictures of the page of modgpt play.")
    parser.add_argument("runs", nargs="+", type=Path)
    players = [Player(load_run(folder), folder.name) for folder in parser.parse_args().runs]
    with PlayServer(players, "127.0.0.1", 0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with tempfile.TemporaryDirectory() as profile, chromium(Path(profile)) as driver:
            driver.set_window_size(WIDTH, HEIGHT)
            driver.get(server.address)
            for form, answers in (("write", "written"), ("surprise", "surprised"), ("look", "looked")):
                take(driver, form, answers, len(players))
        server.shutdown()


def take(driver: Any, form: str, answers: str, runs: int) -> None:
    """Press the button of a panel, wait for the answers, and save the panel's picture."""
    panel = driver.find_element(By.CSS_SELECTOR, f"section[aria-labelledby=h-{form}]")
    driver.find_element(By.CSS_SELECTOR, f"#{form} button[type=submit]").click()
    started = time.monotonic()
    last = {"write": ".bars .bar", "surprise": ".mean", "look": "canvas"}[form]
    busy = "#go:disabled"
    while time.monotonic() - started < MOST_SECONDS:
        cards = driver.find_elements(By.CSS_SELECTOR, f"#{answers} article:has({last})")
        if len(cards) == runs and not driver.find_elements(By.CSS_SELECTOR, busy):
            break
        time.sleep(0.5)
    time.sleep(0.5)
    drawn = Image.open(io.BytesIO(panel.screenshot_as_png)).convert("RGB")
    drawn.quantize(256, dither=Image.Dither.NONE).save(FIGURES / f"play_{form}.png", optimize=True)
    print(FIGURES / f"play_{form}.png")


if __name__ == "__main__":
    main()
