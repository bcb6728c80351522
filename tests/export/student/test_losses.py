from __future__ import annotations

import pytest
import torch

from edgefetal_export.training.student.losses import (
    plane_members,
    said_loss,
    taught_feature_loss,
    taught_mask_loss,
    taught_plane_loss,
)

PLANES = ("head", "abdomen", "femur", "none")


def logit(probability: torch.Tensor) -> torch.Tensor:
    return torch.logit(probability)


def test_who_answers_as_the_teacher_loses_nothing() -> None:
    probability = torch.rand(2, 3, 8, 8) * 0.9 + 0.05
    known = torch.ones(2, 3)
    assert float(taught_mask_loss(logit(probability), probability, known, 4.0)) == pytest.approx(0, abs=1e-6)
    assert float(taught_mask_loss(logit(1 - probability), probability, known, 4.0)) > 0.1


def test_structures_that_nobody_teaches_cost_nothing() -> None:
    probability = torch.full((1, 2, 4, 4), 0.5)
    wrong = torch.zeros(1, 2, 4, 4)
    wrong[:, 1] = 9
    assert float(taught_mask_loss(wrong, probability, torch.tensor([[1.0, 0.0]]), 0.0)) == pytest.approx(0, abs=1e-6)
    assert float(taught_mask_loss(wrong, probability, torch.tensor([[1.0, 1.0]]), 0.0)) > 1
    assert float(taught_mask_loss(wrong, probability, torch.zeros(1, 2), 0.0)) == 0


def test_an_edge_counts_more_than_the_inside() -> None:
    probability = torch.tensor([[[[0.99, 0.5]]]])
    off_on_edge = logit(torch.tensor([[[[0.99, 0.8]]]]))
    plain, edged = (taught_mask_loss(off_on_edge, probability, torch.ones(1, 1), b) for b in (0.0, 4.0))
    assert float(edged) > 1.3 * float(plain)


def test_what_a_teacher_does_not_know_is_the_rest_to_it() -> None:
    members = plane_members(PLANES, ("head", "none"), "none")
    assert members.tolist() == [[1, 0], [0, 1], [0, 1], [0, 1]]
    student = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    asked = torch.ones(1)
    assert float(taught_plane_loss(student, torch.tensor([[0.5, 0.5]]), members, asked)) == pytest.approx(0, abs=1e-5)
    assert float(taught_plane_loss(student, torch.tensor([[0.1, 0.9]]), members, asked)) > 0.1
    assert float(taught_plane_loss(student, torch.tensor([[0.1, 0.9]]), members, 0 * asked)) == 0


def test_features_are_compared_by_direction() -> None:
    taught = torch.tensor([[1.0, 2.0], [3.0, -1.0]])
    assert float(taught_feature_loss(5 * taught, taught, torch.ones(2))) == pytest.approx(0, abs=1e-6)
    assert float(taught_feature_loss(-taught, taught, torch.ones(2))) == pytest.approx(2, abs=1e-5)
    assert float(taught_feature_loss(-taught, taught, torch.tensor([0.0, 0.0]))) == 0


def test_quality_of_people_and_teachers_counts_where_it_is_said() -> None:
    logits = torch.tensor([[4.0], [-4.0], [0.0]])
    right = said_loss(logits, torch.tensor([1.0, 0.0, -1.0]))
    wrong = said_loss(logits, torch.tensor([0.0, 1.0, -1.0]))
    assert float(right) < 0.05
    assert float(wrong) > 3
    assert float(said_loss(logits, torch.full((3,), -1.0))) == 0
    both = said_loss(logits, torch.tensor([1.0, -1.0, -1.0]), torch.tensor([0.0, -1.0, -1.0]))
    assert float(both) == pytest.approx((float(torch.tensor(4.0).neg().exp().log1p()) * 2 + 4) / 2, rel=1e-3)
