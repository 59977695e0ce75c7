# yolo-prune, AGPL-3.0 license
"""What goes into last.pt and best.pt beside the host's own: widths and, for a resume, the run so far.

Both stand in the model's yaml, under one key (surgery/widths.py, `stamp`), so the host's own `save_model` writes them.
How the files are replaced whole: host/atomic_saving.py. What last.pt cannot carry is kept beside it: resume_state.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from yolo_prune.graph.channel_groups import ChannelGraph
from yolo_prune.host.run import Run, student_of
from yolo_prune.planning.baseline import Baseline
from yolo_prune.surgery import widths
from yolo_prune.training.session_data import Session


def stamp(run: Run, session: Session, graph: ChannelGraph, removed: list[str]) -> None:
    """After a cut: write the widths, and what a resumed run needs, into the yaml of both models.

    Args:
        graph: as it was before the cut. removed: names of the blocks that went whole.
    """
    noted = note(session.baseline, session.record, session.done)
    sparsity = None if session.pattern is None else str(session.pattern)
    for item in (run.model, run.average):
        student = student_of(item)
        widths.stamp(student, graph.native, noted, removed, sparsity)
        item.yaml = student.yaml  # the host rebuilds a distilled student from its wrapper's yaml


def note(base: Baseline, record: Mapping[str, Any], done: int) -> dict[str, Any]:
    """What a resumed run needs to know of the part before it: plain data.

    Args:
        base: the model before its first cut. record: of the run. done: steps that have been taken.
    """
    return {
        "done": done,
        "steps": record["steps"],
        "history": record["history"],
        "fitness": record["baseline"]["fitness"],
        "max_drop": record.get("max_drop"),
        "baseline": base.as_dict(),
    }
