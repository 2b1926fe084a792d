"""Optimizers, each held to the algorithm in its paper; decay groups; schedules."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any, cast

import pytest
import torch
from hydra.utils import get_method
from omegaconf import OmegaConf
from torch import Tensor, nn

from modgpt import build_model, compose
from modgpt.config.search import option_node, options
from modgpt.model.attention.gated_delta import GatedDeltaAttention
from modgpt.model.attention.kda import KimiDeltaAttention
from modgpt.model.attention.mamba2 import Mamba2Attention
from modgpt.model.ffn.moe import MixtureOfExperts
from modgpt.model.ffn.swiglu import SwiGLUFeedForward
from modgpt.model.gpt import GPT
from modgpt.training.optimizers import adamw, muon
from modgpt.training.optimizers.orthogonal import Muon
from modgpt.training.optimizers.orthogonalization import MINIMAX, orthogonalized
from modgpt.training.optimizers.schedule_free import ScheduleFree, gradient_point
from modgpt.training.optimizers.stepping import Together
from modgpt.training.optimizers.weights import dimensions
from modgpt.training.schedules import WARMUP, constant, cosine, linear, wsd
from tests.training import optimizer_definitions as definitions

# --- every option -----------------------------------------------------------------------------------

OPTIONS = options("optimizer")
every_option = pytest.mark.parametrize("option", OPTIONS)
# The definitions of options that are for the matrices of the blocks, beside AdamW.
OF_MATRICES = {"muon": definitions.muon, "normuon": definitions.muon, "soap": definitions.soap}
STEPS = 20
VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((option, {}) for option in OPTIONS),
    ("adamw", {"cautious": True}),
    ("ademamix", {"slow_warmup": None}),
    ("ademamix", {"slow_warmup": 4}),
    ("muon", {"orthogonalization": "polar_express"}),
    ("normuon", {"orthogonalization": "polar_express"}),
    # Before the ninth step some covariances have fewer gradients than rows, and no unique eigenvectors.
    ("soap", {"frequency": 9}),
    ("soap", {"frequency": 9, "largest_side": 17}),
]


def knobs_of(option: str, **changes: Any) -> tuple[Callable[..., torch.optim.Optimizer], dict[str, Any]]:
    """The function that an option's YAML names, and its arguments."""
    node = option_node("optimizer", option)
    node["trainer"] = {"max_steps": STEPS}
    knobs = cast("dict[str, Any]", OmegaConf.to_container(node, resolve=True))
    del knobs["trainer"], knobs["_partial_"]
    assert not changes.keys() - knobs.keys()
    return get_method(knobs.pop("_target_")), knobs | changes


def optimizer_of(option: str, model: nn.Module, **changes: Any) -> torch.optim.Optimizer:
    """An option's optimizer, as a run builds it."""
    function, knobs = knobs_of(option, **changes)
    return function(model, **knobs)


@cache
def original() -> GPT:
    parts = ["ffn=moe", "ffn.n_experts=2", "ffn.top_k=1", "ffn.expert.bias=true", "attention.bias=true"]
    sizes = ["model.d_model=16", "model.n_heads=2", "model.n_layers=1", "attention.n_kv_heads=1"]
    return build_model(compose([*parts, *sizes, "model.init_std=0.3"]), vocab_size=5)


def mixture(dtype: torch.dtype = torch.float32) -> GPT:
    """A layer with fused projections, stacked experts, and biases of both: always the same weights."""
    return copy.deepcopy(original()).to(dtype)


def give_gradients(model: nn.Module, seed: int) -> None:
    """Random gradients, small and large ones."""
    random = torch.Generator().manual_seed(seed)
    for n, p in enumerate(model.parameters()):
        p.grad = (10.0 ** (n % 3 - 1) * torch.randn(p.shape, generator=random)).to(p.dtype)


