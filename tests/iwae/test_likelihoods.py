import math

import pytest
import torch

from stream_iwae.iwae.likelihoods import CLASS_FLOOR, Classes, category_terms, continuous_terms


def test_a_continuous_feature_is_a_normal_on_each_of_its_two_scales(generator):
    bounded, location = torch.randn(4, 6, generator=generator), torch.randn(3, 4, 6, generator=generator)
    scale = torch.rand(6, generator=generator) + 0.3
    columns = torch.distributions.Normal(location, scale).log_prob(bounded)

    terms = continuous_terms(bounded, torch.ones(4, 3), location, scale)

    assert torch.allclose(terms, columns[..., :3] + columns[..., 3:], atol=1e-5)


def test_a_masked_feature_adds_nothing_whatever_it_holds(generator):
    mask = torch.tensor([[1.0, 0.0]])
    location, scale = torch.randn(2, 1, 4, generator=generator), torch.ones(4)
    one, other = (continuous_terms(torch.tensor([[0.1, x, 0.2, x]]), mask, location, scale) for x in (0.0, 9.0))

    assert torch.equal(one, other)
    assert torch.equal(one[..., 1], torch.zeros(2, 1))


def by_softmax(logits, classes, counts):
    """A second implementation: one softmax a category, (K, N, G)."""
    terms = []
    for i, part in enumerate(logits.split(counts, dim=-1)):
        chances = (1 - CLASS_FLOOR) * torch.softmax(part, dim=-1) + CLASS_FLOOR / counts[i]
        terms.append(chances.log().gather(-1, classes[:, i].expand(len(part), -1).unsqueeze(-1)).squeeze(-1))
    return torch.stack(terms, dim=-1)


@pytest.mark.parametrize("counts", [[2], [1, 5], [3, 2, 70, 2], [2] * 20])
def test_categories_all_at_once_equal_a_softmax_for_each(generator, counts):
    logits = 6 * torch.randn(3, 5, sum(counts), generator=generator)
    classes = torch.stack([torch.randint(count, (5,), generator=generator) for count in counts], dim=1)
    mask = torch.ones(5, len(counts))

    found = category_terms(classes, mask, logits, Classes.of(counts))

    assert torch.allclose(found, by_softmax(logits, classes, counts), atol=1e-5)
    assert torch.equal(category_terms(classes, 0 * mask, logits, Classes.of(counts)), torch.zeros(3, 5, len(counts)))


def test_the_chances_of_all_classes_add_up_to_one(generator):
    logits = 5 * torch.randn(1, 1, 4, generator=generator)
    layout = Classes.of([4])

    total = sum(float(category_terms(torch.tensor([[c]]), torch.ones(1, 1), logits, layout).exp()) for c in range(4))

    assert total == pytest.approx(1.0, abs=1e-6)


def test_no_class_is_impossible_and_extreme_logits_stay_finite():
    logits = torch.tensor([[[1e4, -1e4, 0.0]]], requires_grad=True)

    term = category_terms(torch.tensor([[1]]), torch.ones(1, 1), logits, Classes.of([3]))
    term.sum().backward()

    assert float(term.detach()) == pytest.approx(math.log(CLASS_FLOOR / 3))
    assert torch.isfinite(logits.grad).all()
