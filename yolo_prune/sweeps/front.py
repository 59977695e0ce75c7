# yolo-prune, AGPL-3.0 license
"""Which points are worth a training, which are on the Pareto front, and what is recommended of them. No torch.

A row is plain data: `name`, `kind`, `small` and `own_size` of its point, `precision` and whether that is `base`, which
all have, `label`, `metric` (mAP50-95 of a detector; None where it is not known) and `ms` (None where it is not known),
whether they are `steady` or `predicted`, and `speedup` over the model itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from yolo_prune.recipe.bounds import read_bound
from yolo_prune.report import text

Row = Mapping[str, Any]

BETTER = 0.02  # by how much more another cut must keep for a point not to be trained
AS_FAST = 0.03  # milliseconds that differ by less than this share count as the same


def promising(rows: Sequence[Row], families: Mapping[str, object]) -> list[str]:
    """The points that are trained: all but those that another cut of the same model at the same size beats clearly.

    Beaten is a point where another one of its family is no slower (within `AS_FAST`) and keeps at least `BETTER` more
    before any training. Families are not compared: a training gives a cut model back far more than it gives a dense
    one, and a stock model whose classes are others has no figure yet. What has no figure is trained.

    Args:
        rows: of all points after the cut alone, FP32. families: name of a point -> its family.
    """

    def beaten(row: Row) -> bool:
        if row["metric"] is None or row["ms"] is None:
            return False
        return any(
            other["metric"] is not None
            and other["ms"] is not None
            and families[other["name"]] == families[row["name"]]
            and other["ms"] <= row["ms"] * (1 + AS_FAST)
            and other["metric"] >= row["metric"] + BETTER
            for other in rows
            if other["name"] != row["name"]
        )

    return [row["name"] for row in rows if not beaten(row)]


def pareto(rows: Sequence[Row]) -> list[Row]:
    """The rows that no other row beats (as fast or faster, and as good or better, and one of the two), fastest first.

    Of several with equal figures the first stands.
    """
    known = [row for row in rows if row["metric"] is not None and row["ms"] is not None]
    front: list[Row] = []
    for row in sorted(known, key=lambda one: (one["ms"], -one["metric"])):
        if not front or row["metric"] > front[-1]["metric"]:
            front.append(row)
    return front


def limit_of(latency: str | None, dense: Row | None) -> float | None:
    """Milliseconds of a bound on latency: "12ms", or "60%" of the dense model's; None where that is not known."""
    if latency is None:
        return None
    bound: Any = read_bound("latency", latency)
    if bound.kind == "absolute":
        return float(bound.value)
    return None if dense is None or dense["ms"] is None else float(bound.limit(dense["ms"]))


def recommend(rows: Sequence[Row], max_drop: float, latency: str | None, metric_name: str) -> list[str]:
    """Two sentences: the fastest within `max_drop` of the dense model, and the most accurate within `latency`.

    Milliseconds that differ by no more than `AS_FAST` are as fast, and of these the better metric is taken.
    Where milliseconds of some are not known, a third one names these.

    Args:
        rows: all that was measured; the dense one at its own size, in the first precision, is what others are compared
            with.
        latency: a bound such as "12ms" or "60%"; None: of any speed.
    """
    known = [row for row in rows if row["metric"] is not None and row["ms"] is not None]
    dense = next((row for row in known if is_reference(row)), None)
    untimed = [row["label"] for row in rows if row["ms"] is None]
    left_out = [f"Not compared, for their milliseconds are not known: {', '.join(untimed)}."] if untimed else []
    if dense is None:
        return [
            "No recommendation: the model itself has no figures to compare with.",
            "See what failed, and run the same command again.",
            *left_out,
        ]
    best = _fastest(known, dense, max_drop, metric_name), _most_accurate(known, dense, latency, metric_name)
    return [*best, *left_out]


def is_reference(row: Row) -> bool:
    """Whether this is the model itself, at its own image size, in the precision that all have."""
    return bool(row["kind"] == "dense" and row["base"] and row["own_size"])


