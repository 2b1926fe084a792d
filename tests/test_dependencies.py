"""What the package imports is what pyproject.toml asks for, so that a plain installation runs."""

from __future__ import annotations

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# Which extra a room may use besides the plain installation; nothing for every other room.
EXTRAS = {
    "modgpt/compare": {"report"},
    "modgpt/query": {"query"},
    "modgpt/data/sources/pieces.py": {"data"},
    "modgpt/data/named.py": {"data"},
    "modgpt/inference/evaluation/figures.py": {"report"},
    "modgpt/inference/evaluation/report.py": {"report"},
    "modgpt/training/rate_report.py": {"report"},
    "modgpt/huggingface": {"hf"},
    "modgpt/training/trackers/comet.py": {"comet"},
    "modgpt/training/trackers/mlflow.py": {"mlflow"},
    "modgpt/training/trackers/trackio.py": {"trackio"},
    "modgpt/training/trackers/wandb.py": {"wandb"},
    "modgpt/sweep/search": {"optuna"},
    "modgpt/sweep/engines/ray_tasks.py": {"ray"},
    "modgpt/sweep/engines/hydra_launcher.py": {"slurm"},
    "modgpt/sweep/requeue.py": {"slurm"},
}


def declared(extras: set[str]) -> set[str]:
    lines = PROJECT["dependencies"] + [
        line for extra in extras for line in PROJECT["optional-dependencies"][extra]
    ]
    return {canonicalize_name(Requirement(line).name) for line in lines}


def imports(path: Path) -> set[str]:
    """The packages that a file imports anywhere, those of Python and of the project left out."""
    names = set[str]()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    own = sys.stdlib_module_names | {"modgpt", "hydra_plugins"}
    return {name.split(".")[0] for name in names} - own


@pytest.mark.parametrize("package", ["modgpt", "hydra_plugins"])
def test_every_import_is_declared(package: str) -> None:
    distributions = packages_distributions()
    missing = []
    for path in sorted((ROOT / package).rglob("*.py")):
        relative = path.relative_to(ROOT)
        extras = {
            extra
            for place, names in EXTRAS.items()
            if relative == Path(place) or Path(place) in relative.parents
            for extra in names
        }
        allowed = declared(extras)
        for name in sorted(imports(path)):
            if not {canonicalize_name(d) for d in distributions.get(name, [name])} & allowed:
                missing.append(f"{relative} imports {name}: declare it in pyproject.toml")
    assert not missing, "\n".join(missing)
