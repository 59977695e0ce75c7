# yolo-prune, AGPL-3.0 license
"""The demo set: the host reads it, its two kinds of labels agree, and it shows what it claims to show."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

from yolo_prune.demo import dataset, shapes
from yolo_prune.demo.dataset import MIN_SIDE, MIN_VISIBLE, make, visible
from yolo_prune.demo.scenes import Item, compose, scene
from yolo_prune.demo.shapes import CLASSES
from yolo_prune.errors import PruneError

SIZE = 96
COUNTS = {"train": 60, "val": 20}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the data.yaml of a small set."""
    return make(tmp_path_factory.mktemp("demo") / "set", images=COUNTS["train"], val=COUNTS["val"], imgsz=SIZE)


def files(folder: Path) -> dict[str, bytes]:
    """Return the content of every file below a folder, but for data.yaml, which names the folder."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "data.yaml")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def coco(data: Path, split: str) -> dict[str, Any]:
    """Read the COCO JSON of a split."""
    read: dict[str, Any] = json.loads((data.parent / "annotations" / f"{split}.json").read_text(encoding="utf-8"))
    return read


def boxes(data: Path, split: str) -> dict[str, list[tuple[int, list[int]]]]:
    """Read the objects of every image from the COCO JSON: class index and box in pixels."""
    read = coco(data, split)
    names = {image["id"]: image["file_name"] for image in read["images"]}
    found: dict[str, list[tuple[int, list[int]]]] = {name: [] for name in names.values()}
    for item in read["annotations"]:
        found[names[item["image_id"]]].append((item["category_id"] - 1, item["bbox"]))
    return found


# What the host makes of it --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", COUNTS)
def test_host_finds_no_fault(data: Path, split: str) -> None:
    from ultralytics.data.utils import check_det_dataset, img2label_paths, verify_image_label

    described = check_det_dataset(str(data))
    assert described["nc"] == len(CLASSES)
    images = sorted(Path(described[split]).iterdir())
    assert len(images) == COUNTS[split]
    for image, label in zip(images, img2label_paths([str(path) for path in images]), strict=True):
        _, rows, shape, _, _, missing, _, _, corrupt, message = verify_image_label(
            (str(image), label, "", False, len(CLASSES), 0, 0, False)
        )
        assert (missing, corrupt, message) == (0, 0, "")
        assert shape == (SIZE, SIZE)
        assert len(rows) == len(boxes(data, split)[image.name])


def test_host_data_set_holds_every_box(data: Path) -> None:
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    described = check_det_dataset(str(data))
    read = YOLODataset(img_path=described["train"], data=described, imgsz=SIZE, augment=False, task="detect")
    assert len(read) == COUNTS["train"]
    assert sum(len(label["cls"]) for label in read.labels) == len(coco(data, "train")["annotations"])


@pytest.mark.parametrize("split", COUNTS)
def test_coco_and_yolo_agree_box_by_box(data: Path, split: str) -> None:
    found = boxes(data, split)
    assert sum(map(len, found.values())) >= len(found) > 0
    for name, objects in found.items():
        lines = (data.parent / "labels" / split / name).with_suffix(".txt").read_text(encoding="utf-8").splitlines()
        assert len(lines) == len(objects)
        for line, (kind, (left, top, wide, high)) in zip(lines, objects, strict=True):
            label, x, y, w, h = line.split()
            assert int(label) == kind
            corner = ((float(x) - float(w) / 2) * SIZE, (float(y) - float(h) / 2) * SIZE)
            assert (*corner, float(w) * SIZE, float(h) * SIZE) == pytest.approx((left, top, wide, high), abs=1e-3)
            assert left >= 0
            assert top >= 0
            assert left + wide <= SIZE
            assert top + high <= SIZE


def test_host_converter_makes_the_same_labels_of_the_json(data: Path, tmp_path: Path) -> None:
    from ultralytics.data.converter import convert_coco

    convert_coco(str(data.parent / "annotations"), str(tmp_path / "converted"), cls91to80=False)
    converted = files(tmp_path / "converted" / "labels")
    ours = {name: text for name, text in files(data.parent / "labels").items() if name.endswith(".txt")}
    assert converted == {name: text for name, text in ours.items() if text}  # it writes no file for an empty image


# COCO JSON ------------------------------------------------------------------------------------------------------------


def test_coco_json_is_complete(data: Path) -> None:
    assert set(COUNTS) == {"train", "val"}
    for split, count in COUNTS.items():
        read = coco(data, split)
        assert [(kind["id"], kind["name"]) for kind in read["categories"]] == list(enumerate(CLASSES, start=1))
        assert len(read["images"]) == count
        assert {image["file_name"] for image in read["images"]} == {
            path.name for path in (data.parent / "images" / split).iterdir()
        }
        assert all(image["width"] == image["height"] == SIZE for image in read["images"])
        assert [item["id"] for item in read["annotations"]] == list(range(1, len(read["annotations"]) + 1))
        assert {item["iscrowd"] for item in read["annotations"]} == {0}


def test_polygons_span_the_boxes(data: Path) -> None:
    annotations = coco(data, "train")["annotations"]
    assert len(annotations) >= COUNTS["train"]
    for item in annotations:
        left, top, wide, high = item["bbox"]
        points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in item["segmentation"]])
        assert np.abs(points.min(axis=0) - (left, top)).max() <= 1
        assert np.abs(points.max(axis=0) - (left + wide, top + high)).max() <= 1
        assert 0 < item["area"] <= wide * high


# Chance ---------------------------------------------------------------------------------------------------------------


def test_same_seed_same_bytes(data: Path, tmp_path: Path) -> None:
    again = make(tmp_path / "again", images=COUNTS["train"], val=COUNTS["val"], imgsz=SIZE, seed=0)
    first = {name: text for name, text in files(data.parent).items() if not name.endswith(".cache")}  # the host's
    assert files(again.parent) == first


def test_a_larger_set_begins_with_the_smaller(data: Path, tmp_path: Path) -> None:
    small = files(make(tmp_path / "small", images=3, val=2, imgsz=SIZE).parent)
    large = files(data.parent)
    same = {name for name in small if not name.startswith("annotations/")}
    assert len(same) == 2 * (3 + 2)
    assert all(small[name] == large[name] for name in same)


def test_splits_and_seeds_share_no_image(data: Path, tmp_path: Path) -> None:
    other = make(tmp_path / "other", images=COUNTS["train"], val=COUNTS["val"], imgsz=SIZE, seed=1)
    images = [text for folder in (data.parent, other.parent) for text in files(folder / "images").values()]
    assert len(set(images)) == len(images) == 2 * sum(COUNTS.values())


def test_classes_are_balanced_and_sizes_vary(tmp_path: Path) -> None:
    made = make(tmp_path / "set", images=240, val=1, imgsz=SIZE)
    objects = [item for image in boxes(made, "train").values() for item in image]
    counts = Counter(kind for kind, _ in objects)
    assert set(counts) == set(range(len(CLASSES)))
    assert max(counts.values()) < 1.6 * min(counts.values())
    sides = [max(box[2:]) for _, box in objects]
    assert np.percentile(sides, 97) > 4 * np.percentile(sides, 3)
    assert any(not image for image in boxes(made, "train").values()), "an image without objects"


# What is in front -----------------------------------------------------------------------------------------------------


def square(left: int, top: int, side: int, shade: float, kind: int | None = 0) -> Item:
    """Return a plain square."""
    return Item(
        kind, left, top, np.full((side, side), 255, np.uint8), np.full((side, side, 3), shade, dtype=np.float32)
    )


GROUND = np.zeros((40, 40, 3), np.float32)


def test_later_items_hide_earlier_ones() -> None:
    drawn = compose(GROUND, [square(5, 5, 20, 100, kind=0), square(15, 5, 20, 200, kind=1)])
    assert drawn.image[10, 10, 0] == 100
    assert drawn.image[10, 20, 0] == 200
    first, second = visible(drawn)
    assert (first.kind, first.box, first.area) == (0, (5, 5, 10, 20), 200)
    assert (second.kind, second.box, second.area) == (1, (15, 5, 20, 20), 400)


@pytest.mark.parametrize(("overlap", "kept"), [(11, True), (12, True), (13, False), (20, False)])
def test_mostly_hidden_objects_have_no_box(overlap: int, kept: bool) -> None:
    drawn = compose(GROUND, [square(0, 5, 20, 100), square(20 - overlap, 5, 20, 200, kind=None)])
    assert [item.kind for item in visible(drawn)] == ([0] if kept else [])


def test_what_lies_outside_the_image_counts_as_hidden() -> None:
    assert [item.box for item in visible(compose(GROUND, [square(-10, 30, 20, 100)]))] == []
    assert [item.box for item in visible(compose(GROUND, [square(-10, 10, 20, 100)]))] == [(0, 10, 10, 20)]
    assert visible(compose(GROUND, [square(60, 60, 20, 100), square(-60, 0, 20, 100)])) == []


def test_crumbs_do_not_stretch_a_box() -> None:
    drawn = compose(GROUND, [square(0, 0, 20, 100), square(14, -1, 5, 9, kind=None), square(14, 4, 5, 9, kind=None)])
    behind = compose(
        GROUND, [square(0, 0, 20, 100), square(10, -10, 29, 9, kind=None), square(10, 19, 5, 9, kind=None)]
    )
    assert visible(drawn)[0].box == (0, 0, 20, 20)
    assert visible(behind)[0].box == (0, 0, 10, 20)


def test_scenes_keep_the_rule() -> None:
    """Measure, apart from `visible`, what shows of every object in some scenes; also that occlusion does happen."""
    partly = dropped = 0
    for seed in range(60):
        drawn = scene(np.random.default_rng(seed), SIZE)
        found = visible(drawn)
        shares = [
            np.count_nonzero(drawn.owner == index) / np.count_nonzero(item.cover >= 128)
            for index, item in enumerate(drawn.items)
            if item.kind is not None
        ]
        assert len(found) <= sum(share >= MIN_VISIBLE for share in shares)
        assert all(min(item.box[2:]) >= MIN_SIDE for item in found)
        partly += sum(MIN_VISIBLE <= share < 0.9 for share in shares)
        dropped += len(shares) - len(found)
    assert partly > 20
    assert dropped > 2


@pytest.mark.parametrize("name", CLASSES)
def test_shapes_fill_the_unit_circle(name: str) -> None:
    for seed in range(20):
        outline = shapes.outlines(np.random.default_rng(seed), name)
        reach = np.linalg.norm(np.concatenate(outline), axis=1).max()
        assert 0.9 < reach <= 1.1


# Files and faults -----------------------------------------------------------------------------------------------------


def test_data_yaml_is_absolute_whatever_the_folder_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = make("a: 'b' #\"c\" é", images=1, val=1, imgsz=64)
    read = yaml.safe_load(made.read_text(encoding="utf-8"))
    assert read["path"] == str(tmp_path / "a: 'b' #\"c\" é")
    assert read["names"] == dict(enumerate(CLASSES))
    assert made.is_absolute()
    assert cv2.imdecode(np.fromfile(next((made.parent / "images/val").iterdir()), np.uint8), 1).shape == (64, 64, 3)


def test_a_demo_set_is_replaced_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    out = tmp_path / "set"
    out.mkdir()  # an empty folder is fine
    make(out, images=3, val=1, imgsz=64)
    (out / "labels" / "train.cache").write_bytes(b"the host's")
    make(out, images=2, val=1, imgsz=64)
    assert len(list((out / "images/train").iterdir())) == 2
    assert not (out / "labels" / "train.cache").exists()
    assert list(tmp_path.iterdir()) == [out]


def test_nothing_of_the_user_is_written_over(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "data.yaml").write_text("path: elsewhere\n", encoding="utf-8")
    with pytest.raises(PruneError, match="is not empty and holds no demo set"):
        make(mine, images=1, val=1)
    with pytest.raises(PruneError, match="is a file"):
        make(mine / "data.yaml", images=1, val=1)
    made = make(tmp_path / "set", images=1, val=1, imgsz=64)
    (made.parent / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(PruneError, match=r"holds notes\.txt, which is not of the demo set"):
        make(made.parent, images=1, val=1)
    assert (made.parent / "notes.txt").read_text(encoding="utf-8") == "mine"


def test_an_interrupted_run_leaves_the_old_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(tmp_path / "set", images=2, val=1, imgsz=64)
    before = files(made.parent)

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dataset, "visible", stop)
    with pytest.raises(KeyboardInterrupt):
        make(made.parent, images=4, val=1, imgsz=64)
    assert files(made.parent) == before
    assert list(tmp_path.iterdir()) == [made.parent]


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(PruneError, match=r"^.*file.set cannot be written: [^\n]*$"):
        make(tmp_path / "file" / "set", images=1, val=1)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"images": 0}, "images=0 is not a whole number from 1 to 100000"),
        ({"val": 2.5}, "val=2.5 is not"),
        ({"imgsz": 32}, "imgsz=32 is not a whole number from 64 to 2048"),
        ({"seed": -1}, "seed=-1 is not"),
        ({"images": True}, "images=True is not"),
        ({"images": "many", "seed": None}, "images='many' is not .*; seed=None is not"),
    ],
)
def test_wrong_numbers_are_one_line(tmp_path: Path, wrong: dict[str, Any], match: str) -> None:
    with pytest.raises(PruneError, match=match) as caught:
        make(tmp_path / "set", **wrong)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "set").exists()


def test_the_module_has_no_random_state_of_its_own(data: Path) -> None:
    one, two = (scene(np.random.default_rng(7), SIZE).image for _ in range(2))
    assert np.array_equal(one, two)
    images = [cv2.imread(str(path)) for path in sorted((data.parent / "images/train").iterdir())[:5]]
    assert all(not np.array_equal(a, b) for a, b in pairwise(images))
