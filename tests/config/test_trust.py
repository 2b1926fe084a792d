"""`check_foreign`: a configuration from a file may hold plain data and the packaged targets, no more."""

from __future__ import annotations

import copy
import sys
from collections import OrderedDict, UserDict
from collections.abc import Callable
from datetime import date
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from omegaconf import DictConfig, OmegaConf

from modgpt.config.compose import compose
from modgpt.config.trust import check_foreign, read_config
from modgpt.errors import UserError

SOURCE = "somewhere/config.yaml"
EVIL = {"_target_": "torch.utils.collect_env.run", "command": "touch canary"}


def saved(*overrides: str) -> dict[str, Any]:
    """A resolved configuration as a run saves it."""
    cfg = compose([*overrides, "model.vocab_size=37"])
    return copy.deepcopy(OmegaConf.to_container(cfg, resolve=True))  # type: ignore[return-value]


@pytest.fixture(scope="module")
def tree() -> dict[str, Any]:
    return saved()


def refusal(tree: Any, **options: Any) -> str:
    """The one line with which a tree is refused."""
    with pytest.raises(UserError) as error:
        check_foreign(tree, SOURCE, **options)
    text = str(error.value)
    assert SOURCE in text and "\n" not in text and len(text) < 600 and text.isprintable(), text
    return text


# --- what it lets through ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("experiment=gpt2",),
        ("experiment=bloom",),
        ("experiment=gpt_neo",),
        ("experiment=olmo2",),
        ("experiment=mixtral", "optimizer=muon"),
        ("attention=hybrid", "pos=none", "schedule=wsd"),
        ("data=recall", "callbacks=profiler", "logger=csv"),
    ],
    ids=str,
)
def test_what_we_save_passes_unchanged(overrides: tuple[str, ...]) -> None:
    tree = saved(*overrides)
    assert OmegaConf.to_container(check_foreign(tree, SOURCE)) == tree


def test_the_tree_itself_stays_as_it_was(tree: dict[str, Any]) -> None:
    before = copy.deepcopy(tree)
    check_foreign(tree, SOURCE).norm.eps = 7
    assert tree == before


# --- targets ----------------------------------------------------------------------------------------

PLACES: dict[str, Callable[[dict[str, Any], Any], Any]] = {
    "value": lambda c, evil: c["norm"].update(eps=evil),
    "group": lambda c, evil: c.update(norm=evil),
    "model": lambda c, evil: c["model"].update(embedding_norm=evil),
    "list": lambda c, evil: c["attention"].update(scale=[evil]),
    "list_of_lists": lambda c, evil: c["attention"].update(scale=[[1, [[evil]]]]),
    "list_of_dicts": lambda c, evil: c["attention"].update(options=[{"a": {"b": [{"c": evil}]}}]),
    "depth_10": lambda c, evil: c["attention"].update(scale=_buried(evil, 10)),
    "top": lambda c, evil: c.update(evil),
    "unknown_key": lambda c, evil: c.update(whatever=evil),
    "empty_key": lambda c, evil: c.update({"": evil}),
    "key_with_dots": lambda c, evil: c["norm"].update({"eps.x.y": evil}),
    "top_key_with_dots": lambda c, evil: c.update({"norm.eps": evil}),
    "number_as_key": lambda c, evil: c["norm"].update({7: evil}),
    "truth_as_key": lambda c, evil: c["norm"].update({True: evil}),
    "defaults": lambda c, evil: c.update(defaults=[{"norm": evil}]),
    "optimizer": lambda c, evil: c["optimizer"].update(lr=evil),
    "callbacks": lambda c, evil: c["callbacks"].update(evil=evil),
    "logger": lambda c, evil: c["logger"].update(evil=evil),
    "trainer": lambda c, evil: c["trainer"].update(strategy=evil),
    "data": lambda c, evil: c["data"].update(path=evil),
    "tokenizer": lambda c, evil: c.update(tokenizer=evil),
    "schedule": lambda c, evil: c.update(schedule=evil),
    "hydra": lambda c, evil: c.update(hydra={"callbacks": {"evil": evil}}),
    "arguments": lambda c, evil: c["norm"].update(_args_=[evil]),
    "behind_a_packaged_target": lambda c, evil: c["norm"].update(x={"y": evil}),
}


