# yolo-prune, AGPL-3.0 license
"""How far two heads' outputs are from each other: known answers, and which places count."""

from __future__ import annotations

import math

import pytest
import torch

from yolo_prune.training.output_loss import SURE, Gains, distance, overlap

CLS, BOX, DFL = Gains(1, 0, 0), Gains(0, 1, 0), Gains(0, 0, 1)
ALL = Gains(0.5, 7.5, 1.5)


def value(distance: torch.Tensor) -> float:
    return float(distance.detach())


def outputs(scores: list[list[float]], sides: list[list[float]]) -> dict[str, torch.Tensor]:
    """Of one image: scores as probabilities and sides in cells, a row a place; reg_max is 1."""
    raw = {"scores": torch.tensor([scores]).logit(), "boxes": torch.tensor([sides])}
    return {name: value.transpose(1, 2).contiguous().requires_grad_() for name, value in raw.items()}


@pytest.mark.parametrize("reg_max", [1, 16])
def test_of_equal_outputs_it_is_nothing_and_pulls_nowhere(reg_max: int) -> None:
    torch.manual_seed(0)
    sides = torch.rand(2, 4 * reg_max, 30) * 3 + 0.1
    teacher = {"scores": torch.randn(2, 5, 30), "boxes": sides}
    student = {name: value.clone().requires_grad_() for name, value in teacher.items()}
    both = distance(student, teacher, reg_max, ALL)
    both.backward()
    assert value(both) == pytest.approx(0, abs=1e-5)
    for name, one in student.items():
        assert float(one.grad.abs().max()) < 1e-6, name
        other = {**student, name: student[name].detach() + 0.3 * torch.randn_like(one)}
        assert value(distance(other, teacher, reg_max, ALL)) > 0.01, name


def test_each_part_has_its_known_answer() -> None:
    teacher = outputs([[0.8, 0.1]], [[2.0, 1.0, 2.0, 1.0]])
    student = outputs([[0.5, 0.1]], [[1.0, 1.0, 2.0, 1.0]])
    kl = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)  # of one place, whose weight is made 1 below
    weight = 0.8  # and the sum of the weights is taken as at least 1
    assert value(distance(student, teacher, 1, CLS)) == pytest.approx(weight * kl, rel=1e-5)
    assert value(distance(student, teacher, 1, BOX)) == pytest.approx(weight * 0.25, rel=1e-5)  # 6 cells of 8
    assert value(distance(student, teacher, 1, DFL)) == pytest.approx(weight * 0.25 / 3, rel=1e-5)  # sides 4 and 2
    whole = 0.5 * kl + 7.5 * 0.25 + 1.5 * 0.25 / 3
    assert value(distance(student, teacher, 1, ALL)) == pytest.approx(weight * whole, rel=1e-5)


def test_distributions_are_compared_bin_by_bin_as_the_host_lays_them() -> None:
    """(4, reg_max) of a place: the left side says 0 or 1 of three bins alike, the others are sure of 1."""
    sure = [-50.0, 50.0, -50.0]
    teacher = {"scores": torch.full((1, 1, 1), 9.0), "boxes": torch.tensor([[*sure, *sure, *sure, *sure]])[..., None]}
    student = {**teacher, "boxes": torch.tensor([[50.0, 50.0, -50.0, *sure, *sure, *sure]])[..., None]}
    weight = torch.sigmoid(torch.tensor(9.0)).item()
    assert value(distance(student, teacher, 3, DFL)) == pytest.approx(weight * math.log(2) / 4, rel=1e-4)
    assert value(distance(student, teacher, 3, BOX)) == pytest.approx(weight * 0.25, rel=1e-4)  # 1.5 * 2 cells of 2 * 2


def test_places_count_by_how_sure_the_teacher_is_and_not_at_all_where_it_is_not() -> None:
    sides = [[1.0] * 4] * 3
    teacher = outputs([[0.9], [0.3], [SURE * 0.9]], sides)

    def of(wrong: int) -> float:
        student = outputs([[0.9], [0.3], [SURE * 0.9]], [[2.0] * 4 if n == wrong else [1.0] * 4 for n in range(3)])
        return value(distance(student, teacher, 1, BOX))

    assert of(0) == pytest.approx(0.75 * 0.9 / 1.2, rel=1e-5)
    assert of(1) == pytest.approx(0.75 * 0.3 / 1.2, rel=1e-5)
    assert of(2) == 0


def test_it_pulls_the_student_alone_and_is_whole_where_nobody_is_sure() -> None:
    teacher, student = (outputs([[p]], [[1.0] * 4]) for p in (0.9, 0.4))
    distance(student, teacher, 1, ALL).backward()
    assert float(student["scores"].grad) < 0, "a larger score is nearer"
    assert teacher["scores"].grad is None
    nothing = distance(student, outputs([[0.01]], [[1.0] * 4]), 1, ALL)
    nothing.backward()
    assert value(nothing) == 0
    assert math.isfinite(float(student["boxes"].grad.abs().sum()))


def test_boxes_turned_inside_out_overlap_nothing_and_still_learn() -> None:
    inside_out, box = torch.tensor([[-2.0, 1.0, 1.0, 1.0]]), torch.tensor([[1.0, 1.0, 1.0, 1.0]])
    assert float(overlap(inside_out, box)) == pytest.approx(0, abs=1e-6)
    student = outputs([[0.9]], inside_out.tolist())
    distance(student, outputs([[0.9]], box.tolist()), 1, ALL).backward()
    assert float(student["boxes"].grad[0, 0, 0]) < 0
