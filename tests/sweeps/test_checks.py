# yolo-prune, AGPL-3.0 license
"""What is known of a sweep before any work: which image size all is compared with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.helpers.untrained import SIDE, save
from tests.sweeps.test_request import read
from yolo_prune.errors import PruneError
from yolo_prune.sweeps import checks, folder, points
from yolo_prune.sweeps.request import Request


@pytest.fixture(scope="module")
def asked(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Request:
    """Of a model that was trained at 64 pixels."""
    model = save(tmp_path_factory.mktemp("asked") / "best.pt", 0)
    assert torch.load(model, weights_only=False)["train_args"]["imgsz"] == SIDE == 64
    return read(model=str(model), data=str(tiny_data))


@pytest.mark.parametrize(
    ("given", "sizes", "line"),
    [
        ((), (64,), None),
        ((64, 32), (64, 32), None),
        ((64, 96), (64, 96), None),
        (
            (32, 60, 96),
            (64, 32, 96),
            "imgsz=32,64,96: all is compared with the model itself at 64 pixels, the",
        ),
        ((32, 96), (96, 32), "at 96 pixels, the largest of these (best.pt was trained at 64)"),
        ((96, 32), (96, 32), None),
    ],
)
def test_all_is_compared_with_the_model_at_its_own_size_whatever_the_order(
    given: tuple[int, ...], sizes: tuple[int, ...], line: str | None, asked: Request, caplog: pytest.LogCaptureFixture
) -> None:
    request = checks.check(replace(asked, imgsz=given)).request
    assert request.imgsz == sizes
    assert line in caplog.text if line else "compared" not in caplog.text
    own = next(one for one in points.of(request) if one.kind == "dense")
    assert (own.imgsz, own.small) == (sizes[0], False)


def test_the_order_of_the_image_sizes_makes_no_other_sweep(asked: Request, tmp_path: Path) -> None:
    """An earlier version noted them as they were given."""
    folder.note(tmp_path, replace(asked, imgsz=(32, 64)))
    folder.require_same(tmp_path, replace(asked, imgsz=(64, 32)))
    with pytest.raises(PruneError, match=r"imgsz= was 32,64 and is 96,32"):
        folder.require_same(tmp_path, replace(asked, imgsz=(96, 32)))
