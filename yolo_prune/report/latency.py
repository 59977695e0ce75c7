# yolo-prune, AGPL-3.0 license
"""What is said of latency: doubts about a profile, and what was bound, predicted and measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from yolo_prune import log
from yolo_prune.cost.profile_file import Profile
from yolo_prune.device import measurement, profile, runtimes
from yolo_prune.device.profile import SideBySide
from yolo_prune.planning.baseline import Baseline
from yolo_prune.planning.measured_bound import NEVER, Check, Measured
from yolo_prune.report import text


def doubt(device: Profile, imgsz: int | None) -> None:
    """Warn of a profile that is not to be trusted, and of one that was measured at another size.

    Args:
        imgsz: pixels that the model is trained or validated at; None where nobody said.
    """
    for line in doubts(device):
        log.warn(line)
    if imgsz is not None and device.imgsz != imgsz:
        log.warn(
            f"the device was measured at {device.imgsz} pixels and the model is at {imgsz}: "
            f"latencies are those at {device.imgsz}"
        )


def doubts(device: Profile) -> list[str]:
    """Why a profile is not to be trusted, a line for each reason."""
    words = measurement.doubts(dict(device.content))
    lines = [f"the device profile is not to be trusted: {words}" if words else None, _other_precision(device)]
    return [line for line in lines if line]


def _other_precision(device: Profile) -> str | None:
    """A line where what this machine measured before was computed in another precision than it would be now."""
    if device.precision != "fp32" or not profile.is_of_this_machine(device) or runtimes.missing(device.format):
        return None
    was, now = device.content.get("computes_in", "f32"), runtimes.computes_in(device.format)  # before, it was told f32
    if was == now:
        return None
    return (
        f"the device profile is of {device.format} computing in {was}, and by itself it computes in {now} on this "
        "machine: measure it again (yolo-prune profile)"
    )


def of_baseline(baseline: Baseline) -> str:
    """The predicted latency of a model before its first cut, for a line that lists its size."""
    return "" if baseline.latency is None else f", {baseline.latency:.2f} ms in {baseline.profile}"


def tell_check(check: Check) -> None:
    """Say in one line what a plan was timed at before it was cut; a bound that does not hold is a warning."""
    bound = check.bound / check.dense
    if check.taken >= len(check.tries) or not check.tries[check.taken].measured.known:
        last = check.tries[-1].measured if check.tries else None
        noisy = f" ({_share(last)} of the dense model's time)" if last and last.low and last.high < NEVER else ""
        log.warn(f"the plan is not known to hold the bound on latency{noisy}: {check.note}; it holds as predicted")
        return
    one = check.tries[check.taken]
    line = (
        f"the plan takes {one.measured.share:.1%} of the dense model's time on this machine "
        f"({_share(one.measured)}), bound {bound:.1%}, predicted {one.predicted / check.dense:.1%}"
    )
    others = [other for number, other in enumerate(check.tries) if number != check.taken]
    if others:
        tried = ", ".join(f"{other.predicted / check.dense:.1%} as {other.measured.share:.1%}" for other in others)
        line += f"; it was chosen again by what was measured (predicted and measured: {tried})"
    if check.kept:
        log.say(line)
    else:
        log.warn(f"THE LATENCY BOUND IS MISSED BY THE PLAN. {line}{f'; {check.note}' if check.note else ''}")


def _share(measured: Measured) -> str:
    """The interval of a share."""
    return f"{measured.low:.1%} to {measured.high:.1%}"


def timed(device: Profile, time: Callable[[], SideBySide]) -> tuple[SideBySide | None, str]:
    """What two models take on the machine of a profile, and where that was measured, or why it was not.

    Times of another machine would say nothing of a bound on this one's.

    Args:
        device: the profile. time: times them on this machine.
    """
    if profile.is_of_this_machine(device):
        return time(), "on this machine"
    return None, "not timed, for this machine is not the one of the profile: export both models and time them there"


def tell(entry: dict[str, Any], device: Profile, say: Callable[[str], None]) -> None:
    """Say what was bound, predicted and measured; a missed bound is a warning.

    Args:
        entry: `latency` of a record. device: the profile.
    """
    predicted, measured, bound = entry["predicted_ms"], entry["measured_ms"], entry["bound_ms"]
    share = predicted["final"] / predicted["baseline"]
    line = f"latency ({device}): "
    if bound is not None:
        line += f"bound {bound:.2f} ms ({bound / predicted['baseline']:.1%}), "
    line += f"predicted {predicted['final']:.2f} of {predicted['baseline']:.2f} ms ({share:.1%})"
    log.show(text.table(_rows(entry)))
    if entry["predicted_ms_by_part"]:
        log.show(text.table(_parts(entry["predicted_ms_by_part"])))
    if measured is None:
        (log.warn if profile.is_of_this_machine(device) else say)(f"{line}, {entry['note']}")
        return
    speed = entry["measured_speedup"]
    line += f", measured {measured['final']:.2f} of {measured['baseline']:.2f} ms ({1 / speed['median']:.1%}) "
    line += str(entry["note"])
    if not speed["steady"]:
        log.warn(f"{line}; THE MACHINE WAS TOO BUSY TO TELL: {text.times(speed['interval'])} as the dense model")
    elif entry["kept"] is False:
        log.warn(
            f"THE LATENCY BOUND IS MISSED. {line}. Measure the device again when it is quiet "
            "(yolo-prune profile), or ask for a lower bound"
        )
    else:
        say(line)


def _rows(entry: dict[str, Any]) -> list[dict[str, Any]]:
    """The table: milliseconds of the dense and the pruned model, as bound, predicted and measured."""
    measured = entry["measured_ms"] or {}
    bounds = {"final": entry["bound_ms"]}
    return [
        {
            "model": name,
            "bound, ms": text.figure(bounds.get(key), ".2f"),
            "predicted, ms": text.figure(entry["predicted_ms"][key], ".2f"),
            "measured, ms": text.figure(measured.get(key), ".2f"),
        }
        for key, name in (("baseline", "dense"), ("final", "pruned"))
    ]


def _parts(by_part: dict[str, dict[str, float]]) -> list[dict[str, Any]]:
    """The table of where the milliseconds are, as predicted."""
    dense = sum(row["baseline"] for row in by_part.values())
    return [
        {
            "where": part,
            "dense, ms": text.figure(row["baseline"], ".2f"),
            "pruned, ms": text.figure(row["final"], ".2f"),
            "of the dense model": f"{row['baseline'] / dense:.0%} -> {row['final'] / dense:.0%}",
        }
        for part, row in by_part.items()
    ]
