# yolo-prune, AGPL-3.0 license
"""What the demo refuses before its first picture is drawn."""

from __future__ import annotations

from pathlib import Path

import pytest

from yolo_prune.demo import dataset, run
from yolo_prune.errors import HostError, PruneError


@pytest.fixture(autouse=True)
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note what is trained, and go no further."""
    models: list[str] = []

    def of(weights: object) -> None:
        models.append(str(weights))
        raise InterruptedError

    monkeypatch.setattr(run.yolo_object, "of", of)
    monkeypatch.setattr(run, "IMAGES", 2)
    monkeypatch.setattr(run, "VAL_IMAGES", 1)
    return models


@pytest.mark.parametrize("name", ["dense", "pruned"])
def test_runs_that_are_no_demos_are_left_alone(name: str, tmp_path: Path, trained: list[str]) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(PruneError, match=rf"^out=.*: .*{name} is there and no demo has made it; name another folder, "):
        run.run(out=str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == [name]
    dataset.make(tmp_path / "data", images=1, val=1, imgsz=64)
    with pytest.raises(InterruptedError):
        run.run(out=str(tmp_path))
    assert trained == ["yolov8n.yaml"]


def test_a_demo_with_the_plugin_off_is_refused_at_once(
    tmp_path: Path, trained: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YOLO_PRUNE", "0")
    with pytest.raises(HostError, match=r"^YOLO_PRUNE=0 turns the plugin off: unset it, for the demo prunes"):
        run.run(out=str(tmp_path / "new"))
    assert not trained
    assert not list(tmp_path.iterdir())