def _buried(value: Any, depth: int) -> Any:
    return value if not depth else {"x": _buried(value, depth - 1)}


@pytest.mark.parametrize("place", PLACES)
def test_a_target_is_refused_in_every_place(place: str, tree: dict[str, Any]) -> None:
    tree = copy.deepcopy(tree)
    PLACES[place](tree, dict(EVIL))
    text = refusal(tree)
    assert "collect_env.run" in text or "_args_" in text


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.exec",
        "exec",
        "shutil.copyfile",
        "pathlib.Path.write_text",
        "hydra.utils.get_method",
        "hydra.utils.instantiate",
        "modgpt.training.loop.shutil.copyfile",  # through a module that one of ours imports
        "modgpt.model.gpt.nn.init.normal_",
        "modgpt.files.write_json",  # ours, but no packaged config names it
        "modgpt.config.build.build_model",
        "modgpt.data.tokenizers.saved.Path.write_text",
        "torch.nn.LayerNorm.__init__",
        "torch.nn.LayerNorm.forward",
        "torch.nn.LayerNorm.",
        ".torch.nn.LayerNorm",
        "torch..nn.LayerNorm",
        " torch.nn.LayerNorm",
        "torch.nn.LayerNorm ",
        "torch.nn.LayerNorm\n",
        "torch.nn.LayerNorm\0",
        "torch/nn/LayerNorm",
        "torch.nn.modules.normalization.LayerNorm",  # the same class under another name
        "torch.nn.layernorm",
        "TORCH.NN.LAYERNORM",
        "torch.nn.LayerNоrm",
        "torch.nn.LayerＮorm",
        "torch․nn․LayerNorm",
        "torch.nn.Layer\u200bNorm",
        "torch.nn.\u202eLayerNorm",
        "torch.load",
        "torch.hub.load",
        "",
        ".",
        "__main__.x",
        "\x1b[2Jtorch.nn.LayerNorm",
        "x" * 100_000,
    ],
    ids=lambda t: ascii(t)[:40],
)
def test_a_target_is_taken_word_for_word(target: str, tree: dict[str, Any]) -> None:
    tree = copy.deepcopy(tree)
    tree["norm"]["_target_"] = target
    refusal(tree)


@pytest.mark.parametrize(
    "target",
    [["torch.nn.LayerNorm"], {"_target_": "torch.nn.LayerNorm"}, 7, None, True, 1.5, [], {}],
    ids=str,
)
def test_a_target_is_a_text(target: Any, tree: dict[str, Any]) -> None:
    tree = copy.deepcopy(tree)
    tree["norm"]["_target_"] = target
    refusal(tree)


def test_a_target_counts_only_in_its_group(tree: dict[str, Any]) -> None:
    """A logger as a norm would open a file."""
    tree = copy.deepcopy(tree)
    tree["norm"]["eps"] = copy.deepcopy(next(iter(tree["callbacks"].values())))
    assert tree["norm"]["eps"]["_target_"] in refusal(tree)


@pytest.mark.parametrize(
    "extra",
    [
        {"_args_": [3]},
        {"_args_": []},
        {"_recursive_": False},
        {"_recursive_": True},
        {"_convert_": "x"},
        {"_convert_": {"_target_": "os.system"}},
        {"_partial_": "yes"},
        {"_partial_": [True]},
        {"_partial_": {"_target_": "os.system"}},
        {"_call_": True},
        {"__init__": 1},
        {"_metadata": 1},
        {"_content": {}},
    ],
    ids=str,
)
def test_hydras_own_keys_are_few(extra: dict[str, Any], tree: dict[str, Any]) -> None:
    tree = copy.deepcopy(tree)
    tree["norm"].update(extra)
    refusal(tree)


