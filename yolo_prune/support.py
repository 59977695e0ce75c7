# yolo-prune, AGPL-3.0 license
"""The families and tasks that are supported, which is the matrix that the tests run. Pure data."""

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
        Row("YOLOv5u", "detect", "yolov5nu.yaml", "n, s, m, l, x, and p6"),
        Row("YOLOv6", "detect", "yolov6n.yaml", "n, s, m, l, x"),
        Row("YOLOv9", "detect", "yolov9t.yaml", "t, s, m, c, e"),
        Row("YOLOv9", "segment", "yolov9c-seg.yaml", "c, e"),
        Row("YOLOv10", "detect", "yolov10n.yaml", "n, s, m, b, l, x"),
        Row("RT-DETR", "detect", "rtdetr-l.yaml", "l, x, resnet50, resnet101"),
    ]
    endings = {"detect": "", "segment": "-seg", "pose": "-pose", "obb": "-obb", "classify": "-cls"}
    for family, stem in (("YOLOv8", "yolov8n"), ("YOLO11", "yolo11n"), ("YOLO12", "yolo12n"), ("YOLO26", "yolo26n")):
        rows += [Row(family, task, f"{stem}{ending}.yaml", "n, s, m, l, x") for task, ending in endings.items()]
    rows.append(Row("YOLO26", "semantic", "yolo26n-sem.yaml", "n, s, m, l, x"))
    rows.append(Row("YOLO26", "depth", "yolo26n-depth.yaml", "n, s, m, l, x"))
    return tuple(rows)


ROWS = _rows()