@pytest.mark.parametrize(("option", "changes"), VARIANTS, ids=str)
def test_steps_are_those_of_the_paper(option: str, changes: dict[str, Any]) -> None:
    """Steps with falling rates in fp64: every weight, and every projection of a fused one."""
    model, start = mixture(torch.float64), mixture(torch.float64)
    optimizer = optimizer_of(option, model, **changes)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / STEPS)
    gradients: list[dict[str, Tensor]] = []
    first: dict[str, Any] = {}
    for step in range(STEPS):
        give_gradients(model, step)
        own = {n: cast("Tensor", p.grad) for n, p in model.named_parameters()}
        own |= projections_of_gradients(model)
        gradients.append({n: g.clone() for n, g in own.items()})
        optimizer.step()
        schedule.step()
        if option == "soap" and step == 0:
            first = first_bases(model, cast("Together", optimizer), gradients[0])
    _, knobs = knobs_of(option, **changes)
    decay, lr = knobs.pop("weight_decay"), knobs.pop("lr")
    lr_of_others, adam = knobs.pop("adamw_lr", lr), {k: knobs[k] for k in ("beta1", "beta2")}
    if option in ("muon", "normuon"):
        knobs = {k: v for k, v in knobs.items() if k not in adam}

    def compare(name: str, w: Tensor, define: Any, rate: float, decay: float, arguments: Any) -> None:
        rates = [rate * (1 - step / STEPS) for step in range(STEPS)]
        # Muon's polynomials are in bf16.
        tolerance = 0.02 * sum(rates) if define is definitions.muon else 1e-9
        wanted = define(before[name].detach(), [g[name] for g in gradients], rates, decay, **arguments)
        assert (w - wanted).abs().max() < tolerance, name

    before = dict(start.named_parameters()) | projections(start)
    for name, p in model.named_parameters():
        its_decay = decay if dimensions(model)[p] >= 2 else 0.0
        if option not in OF_MATRICES:
            compare(name, p, getattr(definitions, option), lr, its_decay, knobs)
        elif not name.startswith("blocks.") or its_decay == 0:
            compare(name, p, definitions.adamw, lr_of_others, its_decay, adam)
    for name, matrix in projections(model).items() if option in OF_MATRICES else ():
        more = {"first": first[name]} if first else {}
        compare(name, matrix, OF_MATRICES[option], lr, decay, knobs | more)


def first_bases(
    model: GPT, optimizer: Together, gradients: dict[str, Tensor]
) -> dict[str, tuple[Tensor | None, Tensor | None]]:
    """SOAP's first eigenbases of every projection, checked to be eigenvectors, the largest first."""
    state = optimizer.members[0].state
    attention, ffn = model.blocks[0].attention, model.blocks[0].ffn
    found = {"attention.out": state[attention.out.weight]["bases"][0]}
    found |= dict(zip("qkv", state[attention.qkv.weight]["bases"], strict=True))
    found["router"] = state[ffn.router.weight]["bases"][0]
    for e in range(ffn.n_experts):
        for n, name in enumerate(("gate", "up")):
            both = state[ffn.experts.gate_up.weight]["bases"][n]
            found[f"{name} {e}"] = [None if q is None else q[e] for q in both]
        down = state[ffn.experts.down.weight]["bases"][0]
        found[f"down {e}"] = [None if q is None else q[e] for q in down]
    for name, both in found.items():
        g = gradients[name]
        for q, covariance in zip(both, (g @ g.T, g.T @ g), strict=True):
            if q is not None:
                values = torch.linalg.eigvalsh(covariance).flip(0)
                torch.testing.assert_close(q.T @ q, torch.eye(len(q)).to(q))
                torch.testing.assert_close(
                    q.T @ covariance @ q, torch.diag(values), rtol=0, atol=1e-10 * float(values[0])
                )
    return {name: (both[0], both[1]) for name, both in found.items()}


