# yolo-prune, AGPL-3.0 license
"""Jobs as trials of Ray Tune, on a cluster of two machines, one of which dies: every job is done, and none twice.

The processes are those of test_local.py, which take milliseconds; benchmarks/sweep_ray.py has real trainings.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.sweeps.test_local import STAND_IN
from yolo_prune.errors import PruneError

ray = pytest.importorskip("ray", reason="ray is not installed: pip install yolo-prune[ray]")

from ray.cluster_utils import Cluster  # noqa: E402

from yolo_prune.sweeps import folder as folders  # noqa: E402
from yolo_prune.sweeps import ray_cluster, ray_trials  # noqa: E402


class TwoMachines:
    """A head that takes no trial, and two machines of one CPU each, the second of which can be killed."""

    def __init__(self) -> None:
        quick = {"health_check_period_ms": 500, "health_check_failure_threshold": 4}  # to see that a machine is dead
        head = {"num_cpus": 0, "include_dashboard": False, "_system_config": quick}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self.stays, self.dies = (self.cluster.add_node(num_cpus=1) for _ in range(2))

    def kill(self) -> None:
        """SIGKILL all processes of the second machine."""
        self.cluster.remove_node(self.dies, allow_graceful=False)


@pytest.fixture(scope="module")
def machines() -> Iterator[TwoMachines]:
    """The cluster, with which this process is connected."""
    two = TwoMachines()
    ray.init(address=two.cluster.address, log_to_driver=False, logging_level="error")
    yield two
    ray.shutdown()
    two.cluster.shutdown()


def run(
    folder: Path, names: Sequence[str], tick: Callable[[Sequence[str]], None] = lambda names: None
) -> dict[str, dict[str, Any]]:
    """Do jobs of these names, and return what each came to."""
    told: dict[str, dict[str, Any]] = {}
    jobs = [{"folder": str(folder), "stage": "trained", "name": name} for name in names]
    with ray_cluster.connected():
        share = ray_cluster.share(1, 0, None)
        assert share.at_a_time == len(share.machines)
        ray_trials.run(
            jobs,
            folder,
            "trained",
            share,
            lambda job, outcome: told.update({job["name"]: outcome}),
            tick,
            ["-c", STAND_IN],
        )
    return told


def test_what_no_machine_can_do_is_one_line(machines: TwoMachines, tmp_path: Path) -> None:
    with ray_cluster.connected():
        with pytest.raises(PruneError, match=r"cpus=1, gpus=0.5: no machine of the Ray cluster has as much; .* 1 CPUs"):
            ray_cluster.share(None, 0.5, None)
        share = ray_cluster.share(None, None, 1)
        assert (share.cpus, share.gpus, share.at_a_time, len(share.machines)) == (1, 0, 1, 2)
        with pytest.raises(PruneError, match=r"does not see .*/\.running: the model, the data"):
            ray_cluster.require_same_files(share, tmp_path, [])
        (tmp_path / ".running").touch()
        ray_cluster.require_same_files(share, tmp_path, [__file__, "coco8.yaml"])


def test_a_machine_that_dies_takes_no_job_with_it(machines: TwoMachines, tmp_path: Path) -> None:
    most = [0]

    def kill_one(names: Sequence[str]) -> None:
        most.append(len(names))
        if len(names) == 2 and not (tmp_path / "killed").exists():
            held = [name for name in names if (tmp_path / name / "pid").exists()]
            if len(held) == 2:
                (tmp_path / "killed").touch()
                machines.kill()

    told = run(tmp_path, ["slow1", "slow2", "a", "dies"], kill_one)
    assert (tmp_path / "killed").exists()
    assert max(most) == 2
    assert sorted(told) == ["a", "dies", "slow1", "slow2"]
    assert "failed" not in {**told["slow1"], **told["slow2"], **told["a"]}
    assert told["a"]["device"] == "cpu", "a machine of which it has no GPU"
    assert told["dies"]["failed"] == "its process, or the machine that it was on, died 3 times"
    assert (tmp_path / "ray" / "trained-1").is_dir()
    stamps = {name: (tmp_path / name / "trained.json").stat().st_mtime_ns for name in ("slow1", "slow2", "a")}

    again = run(tmp_path, ["dies"])  # what failed is tried again, in the same experiment
    assert again["dies"]["failed"]
    assert not (tmp_path / "ray" / "trained-2").exists()
    assert {name: (tmp_path / name / "trained.json").stat().st_mtime_ns for name in stamps} == stamps
    (tmp_path / "a" / "trained.json").unlink()  # Ray holds it for done
    assert "failed" not in run(tmp_path, ["a"])["a"]
    assert (tmp_path / "ray" / "trained-2").is_dir()


def test_a_training_that_ends_with_an_error_is_not_tried_again(machines: TwoMachines, tmp_path: Path) -> None:
    folders.finish(tmp_path, "a", "trained", {"failed": "of an earlier command"})
    told = run(tmp_path, ["fails", "a"])
    assert told["fails"] == {"failed": "no luck"}
    assert (tmp_path / "fails" / "tries").read_text() == "x"
    assert "failed" not in told["a"]


def test_where_no_cluster_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", "ray://10.0.0.1:10001")
    with pytest.raises(PruneError, match="a sweep is begun on a machine of the cluster"), ray_cluster.connected():
        pass
    with socket.socket() as unheard:  # a port at which nobody listens
        unheard.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unheard.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(PruneError, match=f"RAY_ADDRESS={address}: no Ray cluster answers"), ray_cluster.connected():
            pass
