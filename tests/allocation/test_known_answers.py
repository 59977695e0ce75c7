# yolo-prune, AGPL-3.0 license
"""Allocation against brute force: three units, every legal plan, the optimum and not merely something that fits.

What is expected is computed here by formulas of this file alone, so that a constant that is changed in the package
(the steepness of a loss, the rounds of the exchange, the weight of a unit) shows as another plan. Pure: no torch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from yolo_prune.allocation.allocate import allocate, lowest_counts, plan_of
from yolo_prune.allocation.costs import Cost, Effect, Latency
from yolo_prune.allocation.units import Head, Part, Unit, loss

# A network of four layers: image (3) -> a -> b -> c -> 5 outputs.
SIZES = (12, 16, 10)
OUTS, INS = np.eye(4, 3), np.eye(4, 3, k=-1)
OUT0, IN0 = np.array([0, 0, 0, 5.0]), np.array([3.0, 0, 0, 0])
AREAS = np.array([576, 144, 144, 36.0])  # multiplications for a channel in and one out
BOTH, OUT, INP = np.array([20, 10, 12, 30.0]), np.array([100, 50, 50, 10.0]), np.array([0, 30, 20, 40.0])
STEP, TAIL = 4, 0.2


def flops_of(n: np.ndarray) -> np.ndarray:
    """(plans,) of (plans, 3) counts."""
    inputs, outputs = n @ INS.T + IN0, n @ OUTS.T + OUT0
    return np.asarray((AREAS * inputs * outputs).sum(-1))


def params_of(n: np.ndarray) -> np.ndarray:
    inputs, outputs = n @ INS.T + IN0, n @ OUTS.T + OUT0
    return np.asarray((9 * inputs * outputs + 2 * outputs).sum(-1))


def latency_of(n: np.ndarray) -> np.ndarray:
    inputs, outputs = n @ INS.T + IN0, n @ OUTS.T + OUT0
    whole_in, whole_out = np.ceil(inputs / STEP) * STEP, np.ceil(outputs / STEP) * STEP
    whole_in[..., 0] = 3  # the image is not rounded
    whole_out = whole_out * np.where(outputs % STEP > 0, 1 + TAIL, 1)
    return np.asarray((BOTH * whole_in * whole_out + OUT * whole_out + INP * whole_in + 7).sum(-1) + 11)


FORMULAS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "FLOPs": flops_of,
    "params": params_of,
    "latency": latency_of,
}


def cost(name: str, limit: float) -> Cost | Latency:
    if name == "latency":
        free = np.array([True, False, False, False])
        return Latency(name, limit, 11.0, BOTH, OUT, INP, np.full(4, 7.0), OUT0, IN0, OUTS, INS, STEP, STEP, TAIL, free)
    per_pair, per_output = (AREAS, np.zeros(4)) if name == "FLOPs" else (np.full(4, 9.0), np.full(4, 2.0))
    return Cost(name, limit, 0.0, per_pair, per_output, OUT0, IN0, OUTS, INS)


def legal(size: int, lowest: int, multiple: int) -> list[int]:
    least = min(-(-lowest // multiple) * multiple, size)
    return [count for count in range(least, size + 1) if count % multiple == 0 or count == size]


def losses(unit: Unit, counts: np.ndarray) -> np.ndarray:
    """(plans,) what a unit loses: its share of importance to the power of -4, its weight on it."""
    kept = np.concatenate([[0], np.cumsum(np.sort(unit.scores[0])[::-1])])[counts.astype(int)]
    return np.asarray(unit.weight * ((kept / unit.scores[0].sum() * unit.size / unit.original) ** -4 - 1) / 4)


def lost(units: Sequence[Unit], counts: np.ndarray) -> np.ndarray:
    return np.sum([losses(unit, counts[..., i]) for i, unit in enumerate(units)], axis=0)


def problem(seed: int) -> list[Unit]:
    """Three units of random scores whose weights differ by some powers of e."""
    rng = np.random.default_rng(seed)
    return [
        Unit((f"u{i}",), s, s, 2, rng.gamma(1.0, 1.0, (1, s)), weight=float(np.exp(rng.normal())), kind=str(i % 2))
        for i, s in enumerate(SIZES)
    ]


def counts_of(units: Sequence[Unit], **arguments: object) -> np.ndarray:
    plan = allocate(units, **arguments)  # type: ignore[arg-type]
    for unit in units:
        kept = plan.keep.get(unit.groups[0], np.arange(unit.size))
        assert set(unit.scores[0][kept]) == set(np.sort(unit.scores[0])[::-1][: len(kept)]), "the best stay"
    return np.array([len(plan.keep.get(unit.groups[0], range(unit.size))) for unit in units], dtype=float)


@pytest.mark.parametrize(
    ("share", "expected"),
    [(1.0, 0.0), (0.5, 3.75), (0.8, (0.8**-4 - 1) / 4), (0.25, 63.75), (1.25, (0.4096 - 1) / 4)],
)
def test_the_loss_of_a_share_is_exact(share: float, expected: float) -> None:
    assert float(loss(share)) == pytest.approx(expected, rel=1e-12)


def test_an_emptied_unit_loses_much_and_not_infinitely_much() -> None:
    assert float(loss(0.0)) == pytest.approx((1e12 - 1) / 4)


def test_what_a_unit_loses_is_exact() -> None:
    unit = Unit(("a",), 4, 8, 1, np.array([[1.0, 4.0, 2.0, 3.0]]), weight=3.0)  # half of it went in an earlier cut
    shares = np.array([1e-3, 0.2, 0.35, 0.45, 0.5])
    assert unit.gain().tolist() == [0, 4, 7, 9, 10]
    assert unit.losses() == pytest.approx(3 * (shares**-4 - 1) / 4)


def test_several_groups_of_a_unit_add_up_each_best_first() -> None:
    scores = [np.array([5.0, 1.0]), np.array([1.0, 2.0, 3.0, 4.0])]  # the second keeps two for one of the first
    assert Unit(("a", "b"), 2, 2, 1, scores, (1, 2)).gain().tolist() == [0, 5 + 4 + 3, 15 + 1]
    plan = plan_of([Unit(("a", "b"), 2, 2, 1, scores, (1, 2))], [1])
    assert {name: kept.tolist() for name, kept in plan.keep.items()} == {"a": [0], "b": [2, 3]}


@pytest.mark.parametrize("name", FORMULAS)
def test_costs_and_their_changes_are_those_of_the_formula(name: str) -> None:
    of = cost(name, 1.0)
    n, step = np.array([7.0, 9.0, 4.0]), np.array([-3.0, 2.0, -1.0])
    assert of(n) == pytest.approx(float(FORMULAS[name](n)), rel=1e-12)
    alone = [float(FORMULAS[name](n + step * (np.arange(3) == u)) - FORMULAS[name](n)) for u in range(3)]
    assert of.change(n, step) == pytest.approx(alone, rel=1e-9)


def test_the_change_is_exact_where_a_layer_reads_what_it_makes() -> None:
    """In a residual stream one unit is output and input of a layer: 3 * a * (a + b), which bends."""
    one, zero = np.ones(1), np.zeros(1)
    of = Cost("FLOPs", 1.0, 0.0, 3 * one, zero, zero, zero, np.array([[1.0, 0.0]]), np.array([[1.0, 1.0]]))
    n, step = np.array([5.0, 2.0]), np.array([-2.0, 4.0])
    assert of(n) == 3 * 5 * 7
    assert of.change(n, step).tolist() == [3 * 3 * 5 - 105, 3 * 5 * 11 - 105]


BOUNDS = [("FLOPs",), ("params",), ("FLOPs", "params"), ("latency",)]
# How far above the optimum the sum of losses may be: at most, and on average of 24 problems. A chunk of one channel
# saves nothing on a device that works in fours, so there a step must leap, and some optima take two leaps at once.
TOLERANCE = {4: (1.02, 1.001), 1: (1.15, 1.02)}
ROUGH = {4: (1.02, 1.001), 1: (1.5, 1.06)}  # latency


@pytest.mark.parametrize("multiple", [4, 1])
@pytest.mark.parametrize("names", BOUNDS, ids="+".join)
def test_global_finds_the_optimum_of_all_legal_plans(names: tuple[str, ...], multiple: int) -> None:
    plans = np.array(list(itertools.product(*(legal(size, 2, multiple) for size in SIZES))), dtype=float)
    full = np.array(SIZES, dtype=float)
    ratios = []
    for seed, share in itertools.product(range(8), (0.3, 0.5, 0.8)):
        units = problem(seed)
        limits = {name: share * float(FORMULAS[name](full)) for name in names}
        fit = np.all([FORMULAS[name](plans) <= limit * (1 + 1e-9) for name, limit in limits.items()], axis=0)
        n = counts_of(units, costs=[cost(*item) for item in limits.items()], scope="global", multiple=multiple)
        assert any((plans[fit] == n).all(axis=1)), "legal, and under every bound"
        ratios.append((float(lost(units, n)) + 1e-9) / (float(lost(units, plans[fit]).min()) + 1e-9))
    most, mean = (ROUGH if "latency" in names else TOLERANCE)[multiple]
    assert len(ratios) == 24
    assert max(ratios) <= most
    assert np.mean(ratios) <= mean
    assert np.mean(np.array(ratios) < 1 + 1e-9) >= 0.75, "most are the optimum itself"


@pytest.mark.parametrize("scope", ["uniform", "global", "isomorphic", "latency"])
@pytest.mark.parametrize("names", BOUNDS, ids="+".join)
def test_no_chunk_that_fits_is_left_out(scope: str, names: tuple[str, ...]) -> None:
    full = np.array(SIZES, dtype=float)
    cut = 0
    for seed, share, multiple in itertools.product(range(3), (0.35, 0.7), (1, 2, 4)):
        units = problem(seed)
        limits = {name: share * float(FORMULAS[name](full)) for name in names}
        guide = cost("latency", np.inf) if scope == "latency" else None
        n = counts_of(units, costs=[cost(*i) for i in limits.items()], scope=scope, multiple=multiple, guide=guide)
        assert all(FORMULAS[name](n) <= limit * (1 + 1e-9) for name, limit in limits.items())
        for u, size in enumerate(SIZES):
            assert n[u] in legal(size, 2, multiple)
            wider = n + np.eye(3)[u] * (min((n[u] // multiple + 1) * multiple, size) - n[u])
            fits = all(FORMULAS[name](wider) <= limit * (1 + 1e-9) for name, limit in limits.items())
            assert n[u] == size or not fits
            cut += n[u] < size
    assert cut > 18


@pytest.mark.parametrize("names", BOUNDS[:3], ids="+".join)  # latency is not monotonous: a broken step costs more
def test_uniform_keeps_the_largest_common_share_that_fits(names: tuple[str, ...]) -> None:
    full = np.array(SIZES, dtype=float)
    shares = np.linspace(0, 1, 4801)
    widths = np.maximum(np.floor(shares[:, None] * full + 0.5), 2)  # nearest counts; two must stay
    for share in (0.3, 0.5, 0.9):
        limits = {name: share * float(FORMULAS[name](full)) for name in names}
        fit = np.all([FORMULAS[name](widths) <= limit for name, limit in limits.items()], axis=0)
        common = widths[fit][-1]
        n = counts_of(problem(0), costs=[cost(*i) for i in limits.items()], scope="uniform", multiple=1)
        assert (n >= common).all()
        assert (n - common <= 2).all(), "beyond it, only what still fits is given back"


def channels(limit: float, count: int) -> Cost:
    """Each channel of `count` units costs 1."""
    eye, zero, one = np.eye(count), np.zeros(count), np.ones(count)
    return Cost("params", limit, 0.0, one, zero, zero, one, eye, np.zeros((count, count)))


def test_units_of_a_kind_compete_for_the_share_of_their_kind() -> None:
    scores = [[4.0, 4.0, 0.1, 0.1], [1.3, 1.1, 0.9, 0.7], [1.0, 0.9, 0.8, 0.7]]
    units = [Unit((f"u{i}",), 4, 4, 1, np.array([row]), kind="aab"[i]) for i, row in enumerate(scores)]
    n = counts_of(units, costs=[channels(9.0, 3)], scope="isomorphic", multiple=1)
    assert n.tolist() == [2, 4, 3]  # of the pair a, three quarters stay: all of the even one, the best of the uneven
    assert counts_of(units, costs=[channels(9.0, 3)], scope="uniform", multiple=1).tolist() == [3, 3, 3]


def test_channels_of_a_kind_that_are_worth_the_same_are_cut_as_well() -> None:
    units = [Unit((f"u{i}",), 4, 4, 1, np.ones((1, 4)), kind="a") for i in range(2)]
    assert counts_of(units, costs=[channels(6.0, 2)], scope="isomorphic", multiple=1).sum() == 6


def test_a_unit_of_great_weight_is_cut_last() -> None:
    scores = np.array([[1.0, 1.0, 1.0, 1.0]])
    for heavy in range(2):
        units = [Unit((f"u{i}",), 4, 4, 1, scores, weight=20.0 if i == heavy else 1.0) for i in range(2)]
        n = counts_of(units, costs=[channels(6.0, 2)], scope="global", multiple=1)
        assert (n[heavy], n[1 - heavy]) == (4, 2)
    even = [Unit((f"u{i}",), 4, 4, 1, scores) for i in range(2)]
    assert counts_of(even, costs=[channels(6.0, 2)], scope="global", multiple=1).tolist() == [3, 3]


def test_the_latency_scope_saves_milliseconds_whatever_is_bounded() -> None:
    """Two units of equal worth and parameters; a channel of the second takes ten times as long."""
    one, zero, eye, none = np.ones(2), np.zeros(2), np.eye(2), np.zeros((2, 2))
    units = [Unit((f"u{i}",), 8, 8, 2, np.ones((1, 8))) for i in range(2)]
    guide = Latency(
        "latency", np.inf, 0.0, zero, np.array([1.0, 10.0]), zero, zero, zero, one, eye, none, 1, 1, 0.0, zero > 1
    )
    arguments = {"costs": [channels(12.0, 2)], "multiple": 4}  # a chunk of one of them must go, they lose the same
    assert counts_of(units, scope="global", **arguments).tolist() == [4, 8]
    assert counts_of(units, scope="latency", guide=guide, **arguments).tolist() == [8, 4]


def test_uniform_gives_back_to_the_furthest_below_the_common_share() -> None:
    """At three quarters both units of 8 would go from 4 to 8; only one chunk fits, and 12 of 16 are no less."""
    units = [Unit((f"u{i}",), size, size, 1, np.ones((1, size))) for i, size in enumerate((8, 8, 16))]
    assert counts_of(units, costs=[channels(25.0, 3)], scope="uniform", multiple=4).tolist() == [8, 4, 12]


def part_costs(limit: float, layers: int = 2) -> Cost:
    """One unit of 8 channels and a block of 4; each costs 1 a channel."""
    zero, one = np.zeros(layers), np.ones(layers)
    effect = Effect(np.array([1.0, 0.0]), np.ones(1), np.zeros((layers, 1)), zero)
    outs, out0 = np.array([[1.0], [0.0]]), np.array([0.0, 4.0])
    return Cost("params", limit, 0.0, one, zero, out0, one, outs, np.zeros((layers, 1)), {"block": effect})


@pytest.mark.parametrize(
    ("share", "most", "gone", "stay"),
    [
        (0.05, 1, ("block",), 8),  # the block loses (0.95 ** -4 - 1) / 4 = 0.057
        (0.05, 0, (), 4),  # and may not go
        (0.9, 1, (), 4),  # half of the unit loses 3.75, this block 2,500
    ],
)
def test_a_block_goes_where_it_loses_less_than_channels(
    share: float, most: int, gone: tuple[str, ...], stay: int
) -> None:
    unit = Unit(("a",), 8, 8, 1, np.ones((1, 8)))
    plan = allocate(
        [unit], [part_costs(8.0)], scope="global", multiple=1, parts=[Part("block", "stream", share)], most_blocks=most
    )
    assert plan.blocks == gone
    assert len(plan.keep.get("a", range(8))) == stay


def test_parts_of_one_pool_lose_together() -> None:
    """Two blocks of a share of 0.3 each lose as one of 0.6, which is more than both by themselves."""
    zero = np.zeros(3)
    effects = {
        f"b{i}": Effect(np.where(np.arange(3) == i, 0.0, 1.0), np.ones(1), np.zeros((3, 1)), zero) for i in (1, 2)
    }
    outs = np.array([[1.0], [0.0], [0.0]])
    costs = Cost("params", 8.0, 0.0, np.ones(3), zero, np.array([0.0, 4, 4]), np.ones(3), outs, 0 * outs, effects)
    unit = Unit(("a",), 8, 8, 1, np.ones((1, 8)))

    def chosen(pools: tuple[str, str]) -> tuple[int, int]:
        parts = [Part(f"b{i + 1}", pool, 0.3) for i, pool in enumerate(pools)]
        plan = allocate([unit], [costs], scope="global", multiple=1, parts=parts, most_blocks=2)
        return len(plan.blocks), len(plan.keep.get("a", range(8)))

    one = (0.7**-4 - 1) / 4
    assert 2 * one < one + 3.75 < (0.4**-4 - 1) / 4  # both of two pools; one and half of the unit; both of one pool
    assert chosen(("s", "t")) == (2, 8)
    assert chosen(("s", "s")) == (1, 4)


def test_heads_go_least_important_first_and_take_their_channels() -> None:
    rows = {"q0": (Head("attn", 0, "value"), [1.0, 1.0]), "q1": (Head("attn", 1, "value"), [9.0, 9.0])}
    names = ("stream", *rows)
    scores = [np.array([1.0, 2.0, 3.0, 4.0]), *(np.array(row[1]) for row in rows.values())]
    unit = Unit(names, 2, 2, 1, scores, (2, 1, 1), (None, *(row[0] for row in rows.values())))
    outs = np.ones((1, 1))
    effect = Effect(np.array([0.5]), np.ones(1), np.zeros((1, 1)), np.zeros(1))
    costs = Cost("params", 1.0, 0.0, np.ones(1), np.zeros(1), np.zeros(1), np.ones(1), outs, 0 * outs, {"p": effect})
    part = Part("p", "stream", 0.1, (("attn", 0),), "stream", 0.5)
    plan = allocate([unit], [costs], scope="global", multiple=1, parts=[part])
    assert plan.heads == {"attn": (0,)}
    assert {name: kept.tolist() for name, kept in plan.keep.items()} == {"stream": [2, 3], "q0": []}


@pytest.mark.parametrize(
    ("size", "least", "most", "expected"),
    [(64, 8, 0.9, 8), (64, 8, 0.5, 32), (80, 8, 0.7, 24), (10, 8, 0.75, 8), (4, 8, 0.9, 4)],
)
def test_the_least_that_may_stay_is_exact(size: int, least: int, most: float, expected: int) -> None:
    assert lowest_counts({"a": size}, min_channels=least, max_cut=most) == {"a": expected}
