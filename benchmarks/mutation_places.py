# yolo-prune, AGPL-3.0 license
"""What a mutation is, and where the files stand that mutations and their tests name by short keys."""

from __future__ import annotations

from typing import NamedTuple

# Where things are. A module that moves changes here and nowhere else.
FILES = {
    "after_the_cut": "yolo_prune/training/recovery.py",
    "allocate": "yolo_prune/allocation/allocate.py",
    "averaging": "yolo_prune/host/averaging.py",
    "canvases": "yolo_prune/host/canvases.py",
    "frames": "yolo_prune/host/frames.py",
    "begin": "yolo_prune/training/begin.py",
    "loss": "yolo_prune/host/loss.py",
    "architecture": "yolo_prune/surgery/widths.py",
    "best": "yolo_prune/report/best_model.py",
    "blocks": "yolo_prune/graph/blocks.py",
    "reconstruct": "yolo_prune/surgery/reconstruct.py",
    "least_squares": "yolo_prune/surgery/least_squares.py",
    "norms": "yolo_prune/surgery/norm_statistics.py",
    "cadence": "yolo_prune/host/cadence.py",
    "candidates": "yolo_prune/planning/candidates.py",
    "continuity": "yolo_prune/training/optimizer_state.py",
    "costs": "yolo_prune/allocation/costs.py",
    "roll_back": "yolo_prune/training/roll_back.py",
    "gates": "yolo_prune/importance/gradients.py",
    "importance": "yolo_prune/importance/scoring.py",
    "known_classes": "yolo_prune/host/known_classes.py",
    "latency_of_run": "yolo_prune/training/latency_of_run.py",
    "latency_model": "yolo_prune/cost/latency_model.py",
    "masks": "yolo_prune/surgery/masks.py",
    "max_drop": "yolo_prune/training/max_drop.py",
    "projectors": "yolo_prune/training/projectors.py",
    "residual": "yolo_prune/graph/residual.py",
    "resume": "yolo_prune/training/resume.py",
    "run": "yolo_prune/host/run.py",
    "warmup": "yolo_prune/training/warmup.py",
    "schedule": "yolo_prune/recipe/schedule.py",
    "saving": "yolo_prune/host/atomic_saving.py",
    "scopes": "yolo_prune/allocation/scopes.py",
    "regularize": "yolo_prune/training/regularize.py",
    "scratch": "yolo_prune/scratch.py",
    "session": "yolo_prune/training/session.py",
    "step": "yolo_prune/planning/choice.py",
    "surgery": "yolo_prune/surgery/cut_channels.py",
    "units": "yolo_prune/allocation/units.py",
}
TESTS = {
    "record_best": "tests/report/test_best_model.py",
    "best_model": "tests/training/test_best_model.py",
    "after_the_cut": "tests/training/test_after_the_cut.py",
    "canvases": "tests/host/test_canvases.py",
    "frames": "tests/host/test_frames.py",
    "sensitivity": "tests/planning/test_sensitivity.py",
    "again": "tests/training/test_again.py",
    "allocate": "tests/planning/test_choice.py",
    "reconstruct": "tests/surgery/test_reconstruct.py",
    "continuity": "tests/training/test_optimizer_state.py",
    "roll_back": "tests/training/test_roll_back.py",
    "gates": "tests/importance/test_gradients.py",
    "importance": "tests/importance/test_scoring.py",
    "known_answers": "tests/allocation/test_known_answers.py",
    "latency": "tests/device/test_latency.py",
    "norms": "tests/surgery/test_norm_statistics.py",
    "masks": "tests/surgery/test_masks.py",
    "planted": "tests/importance/test_planted.py",
    "recovery": "tests/training/test_recovery.py",
    "resume": "tests/training/test_resume.py",
    "attach": "tests/training/test_attach.py",
    "session": "tests/training/test_session.py",
    "signals": "tests/test_signals.py",
    "turns": "tests/training/test_turns.py",
    "schedule": "tests/recipe/test_schedule.py",
    "regularize": "tests/training/test_regularize.py",
    "whole_parts": "tests/surgery/test_whole_parts.py",
}


class Mutation(NamedTuple):
    """One fault.

    Attributes:
        file: a key of FILES. old: a text that stands there once. new: what it becomes.
        tests: "key of TESTS::name", at least one of which must fail; without a name, any of that file.
    """

    file: str
    old: str
    new: str
    tests: tuple[str, ...]
