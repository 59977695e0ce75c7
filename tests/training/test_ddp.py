# yolo-prune, AGPL-3.0 license
"""Several processes: the host's real trainer in two of them over gloo on the CPU, compared bit for bit."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from ultralytics.engine import trainer
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils.torch_utils import get_num_params

from tests.helpers.checkout import ROOT
from tests.helpers.environments import Done, Environment
from tests.helpers.gloo import GlooTrainer
from tests.helpers.runs import SMALL, record_of
from tests.helpers.small_models import SMALL_MODEL
from yolo_prune.errors import PruneError

WORDS: dict[str, Any] = {
    **SMALL,
    "model": str(SMALL_MODEL),
    "epochs": 4,
    "nbs": 4,
    "name": "run",
    "exist_ok": True,
}
STEPS = {"prune_steps": 2, "prune_start": 0.25, "prune_end": 0.5}

START = """
import json, sys
if __name__ == "__main__":
    from gloo import GlooTrainer
    GlooTrainer(overrides=json.loads(sys.argv[1])).train()
"""
ATTACH = f"""
import json, sys
sys.path.insert(0, {str(ROOT)!r})
import yolo_prune
if __name__ == "__main__":
    from gloo import GlooTrainer
    from ultralytics import YOLO
    yolo = YOLO({str(SMALL_MODEL)!r})
    yolo_prune.attach(yolo, 0.5, schedule="oneshot", start=0.5, distill_outputs=1.0, nbs=2)
    yolo.train(trainer=GlooTrainer, **json.loads(sys.argv[1]))
"""


def start(environment: Environment, folder: Path, code: str = START, **arguments: Any) -> Done:
    """Start the parent of a run in two processes, in `folder`."""
    shutil.copy(ROOT / "tests" / "helpers" / "gloo.py", folder)
    (folder / "start.py").write_text(code)
    words = {"project": str(folder / "runs"), **WORDS, **arguments}
    return environment.run("python", "start.py", json.dumps(words), cwd=folder)


def rows_of(folder: Path, rank: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"rank{rank}.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def run(wheel_env: Environment, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ddp")
    done = start(wheel_env, folder, data=str(tiny_data), prune=0.5, **STEPS)
    assert done.code == 0, done.text[-4000:]
    return folder


def test_every_process_takes_the_same_steps_bit_for_bit(run: Path) -> None:
    first, second = rows_of(run, 0)[1:], rows_of(run, 1)[1:]
    assert first == second
    assert [row["epoch"] for row in first] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert all(row["wrapped"] for row in first)
    before, steps = first[0]["params"], record_of(run / "runs" / "run")["steps"]
    assert [row["params"] for row in first[::2]] == [before, *(row["params"] for row in steps), steps[-1]["params"]]


def test_they_train_on_after_a_step(run: Path) -> None:
    rows = rows_of(run, 0)[1:]
    assert len(rows) >= 2
    for begin, end in zip(rows[::2], rows[1::2], strict=True):
        assert all(begin[key] != end[key] for key in ("weights", "ema", "optimizer")), begin["epoch"]


def test_the_first_process_decides_and_its_error_reaches_all(run: Path) -> None:
    for rank in (0, 1):
        assert rows_of(run, rank)[0] == {"decided": "by rank 0", "failed": "rank 0 fails"}


def test_what_it_leaves_is_what_a_single_process_leaves(run: Path) -> None:
    record = record_of(run / "runs" / "run")
    assert [row["epoch"] for row in record["history"]] == [1, 2, 3, 4]
    for name in ("best.pt", "last.pt"):
        model, _ = load_checkpoint(run / "runs" / "run" / "weights" / name)
        assert get_num_params(model) == record["final"]["params"]
    assert record["final"]["gflops"] <= 0.5 * record["baseline"]["gflops"]
    assert (run / "runs" / "run" / "pruning.png").is_file()


def test_attach_reaches_workers_in_which_no_start_up_file_runs(
    stock_env: Environment, tiny_data: Path, tmp_path: Path
) -> None:
    done = start(stock_env, tmp_path, ATTACH, data=str(tiny_data), epochs=2)
    assert done.code == 0, done.text[-4000:]
    assert rows_of(tmp_path, 0) == rows_of(tmp_path, 1)
    record = record_of(tmp_path / "runs" / "run")
    assert [row["epoch"] for row in record["steps"]] == [2]
    assert rows_of(tmp_path, 1)[-1]["params"] == record["final"]["params"] < record["baseline"]["params"]


def test_a_bad_recipe_ends_the_parent_in_one_line_before_workers_start(
    wheel_env: Environment, tiny_data: Path, tmp_path: Path
) -> None:
    done = start(wheel_env, tmp_path, data=str(tiny_data), prune_flops="0.1%")
    assert done.code == 1
    assert "Traceback" not in done.text, done.text[-3000:]
    lines = [line for line in done.err.splitlines() if line.startswith("yolo-prune:")]
    assert len(lines) == 1
    assert "out of reach" in lines[0]
    assert "torch.distributed.run" not in done.text, "no worker was started"
    assert not list(tmp_path.glob("rank*"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"prune": 1.5}, r"prune=1\.5"), ({"prune": 0.5, "prune_importance": "unheard"}, "unheard")],
)
def test_the_parent_refuses_what_each_of_its_checks_finds(
    arguments: dict[str, Any], words: str, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "generate_ddp_command", lambda *_: pytest.fail("workers were started"))
    with pytest.raises(PruneError, match=words):
        GlooTrainer(overrides={"project": str(tmp_path), "data": str(tiny_data), **WORDS, **arguments}).train()
