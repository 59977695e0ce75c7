# yolo-prune, AGPL-3.0 license
"""The front, the promising points and the recommendation, against answers worked out by hand and by brute force."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from yolo_prune.sweeps import front, progress

FIGURES = st.one_of(st.none(), st.integers(1, 6).map(float))
ROWS = st.lists(st.tuples(FIGURES, FIGURES), max_size=8)


def row(name: str, ms: float | None, metric: float | None, kind: str = "pruned", **more: Any) -> dict[str, Any]:
    """A row of a sweep."""
    plain = {"small": False, "own_size": True, "precision": "fp32", "base": "precision" not in more, "label": name}
    known = {"steady": True, "predicted": False, "speedup": None}
    return {"name": name, "kind": kind, "ms": ms, "metric": metric, **plain, **known, **more}


@settings(deadline=None)
@given(ROWS)
def test_the_front_is_what_nothing_beats(figures: list[tuple[float | None, float | None]]) -> None:
    rows = [row(str(n), ms, metric) for n, (ms, metric) in enumerate(figures)]
    known = [(one["ms"], one["metric"]) for one in rows if None not in (one["ms"], one["metric"])]
    brute = {
        (ms, metric)
        for ms, metric in known
        if not any((a <= ms and b >= metric) and (a < ms or b > metric) for a, b in known)
    }
    best = front.pareto(rows)
    assert {(one["ms"], one["metric"]) for one in best} == brute
    assert len(best) == len(brute), "equal ones stand once"
    assert [one["ms"] for one in best] == sorted(one["ms"] for one in best)


def test_another_cut_of_the_same_family_must_be_clearly_better_for_a_point_not_to_be_trained() -> None:
    rows = [
        row("good", 5.0, 0.50),
        row("beaten", 5.0, 0.48),
        row("close", 5.0, 0.481),
        row("faster", 4.0, 0.10),
        row("as fast", 4.86, 0.2),  # good is within 3% of it
        row("other family", 9.0, 0.0),
        row("no figure", 9.0, None),
        row("no time", None, 0.1),
    ]
    families = {one["name"]: "other" if one["name"] == "other family" else "cuts" for one in rows}
    assert front.promising(rows, families) == ["good", "close", "faster", "other family", "no figure", "no time"]


@settings(deadline=None)
@given(ROWS)
def test_the_best_of_each_family_is_always_trained(figures: list[tuple[float | None, float | None]]) -> None:
    rows = [row(str(n), ms, metric) for n, (ms, metric) in enumerate(figures)]
    chosen = front.promising(rows, dict.fromkeys((one["name"] for one in rows), "all"))
    assert {one["name"] for one in rows if None in (one["ms"], one["metric"])} <= set(chosen)
    known = [one for one in rows if None not in (one["ms"], one["metric"])]
    if known:
        assert max(known, key=lambda one: (one["metric"], -one["ms"]))["name"] in chosen
    assert len(chosen) >= bool(rows)


DENSE = row("dense", 10.0, 0.60, "dense")


@pytest.mark.parametrize(
    ("others", "latency", "fastest", "best"),
    [
        (
            [row("cut", 5.0, 0.595), row("deep cut", 3.0, 0.50)],
            "4ms",
            "cut, 5.00 ms, mAP50-95 0.595, 2.00 times as fast as the model itself; this is a pruned model.",
            "Most accurate within latency=4ms: deep cut, 3.00 ms, mAP50-95 0.500, 3.33 times as fast",
        ),
        (
            [row("cut", 5.0, 0.595), row("at 512", 4.0, 0.6, "dense", small=True, own_size=False)],
            "50%",
            "at 512, 4.00 ms, mAP50-95 0.600, 2.50 times as fast as the model itself; "
            "this is the same model on a smaller image, not pruned.",
            "Most accurate within latency=50% (5 ms): at 512, 4.00 ms",
        ),
        (
            [row("cut", 5.0, 0.3), row("yolo11n", 4.0, 0.592, "baseline")],
            None,
            "yolo11n, 4.00 ms, mAP50-95 0.592, 2.50 times as fast as the model itself; "
            "this is another model and no pruned one.",
            "Most accurate of all: the model itself, 10.00 ms, mAP50-95 0.600.",
        ),
        (
            [row("cut", 5.0, 0.3)],
            "1ms",
            "the model itself, 10.00 ms, mAP50-95 0.600; nothing that was tried is as good and faster by more than 3%.",
            "Most accurate within latency=1ms: none; the fastest is cut, 5.00 ms, mAP50-95 0.300.",
        ),
        (
            [row("cut INT8", 2.0, 0.595, precision="int8", predicted=True)],
            "2ms",
            "cut INT8, 2.00 ms (predicted), mAP50-95 0.595, 5.00 times as fast as the model itself; "
            "this is a pruned model, in INT8.",
            "Most accurate within latency=2ms: cut INT8",
        ),
    ],
)
def test_the_recommendation(others: list[dict[str, Any]], latency: str | None, fastest: str, best: str) -> None:
    first, second = front.recommend([DENSE, *others], 0.01, latency, "mAP50-95")
    head = "Fastest with at most 0.01 mAP50-95 less than the model itself (0.600): "
    assert first == head + fastest
    assert second.startswith(best)


FIRST = "Fastest with at most 0.01 mAP50-95 less than the model itself (0.600): "


def test_chance_of_the_timing_does_not_choose() -> None:
    """Milliseconds are known to 3%: of what is as fast the better one is taken, and that is said."""

    def first(*others: dict[str, Any]) -> str:
        return front.recommend([DENSE, *others], 0.01, None, "mAP50-95")[0].removeprefix(FIRST)

    own = "the model itself, 10.00 ms, mAP50-95 0.600; nothing that was tried is as good and faster by more than 3%."
    assert first(row("cut", 9.98, 0.591)) == own
    assert first(row("cut", 9.72, 0.62)) == own
    assert first(row("cut", 9.70, 0.591)).startswith("cut, 9.70 ms, mAP50-95 0.591, 1.03 times as fast")
    busy, quiet = ({"median": 1.01, "steady": steady, "interval": [0.9, 1.2]} for steady in (False, True))
    assert first(row("cut", 9.0, 0.6, speedup=quiet)) == own, "rounds in which both ran know better"
    assert first(row("cut", 9.0, 0.6, speedup=busy)).startswith("cut, 9.00 ms")
    assert first(row("l2", 4.0, 0.5905), row("obdc", 4.12, 0.625), row("slow", 4.13, 0.7)) == (
        "obdc, 4.12 ms, mAP50-95 0.625, 2.43 times as fast as the model itself; this is a pruned model; as fast within "
        "3%: l2, 4.00 ms, mAP50-95 0.591."
    )


def test_what_is_better_and_a_hair_over_the_limit_is_named() -> None:
    """A cut that was made for the bound is timed a little above it as often as below it."""

    def second(latency: str | None, *others: dict[str, Any]) -> str:
        return front.recommend([DENSE, *others], 0.01, latency, "mAP50-95")[1]

    over = row("half", 5.14, 0.59)
    near = "; over the limit by less than 3%: half, 5.14 ms, mAP50-95 0.590."
    assert second("50%", over).endswith(f"none; the fastest is half, 5.14 ms, mAP50-95 0.590{near}")
    assert second("50%", over, row("small", 4.0, 0.5)).endswith(f"this is a pruned model{near}")
    assert "over the limit" not in second("50%", over, row("small", 4.0, 0.59))
    assert "over the limit" not in second("50%", row("far", 5.16, 0.59), row("small", 4.0, 0.5))
    even = "Most accurate of all: the model itself, 10.00 ms, mAP50-95 0.600."
    assert second(None, row("cut", 9.98, 0.6)) == even, "no better, and no faster that one could tell"
    assert second(None, row("cut", 9.0, 0.6)).startswith("Most accurate of all: cut, 9.00 ms")


def test_what_is_not_known_is_not_recommended() -> None:
    unknown = [row("cut", None, 0.7), row("other", 1.0, None)]
    sentences = front.recommend([DENSE, *unknown], 0.01, None, "mAP50-95")
    assert "the model itself, 10.00 ms" in sentences[1]
    assert sentences[2:] == ["Not compared, for their milliseconds are not known: cut."]
    assert front.recommend(unknown, 0.01, None, "mAP50-95")[0].startswith("No recommendation")
    for interval, words in (
        ([1.2, 2.4], "1.20 to 2.40 times as fast as the model itself, as far as the busy machine lets it be known"),
        ([1.2, None], "at least 1.20 times as fast as the model itself, as far"),
        ([0.0, None], "no telling how many times as fast as the model itself, as far"),
    ):
        speed = {"median": 1.8, "steady": False, "interval": interval}
        busy = row("cut", 5.0, 0.6, steady=False, speedup=speed)
        line = front.recommend([DENSE, busy], 0.01, None, "mAP50-95")[0]
        assert f"5.00 ms (on a machine too busy to be sure), mAP50-95 0.600, {words}" in line


def test_the_time_that_is_left() -> None:
    costs = {"a": 1.0, "b": 2.0, "c": 1.0}
    assert progress.time_left(costs, {"a": 1.0, "b": 0.5}, {}, 100) == 100  # half of the work is done
    assert progress.time_left(costs, {"a": 1.0, "b": 0.5}, {"a": 1.0}, 50) == 100  # a was finished before
    assert progress.time_left(costs, {"a": 1.0}, {"a": 1.0}, 50) == float("inf")
    words = [progress.words_of(seconds) for seconds in (40, 720, 12600, float("inf"))]
    assert words == [
        *("about 40 s left", "about 12 min left", "about 3.5 h left"),
        "how long it takes is not known yet",
    ]
