# yolo-prune, AGPL-3.0 license
"""Why an artifact was refused: its faults, of which one is enough, and what its speed leaves in doubt.

Faults are outputs that differ from torch's (found in prove.py, which holds the limits), a metric that differs by more
than its precision allows, and an artifact that is slower than the dense one. The command ends with them: exit code 2
for a fault, 3 for a doubt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from yolo_prune.errors import NoisyError, VerifyError
from yolo_prune.export.prove import LIMITS
from yolo_prune.export.results import Result
from yolo_prune.host import validation


def judge(result: Result) -> None:
    """Fill in the faults of an artifact, and what could not be told of its speed."""
    result.faults += result.parity.faults
    limit = LIMITS[result.precision].map
    if result.metrics is not None and result.subject.metrics is not None:
        name = validation.names(result.subject.task)[0]
        lost = result.subject.metrics[0] - result.metrics[0]
        if not abs(lost) <= limit and (result.precision == "fp32" or not lost <= limit):
            result.faults.append(f"{name} differs by {abs(lost):.4f} from torch (allowed {limit})")
    result.differs = bool(result.faults)
    if result.subject.role == "dense":
        return
    # What was bought is speed over the dense model as it was, and over the dense model of the same precision.
    alike = () if result.precision == "fp32" else ((result.alike, ""),)
    for speed, other in ((result.speed, "" if result.precision == "fp32" else " in fp32"), *alike):
        if speed is None:
            continue
        where = f"in {result.kind}, {result.precision}"
        if speed.verdict == "slower":
            result.faults.append(f"slower than the dense model{other}: {speed.median:.2f} times as fast {where}")
        if speed.verdict == "too noisy":
            result.doubts.append(f"too noisy to tell its speed from the dense model's{other}: {speed} {where}")


def require_proven(made: list[Result], failed: Mapping[str, str], seconds: int, record: dict[str, Any]) -> None:
    """Raise for what is broken, could not be made, or has a speed-up that is not known.

    Args:
        made: the artifacts, as `judge` left them. failed: format and precision -> why there is none. seconds: that the
            timing had. record: of the export, which the error carries.

    Raises:
        VerifyError: something is broken, or could not be made. NoisyError: nothing is, and a speed-up is not known.
    """
    broken = [
        f"{result.file.name} ({result.subject.role}): {'; '.join(result.faults)}" for result in made if result.faults
    ]
    broken += [f"{name}: {words}" for name, words in failed.items()]
    if broken:
        is_wrong = bool(failed) or any(result.differs for result in made)
        words = "not proven, do not deploy it" if is_wrong else "proven to be torch's, but not worth deploying"
        raise VerifyError(f"{words}: {' | '.join(broken)}. More: yolo-prune help export.md")
    doubts = [f"{one.file.name}: {words}" for one in made for words in one.doubts]
    if doubts:
        raise NoisyError(
            f"proven, but the machine was too busy to time: {' | '.join(doubts)}. Close what else runs, or give it "
            f"more time than seconds={seconds}. More: yolo-prune help export.md",
            record,
        )