class Quadratic(nn.Module):
    """‖W − T‖² + ‖b − s‖², with W where the matrices of the blocks are."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Linear(8, 6)
        torch.manual_seed(0)
        self.targets = [torch.randn_like(p) for p in self.parameters()]

    def loss(self) -> Tensor:
        pairs = zip(self.parameters(), self.targets, strict=True)
        return torch.stack([(p - target).square().sum() for p, target in pairs]).sum()


@every_option
def test_a_quadratic_falls(option: str) -> None:
    model = Quadratic()
    rates = [key for key in knobs_of(option)[1] if key.endswith("lr")]
    optimizer = optimizer_of(option, model, weight_decay=0.0, **dict.fromkeys(rates, 0.05))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 200)
    start = model.loss().item()
    for _ in range(200):
        optimizer.zero_grad()
        with gradient_point(optimizer):
            model.loss().backward()
        optimizer.step()
        schedule.step()
    assert model.loss().item() < 0.05 * start


@every_option
def test_vectors_do_not_decay(option: str) -> None:
    """Without gradients, decay is all that a step does."""
    model = mixture(torch.float64)
    optimizer = optimizer_of(option, model, weight_decay=0.5)
    before, counted = copy.deepcopy(model), dimensions(model)
    for _ in range(2):  # the first step of SOAP changes nothing
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        optimizer.step()
    for (name, new), old in zip(model.named_parameters(), before.parameters(), strict=True):
        assert torch.equal(new, old) == (counted[new] < 2), name
        if counted[new] >= 2:
            assert new.norm() < old.norm(), name
    assert all(g["weight_decay"] in (0, 0.5) for g in optimizer.param_groups)
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters()), "each parameter once"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@every_option
def test_a_loaded_state_goes_on_with_the_same_bits(option: str, dtype: torch.dtype) -> None:
    model = mixture(dtype)
    optimizer = optimizer_of(option, model, lr=0.01)
    for step in range(12):  # SOAP turns its bases in the eleventh
        give_gradients(model, step)
        optimizer.step()
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    other = copy.deepcopy(model)
    loaded = optimizer_of(option, other, lr=0.01)
    loaded.load_state_dict(torch.load(file, weights_only=True))
    for step in range(12, 22):
        for each, its in ((model, optimizer), (other, loaded)):
            give_gradients(each, step)
            its.step()
    for (name, p), q in zip(model.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(p, q), name
        assert p.isfinite().all(), name


@every_option
def test_every_group_follows_the_schedule(option: str) -> None:
    optimizer = optimizer_of(option, mixture())
    before = [group["lr"] for group in optimizer.param_groups]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (step + 1))
    optimizer.step()
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [lr / 2 for lr in before]


BAD = [
    (option, key, value)
    for option in OPTIONS
    for key, default in knobs_of(option)[1].items()
    if type(default) in (int, float)
    for value in ((-1.0, math.nan) if isinstance(default, float) else (0,))
]


@pytest.mark.parametrize(("option", "key", "value"), BAD)
def test_bad_numbers_are_refused(option: str, key: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^optimizer\.{key} must .*, got {value}$"):
        optimizer_of(option, mixture(), **{key: value})
    if "beta" in key or key == "momentum":
        with pytest.raises(ValueError, match=rf"^optimizer\.{key} must lie in \[0, 1\), got 1\.0$"):
            optimizer_of(option, mixture(), **{key: 1.0})


@pytest.mark.parametrize("option", ["muon", "normuon"])
def test_an_unknown_orthogonalization_is_refused(option: str) -> None:
    text = "optimizer.orthogonalization must be newton_schulz or polar_express, got 'svd'"
    with pytest.raises(ValueError, match=text):
        optimizer_of(option, mixture(), orthogonalization="svd")


# --- what single options promise --------------------------------------------------------------------


def test_polar_express_has_the_best_polynomials() -> None:
    for ours, wanted in zip(MINIMAX, definitions.polar_express(0.001, 5), strict=True):
        assert ours == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(
    ("method", "smallest", "lowest", "highest"),
    [("newton_schulz", 2e-3, 0.66, 1.23), ("polar_express", 1e-3, 0.82, 1.15)],
)
def test_orthogonalised_singular_values(
    method: str, smallest: float, lowest: float, highest: float
) -> None:
    """Those that the docstring says, for singular values from `smallest` of the norm on."""
    left, _, right = torch.linalg.svd(torch.randn(64, 96), full_matrices=False)
    sizes = torch.logspace(0, math.log10(smallest), 64)
    matrix = left @ torch.diag(sizes / sizes.norm()) @ right
    sizes = sizes / sizes.norm()
    got = torch.linalg.svdvals(orthogonalized(matrix[None], method)[0].float())
    reached = int((sizes >= smallest).sum())
    assert got[-1] > 0 and got.max() < highest and got.sort(descending=True).values[reached - 1] > lowest
    torch.testing.assert_close(
        orthogonalized(matrix.T[None], method)[0], orthogonalized(matrix[None], method)[0].T
    )


def test_normuon_gives_every_neuron_the_same_size() -> None:
    """Without memory, exactly; the update as a whole keeps its norm."""
    one, other, start = mixture(), mixture(), projections(mixture())
    knobs = {"weight_decay": 0.0, "lr": 1.0}
    optimizers = (
        optimizer_of("normuon", one, neuron_beta=0.0, **knobs), optimizer_of("muon", other, **knobs),
    )  # fmt: skip
    for model, optimizer in zip((one, other), optimizers, strict=True):
        give_gradients(model, 0)
        optimizer.step()
    for name, new in projections(one).items():
        update, plain = new - start[name], projections(other)[name] - start[name]
        torch.testing.assert_close(update.norm(), plain.norm(), rtol=1e-3, atol=0)
        sizes = update.norm(dim=1)
        torch.testing.assert_close(sizes, sizes.mean().expand_as(sizes), rtol=1e-3, atol=0)


def test_schedule_free_weights_are_the_average_but_for_the_gradient() -> None:
    model = mixture(torch.bfloat16)  # in which z + (x − z) is not x
    optimizer = optimizer_of("schedule_free", model, lr=0.1)
    assert isinstance(optimizer, ScheduleFree)
    for step in range(3):
        give_gradients(model, step)
        optimizer.step()
    average = copy.deepcopy(model)
    with pytest.raises(KeyError), gradient_point(optimizer):
        for p, x in zip(model.parameters(), average.parameters(), strict=True):
            y = 0.1 * optimizer.state[p]["z"].float() + 0.9 * x.float()
            torch.testing.assert_close(p.float(), y, rtol=0.01, atol=1e-3)
            assert not torch.equal(p, x)
        raise KeyError
    assert all(torch.equal(p, x) for p, x in zip(model.parameters(), average.parameters(), strict=True))


# --- groups and schedules ---------------------------------------------------------------------------


def test_only_matrices_decay() -> None:
    parts = ["ffn=moe", "ffn.expert.bias=true", "attention.bias=true", "norm=scalenorm"]
    model = build_model(compose(parts), vocab_size=5)
    optimizer = adamw(model, lr=1e-3, weight_decay=0.1, beta1=0.9, beta2=0.99)
    decayed, others = optimizer.param_groups
    assert decayed["weight_decay"] == 0.1 and others["weight_decay"] == 0
    assert all(p.dim() >= 2 for p in decayed["params"])
    names = {id(p): name for name, p in model.named_parameters()}
    assert not any(names[id(p)].endswith("bias") for p in decayed["params"])
    assert all(p.dim() < 2 or names[id(p)].endswith("bias") for p in others["params"])
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters()), "each parameter once"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"lr": -1.0}, "optimizer.lr must not be negative, got -1.0"),
        ({"weight_decay": -0.1}, "optimizer.weight_decay"),
        ({"beta1": 1.0}, r"optimizer.beta1 must lie in \[0, 1\), got 1.0"),
        ({"beta2": -0.5}, "optimizer.beta2"),
    ],
)
def test_optimizer_arguments(arguments: dict[str, float], text: str) -> None:
    good = {"lr": 1e-3, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.99}
    with pytest.raises(ValueError, match=text):
        adamw(build_model(compose([]), vocab_size=5), **(good | arguments))


def test_cosine() -> None:
    def at(step: int) -> float:
        return cosine(step, warmup_steps=10, max_steps=110, final=0.1)

    assert [at(0), at(4), at(9)] == pytest.approx([1 / 11, 5 / 11, 10 / 11])
    assert at(10) == pytest.approx(1)
    assert at(60) == pytest.approx(0.55)  # half way down
    assert at(35) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2)
    assert at(110) == at(500) == pytest.approx(0.1)
    values = [at(step) for step in range(10, 111)]
    assert values == sorted(values, reverse=True)


def test_constant() -> None:
    assert constant(0, warmup_steps=0, max_steps=9) == 1
    assert constant(0, warmup_steps=3, max_steps=9) == pytest.approx(0.25)
    assert constant(1000, warmup_steps=3, max_steps=9) == 1


SCHEDULES: list[Callable[..., float]] = [
    constant,
    partial(cosine, final=0.1),
    partial(linear, final=0.0),
    partial(wsd, final=0.0, decay_share=0.4),
]
by_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=["constant", "cosine", "linear", "wsd"])


@by_schedule
def test_the_warm_up_is_a_share_of_the_steps(schedule: Callable[..., float]) -> None:
    for max_steps, length in ((700, 49), (100, 7), (40, 3), (1, 0)):
        by_share = [schedule(step, max_steps=max_steps) for step in range(max_steps)]
        by_steps = [schedule(s, max_steps=max_steps, warmup_steps=length) for s in range(max_steps)]
        assert by_share == by_steps
    assert schedule(0, max_steps=10, warmup=0.5) == pytest.approx(1 / 6)
    assert schedule(0, max_steps=10, warmup=0.99) > 0, "always room for one step"


@by_schedule
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"warmup": 1.0}, r"schedule.warmup must lie in \[0, 1\), got 1.0"),
        ({"warmup": -0.1}, r"schedule.warmup must lie in \[0, 1\), got -0.1"),
        ({"warmup_steps": -1}, "schedule.warmup_steps must not be negative, got -1"),
        ({"warmup_steps": 20}, "schedule.warmup_steps=20 must be below trainer.max_steps=20"),
        (
            {"warmup": 0.1, "warmup_steps": 5},
            r"schedule.warmup=0.1 \(2 of trainer.max_steps=20\) and schedule.warmup_steps=5 contradict",
        ),
    ],
)
def test_warm_ups_that_are_refused(
    schedule: Callable[..., float], arguments: dict[str, float], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        schedule(0, max_steps=20, **arguments)


def test_warm_ups_that_agree() -> None:
    assert constant(0, max_steps=20, warmup=0.1, warmup_steps=2) == pytest.approx(1 / 3)


@pytest.mark.parametrize("option", options("schedule"))
def test_every_schedule_has_the_same_default_warm_up(option: str) -> None:
    node = compose([f"schedule={option}", "trainer.max_steps=40"]).schedule
    assert (node.warmup, node.warmup_steps, node.max_steps) == (WARMUP, None, 40)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"final": 1.5}, r"schedule.final must lie in \[0, 1\], got 1.5"),
    ],
)
def test_schedule_arguments(arguments: dict[str, float], text: str) -> None:
    good = {"warmup_steps": 5, "max_steps": 20, "final": 0.1}
    with pytest.raises(ValueError, match=text):
        cosine(0, **(good | arguments))  # type: ignore[arg-type]


def test_linear_and_wsd() -> None:
    assert linear(10, warmup_steps=10, max_steps=110, final=0.2) == pytest.approx(1)
    assert linear(60, warmup_steps=10, max_steps=110, final=0.2) == pytest.approx(0.6)
    assert linear(110, warmup_steps=10, max_steps=110, final=0.2) == pytest.approx(0.2)

    def at(step: int) -> float:
        return wsd(step, warmup_steps=10, max_steps=100, final=0.0, decay_share=0.4)

    assert at(4) == pytest.approx(5 / 11)
    assert at(10) == at(60) == 1, "stable"
    assert at(80) == pytest.approx(0.5) and at(100) == 0
    with pytest.raises(ValueError, match=r"schedule\.decay_share must lie in"):
        wsd(0, warmup_steps=1, max_steps=10, final=0, decay_share=0)


MUON = {
    "lr": 0.02, "weight_decay": 0.1, "momentum": 0.95, "adamw_lr": 6e-3, "beta1": 0.9, "beta2": 0.99,
}  # fmt: skip


def test_muon_takes_the_matrices_of_the_blocks() -> None:
    parts = [
        "ffn=moe",
        "ffn.expert.bias=true",
        "attention.bias=true",
        "pos=learned",
        "model.tied_head=false",
    ]
    model = build_model(compose(parts), vocab_size=5)
    optimizer = muon(model, **MUON)
    names = {id(p): name for name, p in model.named_parameters()}
    matrices, decayed, others = ([names[id(p)] for p in g["params"]] for g in optimizer.param_groups)
    assert all(name.startswith("blocks.") and name.endswith("weight") for name in matrices)
    assert {name.split(".", 2)[2] for name in matrices} == {
        "attention.qkv.weight", "attention.out.weight", "ffn.router.weight",
        "ffn.experts.gate_up.weight", "ffn.experts.down.weight",
    }  # fmt: skip
    assert set(decayed) == {"embedding.weight", "head.weight", "pos.table.weight"}
    assert sorted(matrices + decayed + others) == sorted(names.values()), "each parameter once"


def projections(model: GPT) -> dict[str, Tensor]:
    """The first block's projections, one matrix each, by hand: views of the weights."""
    attention, ffn = model.blocks[0].attention, model.blocks[0].ffn
    named = {"attention.out": attention.out.weight}
    h, d = attention.n_heads, attention.head_dim
    rows = {"q": h * d, "k": attention.n_kv_heads * d, "v": attention.n_kv_heads * d}
    if isinstance(attention, KimiDeltaAttention):
        named["alpha"], named["beta"] = attention.gates.weight.split([d, h])
        named["alpha up"] = attention.decay_up.weight
    elif isinstance(attention, GatedDeltaAttention):
        named["alpha"], named["beta"] = attention.gates.weight.chunk(2)
    elif isinstance(attention, Mamba2Attention):
        named["step"], named["z"] = attention.steps.weight, attention.z.weight
        rows = {"q": d, "k": d, "v": h * d}
    named |= zip(rows, attention.qkv.weight.split(list(rows.values())), strict=True)
    if isinstance(ffn, MixtureOfExperts):
        named["router"] = ffn.router.weight
        for e in range(ffn.n_experts):
            named[f"gate {e}"], named[f"up {e}"] = ffn.experts.gate_up.weight[e].chunk(2)
            named[f"down {e}"] = ffn.experts.down.weight[e]
    elif isinstance(ffn, SwiGLUFeedForward):
        named["gate"], named["up"] = ffn.gate_up.weight.chunk(2)
        named["down"] = ffn.down.weight
    else:
        named["up"], named["down"] = ffn.up.weight, ffn.down.weight
    return named


