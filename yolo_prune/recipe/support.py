# yolo-prune, AGPL-3.0 license
"""The families and tasks that are supported, which is the matrix that the tests run."""

from __future__ import annotations

from typing import NamedTuple

TASKS = ("detect", "segment", "pose", "obb", "classify", "semantic", "depth")


class Row(NamedTuple):
    """One family and task: the host's yaml at its smallest scale, and the scales that the host ships."""

    family: str
    task: str
    file: str
    scales: str


def _rows() -> tuple[Row, ...]:
    rows = [
        Row("YOLOv3u", "detect", "yolov3u.yaml", "tiny, base, spp"),
        Row("YOLOv3u", "detect", "yolov3-tiny.yaml", ""),
        Row("YOLOv5u", "detect", "yolov5nu.yaml", "n, s, m, l, x, and p6"),
        Row("YOLOv6", "detect", "yolov6n.yaml", "n, s, m, l, x"),
        Row("YOLOv9", "detect", "yolov9t.yaml", "t, s, m, c, e"),
        Row("YOLOv9", "segment", "yolov9c-seg.yaml", "c, e"),
        Row("YOLOv10", "detect", "yolov10n.yaml", "n, s, m, b, l, x"),
        Row("RT-DETR", "detect", "rtdetr-l.yaml", "l, x, resnet50, resnet101, and on a YOLOv8 backbone"),
        Row("RT-DETR", "detect", "yolov8n-rtdetr.yaml", ""),
    ]
    endings = {"detect": "", "segment": "-seg", "pose": "-pose", "obb": "-obb", "classify": "-cls"}
    for family, stem in (("YOLOv8", "yolov8n"), ("YOLO11", "yolo11n"), ("YOLO12", "yolo12n"), ("YOLO26", "yolo26n")):
        rows += [Row(family, task, f"{stem}{ending}.yaml", "n, s, m, l, x") for task, ending in endings.items()]
    rows.append(Row("YOLO26", "semantic", "yolo26n-sem.yaml", "n, s, m, l, x"))
    rows.append(Row("YOLO26", "depth", "yolo26n-depth.yaml", "n, s, m, l, x"))
    return tuple(rows)


ROWS = _rows()

# Kin of the rows that the host ships as well: other scales in files of their own, other strides, other backbones.
KIN = (
    *("yolov3-spp.yaml", "yolov5n-p6.yaml", "yolov9s.yaml", "yolov9m.yaml", "yolov9c.yaml"),
    *("yolov9e.yaml", "yolov9e-seg.yaml", "yolov10s.yaml", "yolov10m.yaml", "yolov10b.yaml", "yolov10l.yaml"),
    *("yolov10x.yaml", "rtdetr-x.yaml", "rtdetr-resnet50.yaml", "rtdetr-resnet101.yaml"),
    *("yolov8n-p2.yaml", "yolov8n-p6.yaml", "yolov8n-pose-p6.yaml", "yolov8n-seg-p6.yaml", "yolov8n-ghost.yaml"),
    *("yolov8n-ghost-p2.yaml", "yolov8n-ghost-p6.yaml", "yolov8n-cls-resnet50.yaml", "yolov8n-cls-resnet101.yaml"),
    *("yolo11n-cls-resnet18.yaml", "yolo26n-p2.yaml", "yolo26n-p6.yaml"),
)


def table() -> str:
    """The table of support in the README: a family a row, a task a column, as the tests run them."""
    lines = [f"| family | scales | {' | '.join(TASKS)} |", f"| --- | --- |{' --- |' * len(TASKS)}"]
    for family in dict.fromkeys(row.family for row in ROWS):
        rows = [row for row in ROWS if row.family == family]
        cells = ["yes" if any(row.task == task for row in rows) else "" for task in TASKS]
        lines.append(f"| {family} | {rows[0].scales} | {' | '.join(cells)} |")
    return "\n".join(lines)
