# yolo-prune, AGPL-3.0 license
"""What an export leaves on disk where it dies, or finds the disk full or something in the way: whole files or none."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from ultralytics import YOLO

from tests.helpers.untrained import QUICK
from yolo_prune.errors import PruneError, VerifyError
from yolo_prune.export import artifact_files, compare, job, results
from yolo_prune.host import inference


def test_an_export_that_dies_leaves_what_was_there(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (model.parent / "best.onnx").write_bytes(b"an older one")

    def dies(self: Any, **_: Any) -> str:
        Path(self.ckpt_path).with_suffix(".onnx").write_bytes(b"half")
        raise AssertionError("out of luck\nmore")

    monkeypatch.setattr(YOLO, "export", dies)
    with pytest.raises(PruneError, match=r"the export of .*best\.pt failed\. ultralytics .* to onnx: out of luck$"):
        job.export(model, **QUICK)
    assert sorted(path.name for path in model.parent.iterdir()) == ["best.onnx", "best.pt"]
    assert (model.parent / "best.onnx").read_bytes() == b"an older one"


def test_a_run_that_dies_later_leaves_no_older_proof(
    model: Path, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model.parent / "export.json").write_text("{}", encoding="utf-8")

    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(results, "validate", dies)
    with pytest.raises(KeyboardInterrupt):
        job.export(model, data=tiny_data, **QUICK)
    assert sorted(path.name for path in model.parent.iterdir()) == [
        "best.pt",
        "export.log",
    ]  # nor anything that is not proven


def test_a_full_disk_is_one_line_and_nothing_half_written(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (model.parent / "best.onnx").write_bytes(b"an older one")
    stock = shutil.copyfile

    def full(source: Any, target: Any, **rest: Any) -> Any:
        if model.parent in Path(target).parents:
            Path(target).write_bytes(b"half")
            raise OSError(28, "No space left on device", str(source), None, str(target))  # as copyfile says it
        return stock(source, target, **rest)

    monkeypatch.setattr(artifact_files.shutil, "copyfile", full)
    with pytest.raises(PruneError, match=r"best\.onnx cannot be written: No space left on device") as caught:
        job.export(model, **QUICK)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in model.parent.iterdir()) == ["best.onnx", "best.pt", "export.log"]
    assert (model.parent / "best.onnx").read_bytes() == b"an older one"


def test_a_disk_that_is_full_in_a_write_names_no_file_and_ends_the_export(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def full(*_: Any, format: str, **__: Any) -> str:  # noqa: A002 (the host's name)
        tried.append(format)
        with Path("/dev/full").open("w") as stream:
            stream.write("x")
        return ""

    monkeypatch.setattr(YOLO, "export", full)
    with pytest.raises(PruneError, match=rf"^{model.parent} cannot be written: No space left on device$"):
        job.export(model, format="onnx,torchscript", **QUICK)
    assert tried == ["onnx"], "another format finds no more room"


def test_an_error_of_the_system_that_is_of_no_file_of_ours_is_of_its_format_alone(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a library that onnxruntime loads, or of the host's exporter."""
    missing = OSError("libgomp.so.1: cannot open shared object file")
    stock = compare.of_artifact

    def of_artifact(file: Path, kind: str, *rest: Any) -> Any:
        if kind == "onnx":
            raise missing
        return stock(file, kind, *rest)

    monkeypatch.setattr(compare, "of_artifact", of_artifact)
    with pytest.raises(
        VerifyError, match=r"do not deploy it: onnx fp32: libgomp\.so\.1: cannot open shared object file"
    ):
        job.export(model, format="onnx,torchscript", **QUICK)
    assert (model.parent / "best.torchscript").is_file()

    def dies(*_: Any, **__: Any) -> str:
        raise missing

    monkeypatch.setattr(YOLO, "export", dies)
    with pytest.raises(PruneError, match=r"^the export of .*best\.pt failed\. ultralytics .* to onnx: libgomp\.so\.1"):
        job.export(model, **QUICK)
    monkeypatch.setattr(job, "_samples", dies)
    with pytest.raises(PruneError, match=r"^.*best\.pt could not be exported: libgomp\.so\.1"):
        job.export(model, **QUICK)


def test_a_file_that_the_host_cannot_open_is_of_its_format_alone(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stock = inference.AutoBackend

    def backend(file: str, **more: Any) -> Any:
        if file.endswith(".onnx"):
            raise RuntimeError("INVALID_PROTOBUF: no model\nmore")
        return stock(file, **more)

    monkeypatch.setattr(inference, "AutoBackend", backend)
    with pytest.raises(
        VerifyError, match=r": onnx fp32: best\.onnx cannot be opened: INVALID_PROTOBUF: no model\. More"
    ):
        job.export(model, format="onnx,torchscript", **QUICK)
    assert (model.parent / "best.torchscript").is_file()


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    new, target = tmp_path / "new", tmp_path / "out" / "best_ncnn_model"
    new.mkdir()
    (new / "a").write_text("new")
    target.mkdir(parents=True)
    (target / "b").write_text("old")
    artifact_files.place(new, target)
    assert [path.name for path in target.iterdir()] == ["a"]
    assert [path.name for path in target.parent.iterdir()] == ["best_ncnn_model"]
    (tmp_path / "out" / "best.onnx").mkdir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(PruneError, match=r"a folder of that name is in the way"):
        artifact_files.place(tmp_path / "file", tmp_path / "out" / "best.onnx")