@pytest.mark.parametrize(
    "parts",
    [
        [],
        ["ffn=standard", "attention.n_kv_heads=2", "attention=linear"],
        ["ffn=moe", "ffn.n_experts=4"],
        ["attention=gated_delta"],
        ["attention=mamba2"],
        ["attention=kda"],
    ],
    ids=str,
)
def test_muon_orthogonalises_each_projection(parts: list[str]) -> None:
    """Fused, q and k would get almost nothing: their gradients are far smaller than v's at the start."""
    model = build_model(compose([*parts, "model.init_std=0.1"]), vocab_size=5)
    before = {name: p.detach().clone() for name, p in projections(model).items()}
    optimizer = muon(model, **(MUON | {"weight_decay": 0.0}))
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    for n, gradient in enumerate(projections_of_gradients(model).values()):
        # Full rank, singular values within a factor of ten, projections of very different sizes.
        left, _, right = torch.linalg.svd(torch.randn(gradient.shape), full_matrices=False)
        sizes = torch.logspace(0, -1, left.shape[1])
        gradient.copy_(10.0 ** -(n % 4) * left @ torch.diag(sizes) @ right)
    optimizer.step()
    for name, p in projections(model).items():
        rows, columns = p.shape
        update = (before[name] - p.detach()) / (0.02 * math.sqrt(max(1, rows / columns)))
        values = torch.linalg.svdvals(update)
        assert values.min() > 0.6 and values.max() < 1.3, (name, values.min(), values.max())


