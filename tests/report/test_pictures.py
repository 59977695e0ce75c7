# yolo-prune, AGPL-3.0 license
"""pruning.png of the records that runs leave: with steps, undone ones, layers that are gone, no validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from yolo_prune.report import layer_names, pictures, sensitivity_picture
from yolo_prune.report.style import LIGHT

SIZE = {"params": 3_000_000, "gflops": 8.0}
STEP = {"step": 1, "epoch": 2, **SIZE}
RECORDS: dict[str, dict[str, Any]] = {
    "no step": {"steps": [], "history": [{"epoch": 1, "fitness": 0.5, **SIZE}]},
    "a step": {"steps": [STEP], "history": [{"epoch": n, "fitness": 0.1 * n, **SIZE} for n in (1, 2, 3)]},
    "not validated": {"steps": [STEP], "history": [{"epoch": n, "fitness": None, **SIZE} for n in (1, 2)]},
    "one cut": {"steps": [{**STEP, "epoch": 0}], "history": []},
}
LAYERS = [{"name": "model.0.conv", "before": 64, "after": 16}, {"name": "model.1.m.0", "before": 64, "after": 0}]


def pixels(picture: np.ndarray, color: str) -> int:
    red, green, blue = (int(color[at : at + 2], 16) for at in (1, 3, 5))
    return int((picture == (blue, green, red)).all(axis=-1).sum())


def drawn(record: dict[str, Any]) -> Any:
    """The figure of a record, as it is when it is drawn."""
    figures = []

    def keep(figure: Any) -> dict[str, str]:
        figures.append(figure)
        return {}

    pictures.content(record, LIGHT, keep)
    return figures[0]


def words(figure: Any) -> set[str]:
    from matplotlib.text import Text

    return {text.get_text().strip() for text in figure.findobj(Text)}


@pytest.mark.parametrize("name", RECORDS)
def test_a_bar_is_as_high_as_its_layer_is_wide(name: str, tmp_path: Path) -> None:
    path = tmp_path / "pruning.png"
    pictures.picture({"baseline": SIZE, "final": SIZE, "layers": LAYERS, **RECORDS[name]}, path)
    upper = cv2.imread(str(path))[:550]
    assert pixels(upper, LIGHT.dense) / pixels(upper, LIGHT.pruned) == pytest.approx((48 + 64) / 16, rel=0.15)


@pytest.mark.parametrize("steady", [True, False])
def test_milliseconds_of_a_busy_machine_say_so(steady: bool) -> None:
    sizes = {"baseline": {**SIZE, "latency_ms": 38.0}, "final": {**SIZE, "latency_ms": 169.0}}
    speed = {"latency": {"measured_speedup": {"steady": steady}}}
    (line,) = (w for w in words(drawn({**sizes, **speed, "layers": LAYERS, **RECORDS["a step"]})) if "38.00" in w)
    assert line.endswith(f"38.00 → 169.00 ms measured{'' if steady else ', machine too busy to tell'}")


def test_what_was_lost_allowed_and_undone_is_marked() -> None:
    """Dense 0.5 as a line, 0.02 below it allowed, the second step red from its epoch to where it was undone."""
    steps = [STEP, {**STEP, "step": 2, "epoch": 4, "undone": 6}]
    history = [{"epoch": n, "fitness": f, **SIZE} for n, f in enumerate((0.5, 0.49, 0.495, 0.3, 0.4, 0.49), 1)]
    record = {
        "baseline": {**SIZE, "fitness": 0.5},
        "final": {**SIZE, "gflops": 4.0, "fitness": 0.49},
        "recipe": {"name": "auto", "max_drop": 0.02},
        "fitness_is": "mAP50-95",
        "steps": steps,
        "history": history,
        "layers": LAYERS,
    }
    figure = drawn(record)
    below = figure.axes[1]
    spans = {
        patch.get_facecolor()[:3]: patch.get_extents().transformed(below.transData.inverted())
        for patch in below.patches
    }
    (red,) = [box for color, box in spans.items() if color[0] > color[1]]
    (green,) = [box for color, box in spans.items() if color[1] > color[0]]
    assert (red.x0, red.x1) == pytest.approx((3, 5))
    assert (green.y0, green.y1) == pytest.approx((0.48, 0.5))
    assert any(list(line.get_ydata()) == [0.5, 0.5] for line in below.lines)
    title = "mAP50-95 0.500 → 0.490,  8.0 → 4.0 GFLOPs (50%)"
    assert {title, "step 1", "step 2, undone", "allowed drop, 0.02", "before the first cut, 0.500"} <= words(figure)


def test_layers_stand_in_the_blocks_that_people_know() -> None:
    rows = [
        ("model.0.conv", "backbone", "Conv", False),
        ("model.2.cv1.conv", "backbone", "C2f", False),
        ("model.2.m.0.cv1.conv", "backbone", "C2f", False),
        ("model.12.cv1.conv", "neck", "C2f", False),
        ("model.22.cv2.0.0.conv", "head", "Segment", False),
        ("model.22.cv2.0.2", "head", "Segment", True),
        ("model.22.cv3.0.0.conv", "head", "Segment", False),
        ("model.22.cv4.0.0.conv", "head", "Segment", False),
        ("model.22.one2one_cv3.0.0.conv", "head", "Segment", False),
    ]
    layers = [
        {"name": name, "before": 8, "after": 8, "part": part, "kind": kind, "fixed": fixed}
        for name, part, kind, fixed in rows
    ]
    blocks = layer_names.blocks(layers)
    assert [(block.part, block.name, len(block.layers)) for block in blocks] == [
        ("backbone", "0 Conv", 1),
        ("backbone", "2 C2f", 2),
        ("neck", "12 C2f", 1),
        ("head", "22 boxes", 1),
        ("head", "22 classes", 1),
        ("head", "22 masks", 1),
        ("head", "22 classes, one2one", 1),
    ]
    seen = words(drawn({"baseline": SIZE, "final": SIZE, "layers": layers, **RECORDS["one cut"]}))
    assert {
        "backbone",
        "neck",
        "head",
        "0 Conv",
        "22 masks",
        "not shown: 1 output of the model",
    } <= seen


def test_milliseconds_are_drawn_part_by_part(tmp_path: Path) -> None:
    """Of 30 ms in the backbone and 10 in the neck, 10 and 10 are left."""
    by_part = {"backbone": {"baseline": 30.0, "final": 10.0}, "neck": {"baseline": 10.0, "final": 10.0}}
    record = {"baseline": SIZE, "final": SIZE, "layers": [], "latency": {"predicted_ms_by_part": by_part}}
    figure = drawn({**record, **RECORDS["one cut"]})
    lowest = figure.axes[2]
    bars = [(patch.get_x(), patch.get_width(), patch.get_facecolor()) for patch in lowest.patches]
    assert [bar[:2] for bar in bars] == [(0, 30), (0, 10), (30, 10), (10, 10)]
    assert bars[0][2] == bars[1][2] != bars[2][2] == bars[3][2]
    assert {"30.00", "10.00", "40.00", "20.00"} <= words(figure)


def test_a_users_settings_of_matplotlib_change_nothing_and_are_not_changed() -> None:
    import matplotlib

    record = {"baseline": SIZE, "final": SIZE, "layers": LAYERS, **RECORDS["one cut"]}
    plain = pictures.content(record)
    with matplotlib.rc_context({"axes.facecolor": "red", "font.size": 30, "axes.spines.top": True}):
        assert pictures.content(record) == plain
        assert matplotlib.rcParams["font.size"] == 30


@pytest.mark.parametrize(
    ("name", "part", "kind", "words"),
    [
        ("model.0.conv", "backbone", "Conv", "0 Conv"),
        ("model.4.m.0.cv1.conv", "backbone", "C2f", "4 C2f m.0.cv1"),
        ("model.2.cv1.conv[1/2]", "backbone", "C2f", "2 C2f cv1, half 1"),
        ("model.22.cv3.1.0.conv", "head", "Detect", "22 classes 1.0"),
        ("model.23.one2one_cv2.0.1.conv", "head", "Detect", "23 boxes, one2one 0.1"),
        ("model.22.cv4.0.0.conv", "head", "Pose", "22 keypoints 0.0"),
        ("model.22.proto.cv1.conv", "head", "Segment", "22 prototypes cv1"),
        ("model.9.linear", "head", "Classify", "9 Classify linear"),
        ("model.4.m.0.cv1.conv", None, None, "4 m.0.cv1"),
    ],
)
def test_a_group_is_called_by_its_block(name: str, part: str | None, kind: str | None, words: str) -> None:
    assert layer_names.of_group(name, {"part": part, "kind": kind}) == words


def test_sensitivity_is_drawn_in_the_parts_of_the_model() -> None:
    rows = {"model.0.conv": ("backbone", -4e-6), "model.12.cv1.conv[1/2]": ("neck", 0.25)}
    result = {
        "loss": 3.0,
        "groups": {name: {"size": 8, "losses": [0, loss], "weight": 1.0} for name, (_, loss) in rows.items()},
    }
    places = {name: {"part": part, "kind": "Conv"} for name, (part, _) in rows.items()}
    figures: list[Any] = []

    def keep(figure: Any) -> dict[str, str]:
        figures.append(figure)
        return {}

    sensitivity_picture.content(result, places, LIGHT, keep)
    assert {"backbone", "neck", "0.000", "0.250", "Most sensitive: 12 Conv cv1, half 1", "0 Conv  (8)"} <= words(
        figures[0]
    )