# --- interpolations ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "${oc.env:HOME}",
        "x${oc.env:HOME}",
        "${ oc.env : HOME }",
        "${oc.decode:'{_target_: os.system}'}",
        "${oc.create:{a: 1}}",
        "${oc.dict.values:model}",
        "${hydra:runtime.cwd}",
        "${now:%Y}",
        "${fit:4096,8}",
        "${optimizer.lr}",
        "${.eps}",
        "${",
        "\\${x}",
        "\\\\${oc.env:HOME}",
        "???",
    ],
)
@pytest.mark.parametrize("place", ["value", "list", "key"])
def test_interpolations_and_missing_values_are_refused(
    text: str, place: str, tree: dict[str, Any]
) -> None:
    if place == "key" and "?" in text:
        pytest.skip("a key of question marks is only a key")
    tree = copy.deepcopy(tree)
    if place == "key":
        tree["norm"][text] = 1
    else:
        tree["norm"]["eps"] = [text] if place == "list" else text
    refusal(tree)


# --- values -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [
        date(2020, 1, 1),
        b"bytes",
        bytearray(b"x"),
        (1, 2),
        {1, 2},
        frozenset({1}),
        1j,
        object(),
        torch.zeros(2),
        torch.float32,
        torch.nn.LayerNorm,
        len,
        lambda: 1,
        Path("x"),
        UserDict({"_target_": "os.system"}),
        OmegaConf.create(EVIL),
        OmegaConf.create([EVIL]),
        range(3),
        ...,
        NotImplemented,
    ],
    ids=lambda v: type(v).__name__,
)
def test_values_are_plain(value: Any, tree: dict[str, Any]) -> None:
    tree = copy.deepcopy(tree)
    tree["norm"]["eps"] = value
    refusal(tree)
    tree["norm"]["eps"] = [[value]]
    refusal(tree)


@pytest.mark.parametrize("key", [(1, 2), None, 1.5, b"x", frozenset(), torch.zeros(1)], ids=repr)
def test_keys_are_plain(key: Any, tree: dict[str, Any]) -> None:
    tree = copy.deepcopy(tree)
    tree["norm"][key] = 1
    refusal(tree)


def test_texts_that_pretend_to_be_others_are_refused(tree: dict[str, Any]) -> None:
    """Subclasses may compare as one text and be read as another."""

    class Two(str):
        def __eq__(self, other: object) -> bool:
            return True

        def __hash__(self) -> int:
            return hash("torch.nn.LayerNorm")

    tree = copy.deepcopy(tree)
    tree["norm"]["_target_"] = Two("os.system")
    refusal(tree)


def test_mappings_of_another_kind_hide_nothing(tree: dict[str, Any]) -> None:
    tree = copy.deepcopy(tree)
    tree["norm"]["eps"] = OrderedDict(EVIL)
    refusal(tree)


@pytest.mark.parametrize("value", [None, 7, "text", [], [EVIL], True, "${oc.env:HOME}"], ids=str)
def test_a_configuration_is_a_mapping(value: Any) -> None:
    refusal(value)


# --- sizes ------------------------------------------------------------------------------------------


def _chain(depth: int, of: Callable[[Any], Any]) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = of(value)
    return value


def _doubled(depth: int) -> Any:
    return _chain(depth, lambda v: [v, v])


def _endless() -> Any:
    value: dict[str, Any] = {}
    value["x"] = [value]
    return value


@pytest.mark.parametrize(
    "make",
    [
        lambda: _chain(100, lambda v: {"x": v}),
        lambda: _chain(100_000, lambda v: {"x": v}),
        lambda: _chain(100_000, lambda v: [v]),
        lambda: _doubled(25),
        lambda: _doubled(200),
        lambda: list(range(200_000)),
        lambda: {f"k{i}": i for i in range(200_000)},
        _endless,
    ],
    ids=["deep", "deeper", "lists", "doubled", "doubled_deep", "long", "wide", "endless"],
)
def test_trees_are_bounded(make: Callable[[], Any], tree: dict[str, Any]) -> None:
    refusal({**tree, "norm": {**tree["norm"], "eps": make()}})


@pytest.mark.parametrize("value", [2**70, 10**400, -(2**64)], ids=lambda v: f"2^{v.bit_length()}")
def test_integers_no_size_has_are_refused_or_kept(value: int, tree: dict[str, Any]) -> None:
    """Never a traceback: the model refuses what it cannot be."""
    tree = copy.deepcopy(tree)
    tree["model"]["n_layers"] = value
    try:
        assert check_foreign(tree, SOURCE).model.n_layers == value
    except UserError as error:
        assert SOURCE in str(error)


