import numpy as np
import pytest
import torch

from stream_iwae.iwae.neighbours import N_REFERENCES, Neighbours, one_hot, sum_by_owner


def distances_by_hand(references, points):
    return np.array([np.sort(np.sqrt(((references - point) ** 2).sum(axis=1)))[2] for point in points])


def test_the_score_is_the_distance_to_the_third_nearest_reference():
    rng = np.random.default_rng(0)
    references, points = rng.normal(size=(200, 30)), rng.normal(size=(40, 30))
    neighbours = Neighbours(torch.tensor(references, dtype=torch.float32))
    found = neighbours.score(torch.tensor(points, dtype=torch.float32)).numpy()

    assert found == pytest.approx(distances_by_hand(references, points), rel=1e-4)


def test_one_odd_reference_makes_no_row_ordinary():
    references = torch.cat([torch.zeros(50, 4), torch.full((2, 4), 9.0)])

    assert float(Neighbours(references).score(torch.full((1, 4), 9.0))) == pytest.approx(18.0)


def test_differences_are_from_the_nearest_reference():
    references = torch.cat([torch.zeros(20, 2), torch.tensor([[5.0, 5.0]])])

    assert Neighbours(references).differences(torch.tensor([[4.0, 7.0]])).tolist() == [[1.0, 4.0]]


def test_references_are_a_choice_that_the_seed_makes_at_an_artefact_s_precision():
    points = torch.randn(3_000, 5, generator=torch.Generator().manual_seed(0))
    one, again = (Neighbours.fit(points, np.random.default_rng(4)).references for _ in range(2))

    assert one.shape == (N_REFERENCES, 5)
    assert torch.equal(one, again)
    assert torch.equal(one, one.half().float())


def test_an_unseen_class_has_no_one_and_two_classes_are_half_the_root_of_two_apart():
    hot = one_hot(torch.tensor([0, 1, 2]), 3)

    assert hot.tolist() == [[0.0, 0.0, 0.0], [0.0, 0.5, 0.0], [0.0, 0.0, 0.5]]


def test_coordinates_are_added_up_by_the_feature_they_come_from():
    assert sum_by_owner(np.array([[1.0, 2.0, 4.0, 8.0]]), np.array([0, 2, 0, 1]), 3).tolist() == [[5.0, 8.0, 2.0]]


@pytest.mark.parametrize("references", [torch.zeros(5, 3), torch.full((20, 3), torch.nan), torch.zeros(20)])
def test_what_makes_no_reference_points_is_refused(references):
    with pytest.raises(ValueError, match="reference"):
        Neighbours(references)
