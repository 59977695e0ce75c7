# yolo-prune, AGPL-3.0 license
"""The faults that mutations.py puts into the tree, and the tests that must fail for each (keys: mutation_places.py)."""

from __future__ import annotations

from mutation_places import Mutation
from mutation_runs import RUNS

ANSWERS = ("known_answers",)
WEIGHTS = "planted::test_weights_of_groups_are_exact"
RIDGE = (
    "planted::test_a_layer_comes_back_but_for_the_share_that_the_ridge_holds",
    "planted::test_inputs_that_are_sums_of_others_are_not_missed",
    "planted::test_the_ridge_is_that_of_least_error_on_images_held_out",
)
PLANTED = ("planted::test_each_part_of_the_reconstruction_gives_back_a_part_of_the_loss",)
NORMS = ("norms",)
UNTRUE = ("reconstruct::test_statistics_that_are_not_true_yet_are_not_aimed_at",)
BEST = ("record_best",)
DEAD = "planted::test_dead_channels_blocks_and_heads_leave_no_trace"  # the oracle
HALVED = "planted::test_attention_with_half_of_its_keys_attends_as_before"
MUTATIONS = (
    # How much is lost, and where it is cut
    Mutation("units", "STEEPNESS = 4.0", "STEEPNESS = 0.5", ANSWERS),
    Mutation("units", "return self.weight * loss(", "return loss(", ANSWERS),
    Mutation("units", "dtype=float), 1e-3)", "dtype=float), 1e-1)", ANSWERS),
    Mutation("units", "[-np.sort(-scores).reshape", "[np.sort(scores).reshape", ANSWERS),
    Mutation("units", "* self.size / max(self.original, 1))", ")", ANSWERS),
    Mutation("scopes", "_ROUNDS = 40", "_ROUNDS = 0", ANSWERS),
    Mutation(
        "scopes",
        "return _fill(problem, counts(low), wanted)\n\n\ndef isomorphic",
        "return counts(low)\n\n\ndef isomorphic",
        ANSWERS,
    ),
    Mutation("scopes", "kinds.setdefault(unit.kind, [])", 'kinds.setdefault("", [])', ANSWERS),
    Mutation("scopes", "loss / np.maximum(self.saving(n, step), 1e-9)", "loss", ANSWERS),
    Mutation("scopes", "if self.guide is not None:", "if False:", ANSWERS),
    Mutation("scopes", "return low - n / original", "return n / original - low", ANSWERS),
    Mutation(
        "scopes", "if paid is not None and (best is None or", "if paid is not None and (best is not None or", ANSWERS
    ),
    Mutation("scopes", "nearest = int(count / multiple + 0.5) * multiple", "nearest = int(count)", ANSWERS),
    Mutation("allocate", "shares.get(part.pool, 0.0) + part.share", "part.share", ANSWERS),
    Mutation("allocate", "if not part.heads][:most_blocks]", "if not part.heads]", ANSWERS),
    Mutation("allocate", "np.argsort(-scores, kind", "np.argsort(scores, kind", ANSWERS),
    Mutation("allocate", "max(-(-step // multiple) for step in steps) + 1", "2", ANSWERS),
    Mutation("allocate", "int(np.ceil(size * (1 - max_cut) - 1e-9))", "int(size * (1 - max_cut) / 2)", ANSWERS),
    Mutation(
        "costs",
        "return slope * step + bend * step**2",
        "return slope * step",
        ANSWERS,
    ),
    Mutation("costs", "o * (1 + self.tail), o)", "o, o)", ANSWERS),
    Mutation(
        "costs", "np.where(self.free[rows], inp, rounded(inp, self.step_in))", "rounded(inp, self.step_in)", ANSWERS
    ),
    Mutation(
        "costs",
        "per_output=self.per_output * effect.layers,\n            outs",
        "per_output=self.per_output,\n            outs",
        ("whole_parts::test_the_cost_without_a_part_is_the_hosts_own_count",),
    ),
    Mutation(
        "step",
        "_now_named(baseline.weights, first) or weights)",
        "_now_named(baseline.weights, first))",
        ("planted::test_the_branch_that_matters_keeps_more_and_the_cut_costs_less",),
    ),
    Mutation(
        "candidates",
        "key=lambda head: values[head]",
        "key=lambda head: -values[head]",
        ("whole_parts::test_the_least_important_head_goes",),
    ),
    # When
    Mutation("schedule", "1 - (1 - time) ** 3", "1 - (1 - time) ** 2", ("schedule",)),
    Mutation("schedule", "floor(part * epochs + 1e-9)", "floor(part * epochs)", ("schedule",)),
    Mutation("schedule", "(2 * i * (last - first) + gaps)", "(2 * i * (last - first))", ("schedule",)),
    # What channels are worth
    Mutation("gates", "_LEAST_WEIGHT = 0.05", "_LEAST_WEIGHT = 50", (WEIGHTS,)),
    Mutation("gates", "float(np.median(list(totals.values())))", "float(np.mean(list(totals.values())))", (WEIGHTS,)),
    Mutation(
        "gates",
        'half = 0.5 if self.kind in ("fisher", "obdc")',
        'half = 0.5 if self.kind in ("obdc",)',
        ("gates::test_what_is_accumulated_is_the_derivative_at_a_gate",),
    ),
    Mutation(
        "gates",
        "product**2 + other**2 if",
        "product**2 if",
        ("gates::test_one_vector_of_all_channels_gives_what_each_group_by_itself_does",),
    ),
    Mutation("gates", "self._counts /= 2", "self._counts /= 1", ("gates::test_what_is_old_counts_half",)),
    Mutation("importance", "raw[name] / mean if", "raw[name] if", ("importance",)),
    # What makes up for a cut
    Mutation("least_squares", "RIDGES = (0.003,", "RIDGES = (0.5,", RIDGE),
    Mutation("least_squares", "int(sums.argmin())", "int(sums.argmax())", RIDGE),
    Mutation("least_squares", "copy_(middle_y - fitted @ middle_a)", "copy_(middle_y)", RIDGE),
    Mutation("norms", "running_mean.copy_(mean + before", "running_mean.copy_(mean - before", NORMS),
    Mutation("norms", "* before.ratio", "/ before.ratio", NORMS),
    Mutation("reconstruct", "be_of_images(model, momentum=1.0", "be_of_images(model, momentum=0.0", UNTRUE),
    Mutation("reconstruct", "norm.running_mean -= ", "norm.running_mean += ", PLANTED),
    Mutation(
        "reconstruct",
        "gone[torch.as_tensor(columns, device=mean.device)] = 0",
        "gone *= 1",
        ("reconstruct::test_constant_channels_leave_their_mean",),
    ),
    # What is cut
    Mutation(
        "surgery", "weight.data[:, block.before] += weight.data[:, block.own]", "pass", (DEAD + "[yolov8n.yaml]",)
    ),
    Mutation(
        "surgery",
        "return new.contiguous(memory_format=torch.channels_last)",
        "return new.contiguous()",
        ("continuity::test_frozen_layers_dtype_and_memory_format_stay",),
    ),
    Mutation(
        "surgery",
        "new.grad = kept.of(old.grad)",
        "new.grad = None",
        ("continuity::test_pending_gradients_are_cut_with_their_weights",),
    ),
    Mutation(
        "surgery", "Kept(inp, out) if inputs_first", "Kept(out, inp) if inputs_first", (DEAD + "[yolov8n-seg.yaml]",)
    ),
    Mutation(
        "residual",
        "np.arange(start, start + width), np.arange(start - width, start)",
        "np.arange(start, start + width), np.arange(start, start + width)",
        (DEAD + "[yolov8n.yaml]",),
    ),
    Mutation(
        "residual",
        "[made] for made in inside if made in energy)",
        "[made] for made in energy)",
        ("whole_parts::test_a_block_that_adds_nothing_goes_first_and_one_that_adds_all_stays",),
    ),
    Mutation("blocks", "mul_((now / before) ** 0.5)", "mul_(1.0)", (HALVED,)),
    Mutation("blocks", "block.scale = block.key_dim**-0.5", "block.scale = block.scale", (HALVED,)),
    # What a training keeps through a cut
    Mutation(
        "continuity",
        "key: item.kept.of(value) if",
        "key: torch.zeros_like(item.new) if",
        ("continuity::test_state_follows_its_own_weights",),
    ),
    Mutation(
        "averaging", "ema._pairs = None", "pass", ("continuity::test_the_ema_follows_the_live_model_after_a_cut",)
    ),
    Mutation(
        "averaging",
        "return max(host(updates), decay(updates))",
        "return decay(updates)",
        ("after_the_cut::test_the_hosts_average_takes_over_where_it_is_the_longer",),
    ),
    Mutation(
        "after_the_cut",
        "eta = 1 / age - 2",
        "eta = 1 / age",
        ("after_the_cut::test_the_average_is_as_old_as_a_share_of_the_steps",),
    ),
    Mutation(
        "canvases",
        "dataset.batch_shapes = getattr(dataset, _ATTRIBUTE)",
        "pass",
        ("canvases::test_epochs_are_validated_on_both_canvases_and_best_on_the_hosts",),
    ),
    Mutation(
        "canvases",
        "        _begin_anew(trainer.test_loader)\n    getattr",
        "        pass\n    getattr",
        ("canvases::test_worker_processes_hear_of_it",),
    ),
    Mutation(
        "canvases",
        "and not trainer.args.rect",
        "",
        ("canvases::test_one_batch_and_rectangles_that_were_asked_for_stay_the_hosts",),
    ),
    Mutation(
        "projectors",
        "replaced += cut_channels.cut_conv(projector, None, columns)",
        "pass",
        ("continuity::test_a_projector_keeps_the_columns_of_the_channels_that_stay",),
    ),
    Mutation(
        "warmup",
        "/ (self.steps + 1) if",
        "/ self.steps if",
        ("recovery::test_the_rate_comes_back_in_a_straight_line_and_then_stays",),
    ),
    Mutation(
        "warmup",
        'group["lr"] = rate',
        "pass",
        ("recovery::test_the_rate_comes_back_in_a_straight_line_and_then_stays",),
    ),
    Mutation("best", "max(reversed(known)", "max(known", BEST),
    Mutation("best", "max(reversed(known)", "min(reversed(known)", BEST),
    Mutation("best", 'if step.get("epoch") == first else []', "if False else []", BEST),
    Mutation("best", '*(row.get("undone", 1) for row in record["steps"])', "1", BEST),
    Mutation("best", "fitness <= cut for", "fitness < cut for", BEST),
    Mutation(
        "run",
        "self.trainer.best_fitness = self.trainer.fitness = fitness",
        "self.trainer.fitness = fitness",
        ("best_model::test_it_is_the_model_as_cut_where_no_epoch_is_better",),
    ),
    Mutation(
        "saving",
        "has_ended_one = trainer.epoch >= trainer.start_epoch",
        "has_ended_one = True",
        ("best_model::test_it_is_the_model_as_cut_where_no_epoch_is_better",),
    ),
    Mutation(
        "schedule",
        "if recipe.start is None and alone > 0:",
        "if recipe.start is None and alone > 1:",
        ("schedule::test_a_start_that_is_left_open_lets_a_model_learn_its_classes_first",),
    ),
    Mutation(
        "max_drop",
        "(last - epochs[-1] + 1) // 2",
        "(last - epochs[-1]) // 2",
        ("roll_back::test_the_last_step_is_judged_half_way_to_the_end",),
    ),
    Mutation(
        "roll_back",
        'state[key], old) for key in ("live", "average")',
        'state[key], old) for key in ("average", "average")',
        ("roll_back::test_going_back_gives_the_state_that_was",),
    ),
    Mutation(
        "roll_back",
        "requires_grad_(trained.get(name, True))",
        "requires_grad_(True)",
        ("roll_back::test_going_back_gives_the_state_that_was",),
    ),
    # Zeros and pressure
    Mutation(
        "masks",
        "argsort(dim=1, stable=True)",
        "argsort(dim=1, descending=True)",
        ("masks::test_of_every_m_inputs_the_largest_n_stay",),
    ),
    Mutation(
        "masks",
        "squares / remaining.clamp_min(1e-300)",
        "squares",
        ("masks::test_a_share_of_all_weights_goes_and_no_layer_is_emptied",),
    ),
    Mutation(
        "masks",
        "            weight.mul_(mask)",
        "            pass",
        ("masks::test_zeros_hold_through_momentum_and_weight_decay",),
    ),
    Mutation(
        "regularize",
        'float(group["lr"]) for group',
        'float(max(g["lr"] for g in optimizer.param_groups)) for group',
        ("regularize::test_each_tensor_is_pressed_at_the_rate_of_its_own_parameter_group",),
    ),
    Mutation(
        "regularize",
        'float(group["lr"]) for group',
        'float(min(g["lr"] for g in optimizer.param_groups)) for group',
        ("regularize::test_each_tensor_is_pressed_at_the_rate_of_its_own_parameter_group",),
    ),
    Mutation(
        "regularize",
        "(share * weight).clamp_max(_MOST)",
        "(share * weight)",
        ("regularize::test_one_step_takes_a_tenth_of_a_typical_channel_at_most",),
    ),
    Mutation(
        "masks",
        "count = round(progress * candidates.numel())",
        "count = candidates.numel()",
        ("masks::test_half_way_takes_the_smallest_of_those_that_will_go",),
    ),
    Mutation(
        "regularize",
        "_ALPHA = 4.0",
        "_ALPHA = 0.0",
        ("regularize::test_the_least_of_a_group_is_pressed_sixteen_times_as_much_as_the_most",),
    ),
    # What a device takes
    Mutation(
        "latency_model",
        "o = up(out, steps.out) * (1 + steps.tail * (out % steps.out > 0))",
        "o = up(out, steps.out)",
        ("latency::test_what_a_layer_costs_by_is_known",),
    ),
    Mutation(
        "latency_model",
        "if error < 0.9 * best[0]",
        "if error < 9 * best[0]",
        ("latency::test_channel_steps_are_learned",),
    ),
    Mutation(
        "latency_model",
        "x[j] = max(0.0, x[j] +",
        "x[j] = (x[j] +",
        ("latency::test_no_coefficient_is_below_zero_and_the_others_make_the_best_of_it",),
    ),
    # Widths in the yaml
    Mutation(
        "architecture",
        "[None, *counts[1:]] if name in native else counts",
        "counts",
        ("again::test_on_other_classes_the_towers_keep_their_widths",),
    ),
    Mutation(
        "architecture",
        '[*spec.get("removed", []), *removed]',
        "list(removed)",
        ("whole_parts::test_a_run_removes_blocks_and_resumes_trains_and_prunes_again",),
    ),
    Mutation(
        "architecture", 'if spec.get("scale"):', "if False:", ("again::test_the_yaml_of_another_scale_keeps_its_depth",)
    ),
    # When it is cut, and how it trains on
    Mutation(
        "begin",
        "return known_classes.knows_its_classes(run)",
        "return False",
        ("again::test_a_model_that_knows_the_classes_is_cut_before_the_first_epoch",),
    ),
    Mutation(
        "begin",
        'return bool(noted and noted["steps"] and noted["steps"][0]["epoch"] == 1)',
        "return False",
        ("again::test_a_model_that_knows_the_classes_is_cut_before_the_first_epoch",),
    ),
    Mutation(
        "known_classes",
        "bool(trained_on) and trained_on == ",
        "bool(trained_on) or trained_on == ",
        ("again::test_a_second_prune_goes_on_from_there_on_other_classes",),
    ),
    Mutation(
        "after_the_cut",
        "return own and bool(session.epochs)",
        "return False and bool(session.epochs)",
        ("after_the_cut::test_an_end_to_end_head_takes_as_many_steps_before_the_cut",),
    ),
    Mutation(
        "after_the_cut",
        "recipe.frames and cut",
        "recipe.frames",
        ("after_the_cut::test_a_run_that_went_back_to_the_dense_model_steps_as_the_host_does",),
    ),
    Mutation(
        "loss",
        "losses, whole = [], detection_head.is_end_to_end(network)",
        "losses, whole = [], False",
        ("sensitivity::test_both_branches_of_an_end_to_end_head_count",),
    ),
    Mutation(
        "scratch",
        "os.register_at_fork(after_in_child=_restore)",
        "os.register_at_fork(after_in_child=list)",
        ("signals::test_a_fork_has_no_handlers_of_ours",),
    ),
    *RUNS,
)
