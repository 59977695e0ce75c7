# yolo-prune, AGPL-3.0 license
"""Mutations of runs that are resumed, go back or train in frames; mutation_list.py has all others."""

from __future__ import annotations

from mutation_places import Mutation

RUNS: tuple[Mutation, ...] = (
    # A run that is resumed, or goes back
    Mutation(
        "run",
        "self.trainer.ema.updates = updates",
        "self.trainer.ema.updates = 0",
        ("roll_back::test_going_back_gives_the_state_that_was",),
    ),
    Mutation(
        "best",
        'if "fitness_back" in back else []',
        "if False else []",
        ("record_best::test_best_may_be_the_model_that_was_put_back",),
    ),
    Mutation(
        "run",
        '("plots", "val", "save_json", "augment")',
        '("plots",)',
        ("session::test_a_validation_between_epochs_measures_what_an_epochs_does",),
    ),
    Mutation(
        "cadence",
        "if trainer is not self._trainer:",
        "if False:",
        ("after_the_cut::test_the_batches_to_a_step_of_one_training_are_not_those_of_the_next",),
    ),
    Mutation(
        "after_the_cut",
        "or cadence.is_own)",
        "or False)",
        ("after_the_cut::test_a_run_that_went_back_to_the_dense_model_steps_as_the_host_does",),
    ),
    Mutation(
        "session",
        "    session.actions.stop()  # where the host recovers",
        "    # where the host recovers",
        ("turns::test_nan_right_after_a_step_or_before_it_is_recovered",),
    ),
    Mutation(
        "known_classes",
        "if same_for_all and",
        "if False and",
        ("again::test_one_class_for_all_is_known_of_the_data_it_was_trained_on_alone",),
    ),
    Mutation(
        "resume",
        "return now.model_copy(update=changed)",
        "return now",
        ("resume::test_a_run_goes_on_with_the_recipe_that_it_began_with",),
    ),
    Mutation(
        "resume",
        "- run.start_epoch in (0, 1)",
        "- run.start_epoch in range(9)",
        ("session::test_a_plain_training_of_a_pruned_model_is_resumed_as_it_is",),
    ),
    Mutation(
        "session",
        "if was_cut and run.is_first and not hasattr(trainer, _RECIPE) and resume.has_pruned(run):",
        "if False:",
        ("attach::test_a_run_with_an_attached_recipe_is_resumed_with_it_or_not_at_all",),
    ),
    Mutation(
        "latency_of_run",
        "kept.unlink(missing_ok=True)",
        "pass",
        ("resume::test_a_profile_of_an_earlier_run_in_the_folder_is_not_this_runs",),
    ),
    Mutation(
        "frames",
        "(points * whole + border)",
        "(points * whole)",
        ("frames::test_in_pixels_labels_move_by_the_border_and_keep_their_size",),
    ),
    Mutation(
        "frames",
        "family(network) is not RTDETR",
        "True",
        ("frames::test_what_is_validated_without_frames_is_trained_without",),
    ),
    Mutation(
        "frames",
        "sum(bar < border for bar in bars)",
        "len(bars)",
        ("frames::test_images_with_bars_of_their_own_are_left_as_they_are",),
    ),
)