def projections_of_gradients(model: GPT) -> dict[str, Tensor]:
    """The gradients of `projections`, as views."""
    gradients = copy.deepcopy(model)
    for p, own in zip(gradients.parameters(), model.parameters(), strict=True):
        p.data = cast("Tensor", own.grad)
    return {name: p.detach() for name, p in projections(gradients).items()}


def test_muon_is_that_of_torch_for_single_matrices() -> None:
    """Two steps on matrices that are not fused, wide, tall and square."""
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape)) for shape in ((8, 24), (24, 8), (16, 16))]
    theirs = [nn.Parameter(p.detach().clone()) for p in ours]
    options = {"lr": 0.05, "weight_decay": 0.1, "momentum": 0.9}
    optimizers = Muon(ours, {}, **options), torch.optim.Muon(theirs, **options)
    for _ in range(2):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = other.grad = torch.randn(one.shape)
        for optimizer in optimizers:
            optimizer.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-3)  # the iteration is in bf16


def test_optimizers_together_are_one() -> None:
    model = build_model(compose([]), vocab_size=5)
    optimizer = muon(model, **MUON)
    assert isinstance(optimizer, Together)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    assert [g["lr"] for m in optimizer.members for g in m.param_groups] == [0.01, 3e-3, 3e-3]
    for _ in range(2):
        for p in model.parameters():
            p.grad = torch.randn_like(p)
        assert optimizer.step(lambda: 3.0) == 3.0
        schedule.step()
    kept = copy.deepcopy(optimizer.state_dict())
    other = muon(model, **MUON)
    other.load_state_dict(kept)
    assert str(other.state_dict()) == str(kept)
    other.param_groups[0]["lr"] = 7.0
    assert other.members[0].param_groups[0]["lr"] == 7.0, "still the members' own groups"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"adamw_lr": -1.0}, "optimizer.adamw_lr must not be negative, got -1.0"),
        ({"momentum": 1.0}, r"optimizer.momentum must lie in \[0, 1\), got 1.0"),
        ({"beta2": 1.0}, r"optimizer.beta2 must lie in \[0, 1\)"),
    ],
)
def test_muon_arguments(arguments: dict[str, float], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        muon(build_model(compose([]), vocab_size=5), **(MUON | arguments))
