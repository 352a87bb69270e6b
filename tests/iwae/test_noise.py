import linear_gaussian as lg
import torch

from stream_iwae.iwae.bounds import log_marginal_estimate
from stream_iwae.iwae.noise import noise_table


def test_the_table_is_that_of_its_seed_alone():
    state = torch.random.get_rng_state()
    table = noise_table(16, 8, seed=3)

    assert torch.equal(table, noise_table(16, 8, seed=3))
    assert not torch.equal(table, noise_table(16, 8, seed=4))
    assert torch.equal(state, torch.random.get_rng_state())


def test_the_table_looks_standard_normal_and_has_no_infinite_entry():
    table = noise_table(1024, 8, seed=0)

    assert table.shape == (1024, 8)
    assert float(table.abs().max()) < 3.72  # the normal quantile of 1 - 1e-4
    assert torch.allclose(table.mean(dim=0), torch.zeros(8).double(), atol=0.01)
    assert torch.allclose(table.std(dim=0), torch.ones(8).double(), atol=0.01)


def test_eight_samples_of_a_table_are_worth_many_independent_ones(generator):
    """The standard deviation of L_8 on the closed-form model: .227 for independent draws."""
    q = lg.proposal(lg.X1)
    estimates = []
    for seed in range(300):
        z = q.sample(noise_table(8, 2, seed).unsqueeze(1))
        estimates.append(log_marginal_estimate(lg.log_joint(lg.X1, z) - q.log_density(z)))

    assert float(torch.cat(estimates).std()) < 0.13
