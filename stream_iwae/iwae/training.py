"""Raw rows -> Model: training from nothing, and tuning from a serving model."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.adamw import adamw

from stream_iwae.iwae.artefact import Model, as_floats, empty_network
from stream_iwae.iwae.bounds import doubly_reparameterised_loss, elbo_estimate, log_marginal_estimate
from stream_iwae.iwae.channels import Channels
from stream_iwae.iwae.groups import in_group
from stream_iwae.iwae.neighbours import Neighbours
from stream_iwae.iwae.network import Network, log_weights
from stream_iwae.iwae.scoring import Scorer, pick_device
from stream_iwae.iwae.settings import ModelSettings
from stream_iwae.iwae.surprise_scale import Surprise
from stream_iwae.iwae.transform import Encoded, Transform

MIN_ROWS: Final = 64
MOST_HELD_OUT: Final = 10_000  # more rows say no more about a 90 % quantile
MIN_PARTED: Final = 256  # fewer rows are too few to hold some of them out
HELD_OUT_SHARE: Final = 0.2  # of the rows, to tell what surprises each channel
MOST_EPOCHS: Final = 75  # of a first training: few rows would be learnt by heart
FEWEST_STEPS: Final = 150
FINAL_RATE: Final = 0.05  # of the cosine decay
TUNING_RATE: Final = 0.1  # of the base rate
TUNING_EPOCHS: Final = 2
TUNING_PULL: Final = 1e-3  # L2 towards the serving weights
AVERAGED_SHARE: Final = 0.5  # of a tuning's steps, the last ones, whose weights are averaged
_MAD: Final = 1.4826
_TERM_SCALE_FLOOR: Final = 0.2  # nats, added in quadrature: a feature that never varies still has a scale
_EXPLAINED_ROWS: Final = 512  # and up to twice as many: medians need no more, and each costs a millisecond
_EXPLAINED_WORK: Final = 5_000_000  # rows times features squared: each of D left out costs D; at 200, 50 ms a row
_FEWEST_EXPLAINED: Final = 128

Values = NDArray[np.float64]


class DivergedError(ValueError):
    """The training produced weights that are not finite."""


@dataclass(frozen=True, slots=True)
class Features:
    """What the columns of the rows are."""

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    schema_digest: str
    labels: Mapping[int, str]


def train(
    values: Values,
    features: Features,
    settings: ModelSettings,
    seed: int,
    on_step: Callable[[], None] = lambda: None,
    sampled_by_cell: bool = True,
    is_trusted: bool = False,
) -> Model:
    """Train from nothing on (N, D) raw values.

    Args:
        values: Raw values, NaN where missing.
        features: Names, kinds and schema of the columns.
        settings: Of the model.
        seed: Of weights, batches and noise; the same rows and seed give the same model.
        on_step: Called after each step; raise from it to stop.
        sampled_by_cell: Draw rows so that rare kinds of normal are not drowned by frequent ones.
        is_trusted: Every row is known to be ordinary.

    Raises:
        ValueError: There are fewer than MIN_ROWS rows.
        DivergedError: A weight is not finite.
    """
    if len(values) < MIN_ROWS:
        raise ValueError(f"need at least {MIN_ROWS} rows to train on, got {len(values)}")
    transform = Transform.fit(values, features.kinds)
    torch_seed = torch.Generator().manual_seed(seed)
    network = _fresh(transform, settings, torch_seed)
    rows = transform.encode(values)
    chances = cell_weights(rows) if sampled_by_cell else np.ones(len(values))
    most = max(FEWEST_STEPS, MOST_EPOCHS * len(values) // settings.batch)
    plan = _Plan(min(settings.steps, most), settings.learning_rate)
    _optimise(network, rows, chances, settings, plan, torch_seed, on_step)
    model = Model(
        version="0.0",
        schema_digest=features.schema_digest,
        names=features.names,
        settings=settings,
        transform=transform,
        weights=_weights_of(network),
        contribution_medians=(0.0,) * len(features.names),
        contribution_scales=(1.0,) * len(features.names),
        noise_seed=seed,
        labels=dict(features.labels),
    )
    return finished(model, values, seed, is_trusted=is_trusted)


def tune(model: Model, values: Values, seed: int, on_step: Callable[[], None] = lambda: None) -> Model:
    """Fine-tune a copy on (N, D) raw values: a tenth of the rate, pulled towards the model, weights averaged.

    The transform stays as it is.

    Raises:
        ValueError: There are fewer than MIN_ROWS rows.
        DivergedError: A weight is not finite.
    """
    if len(values) < MIN_ROWS:
        raise ValueError(f"need at least {MIN_ROWS} rows to tune on, got {len(values)}")
    settings = model.settings
    network = empty_network(model.transform, settings)
    network.load_state_dict(model.weights)
    steps = max(1, min(settings.steps, TUNING_EPOCHS * len(values) // settings.batch))
    rows = model.transform.encode(values)
    generator = torch.Generator().manual_seed(seed)
    plan = _Plan(steps, TUNING_RATE * settings.learning_rate, pull_to=model.weights)
    _optimise(network, rows, np.ones(len(values)), settings, plan, generator, on_step)
    return finished(replace(model, weights=_weights_of(network), extra={}), values, seed)


def finished(model: Model, values: Values, seed: int, *, is_trusted: bool = False) -> Model:
    """Add what explanations compare with, and what a combined score needs."""
    bare = with_contributions(replace(model, channels=None), values)
    return with_channels(bare, values, seed, is_trusted=is_trusted) if model.settings.score == "combined" else bare


def with_channels(model: Model, values: Values, seed: int, *, is_trusted: bool = False) -> Model:
    """Put reference rows beside the network; a fifth of the (N, D) rows is no reference and tells what surprises.

    Unless the rows are trusted, a group that the network finds odd is no reference either: it would make itself
    ordinary.

    Raises:
        ValueError: There are too few rows, or none can be scored.
    """
    rng = np.random.default_rng(seed)
    is_held_out = rng.random(len(values)) < HELD_OUT_SHARE
    is_reference = ~is_held_out
    if len(values) < MIN_PARTED:
        is_held_out[:] = is_reference[:] = True
    bounds = Scorer(replace(model, channels=None)).score(values).bounds
    transform = model.transform
    points = transform.points(transform.encode(values))
    if not is_trusted:
        is_reference &= np.isfinite(bounds) & ~in_group(points, bounds, rng)
    neighbours = Neighbours.fit(points[torch.from_numpy(np.flatnonzero(is_reference))], rng)
    held_out = np.flatnonzero(is_held_out)[:MOST_HELD_OUT]
    distances = neighbours.score(points[torch.from_numpy(held_out)]).numpy()
    return replace(model, channels=Channels(neighbours, Surprise.fit(bounds[held_out]), Surprise.fit(distances)))


def with_contributions(model: Model, values: Values) -> Model:
    """Set the medians and scales of each feature's share of the score from (N, D) normal rows."""
    affordable = max(_FEWEST_EXPLAINED, _EXPLAINED_WORK // values.shape[1] ** 2)
    step = max(1, len(values) // min(_EXPLAINED_ROWS, affordable))
    terms = Scorer(model).feature_terms(values[::step])
    medians, scales = np.zeros(terms.shape[1]), np.ones(terms.shape[1])
    for i, column in enumerate(terms.T):
        present = column[np.isfinite(column)]
        if present.size:
            medians[i] = np.median(present)
            scales[i] = math.hypot(_MAD * float(np.median(np.abs(present - medians[i]))), _TERM_SCALE_FLOOR)
    return replace(model, contribution_medians=as_floats(medians), contribution_scales=as_floats(scales))


def cell_weights(rows: Encoded) -> Values:
    """Weight of each row, (rows in its cell)^(-1/2): the support of normal traffic, not its flood."""
    cells = torch.cat([(2.0 * rows.bounded).round(), rows.classes.to(torch.float32)], dim=1)
    packed = cells.to(torch.int16).numpy()
    _, index, counts = np.unique(packed, axis=0, return_inverse=True, return_counts=True)
    weights: Values = counts[index.reshape(-1)].astype(np.float64) ** -0.5
    return weights


class Losses(NamedTuple):
    """Of one batch, both (N,)."""

    values: Tensor  # nats, what is minimised
    surrogates: Tensor  # what has the right gradients; for `iwae` its value means nothing


def losses_of(network: Network, seen: Encoded, rows: Encoded, noise: Tensor, settings: ModelSettings) -> Losses:
    """Losses of the configured objective for noise (K, N, L); the encoder gets `seen` in place of `rows`."""
    posterior = network.encode(seen)
    if settings.objective == "autoencoder":
        errors = -network.terms(rows, posterior.mean.unsqueeze(0)).sum(dim=-1).squeeze(0)
        return Losses(errors, errors)
    z = posterior.sample(noise)  # (K, N, L)
    if settings.objective == "vae":
        negative_elbo = -elbo_estimate(log_weights(network, rows, z, posterior))
        return Losses(negative_elbo, negative_elbo)
    log_w = log_weights(network, rows, z, posterior.detach())
    return Losses(-log_marginal_estimate(log_w), doubly_reparameterised_loss(log_w, z))


@dataclass(frozen=True, slots=True)
class _Plan:
    n_steps: int
    rate: float
    pull_to: Mapping[str, Tensor] | None = None  # given for a tuning


def _optimise(
    network: Network,
    rows: Encoded,
    chances: Values,
    settings: ModelSettings,
    plan: _Plan,
    generator: torch.Generator,
    on_step: Callable[[], None],
) -> None:
    device = pick_device(settings.device)
    network.to(device).train()
    parameters = dict(network.named_parameters())
    anchors = {name: plan.pull_to[name].to(device) for name in parameters} if plan.pull_to else {}
    optimiser = _AdamW(list(parameters.values()), settings.weight_decay)
    averaged_from = plan.n_steps - math.ceil(AVERAGED_SHARE * plan.n_steps) if anchors else plan.n_steps
    average = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    odds = torch.from_numpy(chances)
    for step in range(plan.n_steps):
        index = torch.multinomial(odds, settings.batch, replacement=True, generator=generator)
        batch = Encoded(*(part.to(device) for part in rows.rows(index)))
        seen = _with_unseen(batch, settings.category_dropout, generator)
        noise = torch.randn(settings.train_samples, settings.batch, settings.latent, generator=generator)
        loss = _trimmed(losses_of(network, seen, batch, noise.to(device), settings), settings.trim).mean()
        for name, anchor in anchors.items():
            loss = loss + TUNING_PULL * (parameters[name] - anchor).square().sum()
        network.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters.values(), settings.gradient_clip)
        optimiser.step(_cosine(plan, step))
        if step >= averaged_from:
            for name, parameter in parameters.items():
                average[name] += parameter.detach() / (plan.n_steps - averaged_from)
        on_step()
    if anchors:
        network.load_state_dict(average)
    network.cpu().eval()
    if not all(torch.isfinite(tensor).all() for tensor in network.state_dict().values()):
        raise DivergedError("the training produced weights that are not finite: lower model.learning_rate")


def _cosine(plan: _Plan, step: int) -> float:
    """The rate of a step, from the plan's down to FINAL_RATE of it (Loshchilov, Hutter 2017, SGDR, equation 5)."""
    fall = (1 + math.cos(math.pi * step / plan.n_steps)) / 2
    return plan.rate * (FINAL_RATE + (1 - FINAL_RATE) * fall)


class _AdamW:
    """The state of torch's fused AdamW, without its class, which brings torch's compiler: 150 MB and two seconds."""

    def __init__(self, parameters: list[torch.nn.Parameter], weight_decay: float) -> None:
        self._parameters, self._weight_decay = parameters, weight_decay
        self._means = [torch.zeros_like(parameter) for parameter in parameters]
        self._squares = [torch.zeros_like(parameter) for parameter in parameters]
        self._steps = [torch.zeros((), device=parameter.device) for parameter in parameters]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move the parameters that have a gradient."""
        gradients = {i: parameter.grad for i, parameter in enumerate(self._parameters) if parameter.grad is not None}
        moved = list(gradients)
        adamw(
            [self._parameters[i] for i in moved],
            list(gradients.values()),
            [self._means[i] for i in moved],
            [self._squares[i] for i in moved],
            [],
            [self._steps[i] for i in moved],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=rate,
            weight_decay=self._weight_decay,
            eps=1e-8,
            maximize=False,
        )


def _with_unseen(batch: Encoded, share: float, generator: torch.Generator) -> Encoded:
    if not share or not batch.classes.shape[1]:
        return batch
    is_kept = torch.rand(batch.classes.shape, generator=generator) >= share
    return batch._replace(classes=batch.classes * is_kept.to(batch.classes.device))


def _trimmed(losses: Losses, share: float) -> Tensor:
    if not share:
        return losses.surrogates
    kept = max(1, round(len(losses.values) * (1.0 - share)))
    return losses.surrogates[torch.topk(losses.values.detach(), kept, largest=False).indices]


def _fresh(transform: Transform, settings: ModelSettings, generator: torch.Generator) -> Network:
    """A network whose weights come from the generator, not from torch's global state."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
        return empty_network(transform, settings)


def _weights_of(network: Network) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}