def test_long_texts_do_not_fill_the_message(tree: dict[str, Any]) -> None:
    tree = copy.deepcopy(tree)
    tree["norm"]["k" * 10_000] = "${x}" * 10_000
    refusal(tree)


# --- packages of the user's --------------------------------------------------------------------------


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A package with a class and a function of its own, and an import of others'."""
    module = ModuleType("mypackage")
    source = (
        "import os, shutil\nfrom pathlib import Path\nfrom os import system\n"
        "from torch.nn import LayerNorm\n"
        "class Mine:\n    class Inner:\n        pass\n    run = staticmethod(os.system)\n"
        "    def method(self): pass\n"
        "def function(): pass\nalias = Path\ninstance = Mine()\n"
        "class Pretender: pass\nPretender.__module__ = 'os'\n"
    )
    exec(source, module.__dict__)
    monkeypatch.setitem(sys.modules, "mypackage", module)
    return module


def with_target(tree: dict[str, Any], target: str) -> dict[str, Any]:
    return {**tree, "norm": {**tree["norm"], "_target_": target}}


def test_a_class_of_a_package_needs_the_users_word(tree: dict[str, Any], package: ModuleType) -> None:
    own = with_target(tree, "mypackage.Mine")
    assert "--trust mypackage" in refusal(own)
    cfg = check_foreign(own, SOURCE, trust=["mypackage"])
    assert isinstance(cfg, DictConfig) and cfg.norm._target_ == "mypackage.Mine"


@pytest.mark.parametrize(
    "target",
    [
        "mypackage.system",
        "mypackage.os.system",
        "mypackage.shutil.copyfile",
        "mypackage.Path",
        "mypackage.alias",
        "mypackage.Path.write_text",
        "mypackage.LayerNorm",  # imported: not defined there
        "mypackage.Mine.run",
        "mypackage.Mine.__init__",
        "mypackage.Mine.__init__.__globals__",
        "mypackage.Pretender",
        "mypackage.instance",
        "mypackage.missing",
        "mypackage",
        "mypackage.",
        "mypackage..Mine",
        "mypackage2.Mine",
        "mypackag.Mine",
        "os.system",
        "mypackage.__builtins__.exec",
    ],
)
def test_trust_is_for_classes_that_the_package_defines(
    target: str, tree: dict[str, Any], package: ModuleType
) -> None:
    refusal(with_target(tree, target), trust=["mypackage"])


@pytest.mark.parametrize("package_name", ["mypackage", "evil_package"])
def test_a_file_does_not_import_what_is_not_trusted(
    package_name: str, tree: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Importing a module already runs it."""
    canary = tmp_path / "canary"
    (tmp_path / f"{package_name}.py").write_text(f"open({str(canary)!r}, 'w')\nclass Evil: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    refusal(with_target(tree, f"{package_name}.Evil"), trust=["another"])
    assert not canary.exists()


# --- files ------------------------------------------------------------------------------------------


def test_a_file_is_read_as_it_was_written(tree: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree))
    assert OmegaConf.to_container(read_config(path)) == tree


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['touch canary']",
        "x: !!python/name:os.system ''",
        "x: !evil 1",
        "x: &a [*a]",
        "a: 1\na: 2",
        "a: 1\n---\nb: 2",
        "a: [",
        "\t",
        "",
        "x: " + "[" * 50_000,
        "x: " + "{a: " * 50_000,
        "a: &a [x, x]\n" + "\n".join(f"b{i}: &{'ab'[i % 2]} [*a, *a]" for i in range(40)),
        "x: " + "9" * 100_000,
    ],
    ids=range(13),
)
def test_files_of_another_kind_get_one_line(text: str, tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        read_config(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "tree, says",
    [
        ({"model": 3}, "model is a int, not a mapping"),
        ({"callbacks": ["x"]}, "callbacks is a list, not a mapping"),
        ({"callbacks": {"last": 3}}, "callbacks.last is a int, not a mapping"),
        ({"logger": {"csv": None}}, ""),
    ],
)
def test_groups_are_mappings(tree: dict[str, Any], says: str) -> None:
    if not says:
        check_foreign(tree, SOURCE)
        return
    with pytest.raises(UserError, match=says):
        check_foreign(tree, SOURCE)
