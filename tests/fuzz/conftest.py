"""One template and one warm process for all command lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.fuzz.children import Children, Ended
from tests.fuzz.verdict import complaint, report
from tests.fuzz.world import make_template, make_world, snapshot

Check = Callable[[list[str], Path], Ended]


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_template(tmp_path_factory.mktemp("template"))


@pytest.fixture(scope="session")
def children() -> Iterator[Children]:
    with Children() as warm:
        yield warm


@pytest.fixture(scope="session")
def check(children: Children, template: Path) -> Check:
    """Run a line in a copy of the template below a folder, and hold it to the verdict."""

    def run(line: list[str], folder: Path) -> Ended:
        world = make_world(template, folder / "work")
        before = snapshot(world)
        ended = children.run(line, world)
        why = complaint(line, ended, before, snapshot(world))
        if why is not None:
            pytest.fail(report(line, ended, why), pytrace=False)
        return ended

    return run
