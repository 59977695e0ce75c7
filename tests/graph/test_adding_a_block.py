# yolo-prune, AGPL-3.0 license
"""docs/adding-a-block.md, run as it stands; and what happens to a block before anybody teaches it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from torch import nn
from ultralytics import YOLO
from ultralytics.nn import tasks

from tests.helpers.checkout import ROOT
from yolo_prune.graph import channel_groups
from yolo_prune.graph.blocks import BLOCKS

CODE = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "adding-a-block.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def page() -> Iterator[dict[str, Any]]:
    """The page's block class, defined; what the page teaches is forgotten afterwards."""
    known = dict(BLOCKS)
    namespace: dict[str, Any] = {"__name__": "page"}
    exec(CODE[0], namespace)
    yield namespace
    BLOCKS.clear()
    BLOCKS.update(known)
    vars(tasks).pop("CBAM", None)


def test_the_page_is_true(page: dict[str, Any]) -> None:
    exec("\n".join(CODE[1:]), page)
    assert page["Shuffle"] in BLOCKS


def test_an_untaught_block_is_protected_and_named(page: dict[str, Any]) -> None:
    model = YOLO("yolov8n.yaml").model
    stem = model.model[1]
    model.model[1] = nn.Sequential(stem, page["Shuffle"]())
    model.model[1].i, model.model[1].f, model.model[1].type = stem.i, stem.f, stem.type
    found = channel_groups.build(model)
    assert found.untaught == {"model.1.1": "Shuffle"}
    assert "model.1.1" in found.protected["model.1.0.conv"]
    assert "model.2.cv2.conv" not in found.protected