def _fastest(known: Sequence[Row], dense: Row, max_drop: float, metric_name: str) -> str:
    able = [row for row in known if row["metric"] >= dense["metric"] - max_drop - 1e-12 and _is_faster(row, dense)]
    head = f"Fastest with at most {max_drop:g} {metric_name} less than the model itself ({dense['metric']:.3f})"
    if not able:
        return (
            f"{head}: the model itself, {_figures(dense, metric_name)}; nothing that was tried is as good and faster "
            f"by more than {AS_FAST:.0%}."
        )
    first = min(able, key=lambda row: (row["ms"], -row["metric"]))
    best = max(
        (row for row in able if row["ms"] <= first["ms"] * (1 + AS_FAST)), key=lambda row: (row["metric"], -row["ms"])
    )
    as_fast = (
        "" if best is first else f"; as fast within {AS_FAST:.0%}: {first['label']}, {_figures(first, metric_name)}"
    )
    return f"{head}: {best['label']}, {_figures(best, metric_name)}, {_times(dense, best)}; {_nature(best)}{as_fast}."


def _is_faster(row: Row, dense: Row) -> bool:
    """Whether a row is faster than the model itself, by more than milliseconds are known to."""
    speed = row["speedup"]
    times = speed["median"] if speed and speed["steady"] else dense["ms"] / row["ms"]
    return bool(times > 1 + AS_FAST)


def _most_accurate(known: Sequence[Row], dense: Row, latency: str | None, metric_name: str) -> str:
    limit = limit_of(latency, dense)
    able = [row for row in known if limit is None or row["ms"] <= limit]
    head = "Most accurate of all" if latency is None else f"Most accurate within latency={latency}"
    if limit is not None and latency is not None and "%" in latency:
        head += f" ({limit:.3g} ms)"
    near = _just_over(known, able, limit, metric_name)
    if not able:
        quickest = min(known, key=lambda row: row["ms"])
        return f"{head}: none; the fastest is {quickest['label']}, {_figures(quickest, metric_name)}{near}."
    best = max(able, key=lambda row: (row["metric"], -row["ms"]))
    if dense in able and dense["metric"] == best["metric"] and not _is_faster(best, dense):
        best = dense
    if best is dense:
        return f"{head}: the model itself, {_figures(dense, metric_name)}{near}."
    return f"{head}: {best['label']}, {_figures(best, metric_name)}, {_times(dense, best)}; {_nature(best)}{near}."


def _just_over(known: Sequence[Row], able: Sequence[Row], limit: float | None, metric_name: str) -> str:
    """What is better than all within a limit, and beyond it by no more than milliseconds are known to; else empty."""
    least = max((row["metric"] for row in able), default=-1.0)
    near = [row for row in known if limit and limit < row["ms"] <= limit * (1 + AS_FAST) and row["metric"] > least]
    if not near:
        return ""
    best = max(near, key=lambda row: (row["metric"], -row["ms"]))
    return f"; over the limit by less than {AS_FAST:.0%}: {best['label']}, {_figures(best, metric_name)}"


def _figures(row: Row, metric_name: str) -> str:
    """ "4.10 ms, mAP50-95 0.602"."""
    doubt = " (predicted)" if row["predicted"] else "" if row["steady"] else " (on a machine too busy to be sure)"
    return f"{row['ms']:.2f} ms{doubt}, {metric_name} {row['metric']:.3f}"


def _times(dense: Row, row: Row) -> str:
    """How many times as fast, by rounds in which both ran where there were such."""
    speed = row["speedup"]
    if speed and not speed["steady"]:  # its median and the quotient of the milliseconds may be far apart
        return f"{text.times(speed['interval'])} as the model itself, as far as the busy machine lets it be known"
    times = speed["median"] if speed else dense["ms"] / row["ms"]
    return f"{times:.2f} times as fast as the model itself"


def _nature(row: Row) -> str:
    """Whether pruning won, or what won without it: that must be said."""
    precision = "" if row["base"] else f", in {row['precision'].upper()}"
    if row["kind"] == "pruned":
        return f"this is a pruned model{' on a smaller image' if row['small'] else ''}{precision}"
    if row["kind"] == "baseline":
        return f"this is another model and no pruned one{', on a smaller image' if row['small'] else ''}{precision}"
    if row["small"]:
        return f"this is the same model on a smaller image, not pruned{precision}"
    return f"this is the same model, not pruned{precision}"
