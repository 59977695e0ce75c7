# yolo-prune, AGPL-3.0 license
"""Whether the weights that a training begins with know the classes of its data: then it is cut at once."""

from __future__ import annotations

from pathlib import Path

from ultralytics.nn.tasks import load_checkpoint

from yolo_prune.host.model_facts import class_names, train_arguments
from yolo_prune.host.run import Run, student_of


def knows_its_classes(run: Run) -> bool:
    """Whether the weights that a run begins with were trained on the classes of its data, by their names.

    False where they are no file here, and where the host leaves them aside (8.4.190, engine/trainer.py:
    `setup_model`). The host hands a head's classes on by name as well (`cls_remap`). With `single_cls`, and in task
    depth, any data have one name, so that the data must be those that the weights were trained on.
    """
    pretrained = run.arguments.pretrained
    weights = Path(str(pretrained if isinstance(pretrained, (str, Path)) else run.arguments.model))
    if pretrained is False or weights.suffix.lower() != ".pt" or not weights.is_file():
        return False
    network, checkpoint = load_checkpoint(weights)
    data = str(train_arguments(checkpoint).get("data"))
    same_for_all = run.arguments.single_cls or run.arguments.task == "depth"
    if same_for_all and Path(data).resolve() != Path(str(run.arguments.data)).resolve():
        return False
    trained_on = class_names(student_of(network))
    return bool(trained_on) and trained_on == class_names(run.student)
