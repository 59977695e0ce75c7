# yolo-prune, AGPL-3.0 license
"""The demo's settings are ones that the host and the plugin take, and fit the time that the demo promises."""

from __future__ import annotations

from yolo_prune.demo.settings import IMAGES, PRUNE_ARGS, TRAIN_ARGS
from yolo_prune.recipe.arguments import ARGUMENTS, from_arguments
from yolo_prune.recipe.schedule import step_epochs


def test_host_takes_them() -> None:
    from ultralytics.cfg import DEFAULT_CFG_DICT, get_cfg

    given = {**TRAIN_ARGS, **PRUNE_ARGS}
    assert set(given) <= {*DEFAULT_CFG_DICT, *ARGUMENTS}
    host = {name: value for name, value in given.items() if name not in ARGUMENTS}
    taken = get_cfg(overrides=host)
    assert {name: getattr(taken, name) for name in host} == host


def test_recipe_cuts_early_and_leaves_most_epochs_at_the_final_width() -> None:
    recipe = from_arguments(PRUNE_ARGS)
    assert recipe is not None
    epochs = PRUNE_ARGS["epochs"]
    step_epochs(recipe, epochs)
    assert epochs - step_epochs(recipe, epochs)[-1] >= 0.6 * epochs


def test_pruned_training_starts_from_its_parent() -> None:
    """`pretrained=False` makes the host drop a checkpoint's weights."""
    assert {**TRAIN_ARGS, **PRUNE_ARGS}.get("pretrained", True) is True


def test_the_work_stays_within_what_two_cores_do_in_the_promised_time() -> None:
    passes = IMAGES * (TRAIN_ARGS["epochs"] + 0.6 * PRUNE_ARGS["epochs"])
    pixels = passes * TRAIN_ARGS["imgsz"] ** 2
    assert pixels <= 180e6  # 0.63e6 a second on one core: 290 s of CPU time
