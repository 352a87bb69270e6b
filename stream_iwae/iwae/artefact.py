"""A model version as one blob of bytes: a checksum, then safetensors with a JSON manifest. No pickle."""

import hashlib
import itertools
import json
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from stream_iwae.errors import ArtefactError
from stream_iwae.iwae.channels import Channels
from stream_iwae.iwae.network import Network
from stream_iwae.iwae.settings import ModelSettings
from stream_iwae.iwae.transform import Transform

MAGIC: Final = b"SIWAE1\n"
_DIGEST_BYTES: Final = 32
MAX_SAMPLES: Final = 65_536  # of one kind; the noise for more would need gigabytes
_CHANNEL: Final = "channel."  # before the names of the tensors that are no weights of the network


@dataclass(frozen=True, slots=True)
class Model:
    """Everything that scores: weights, transform, noise seed, and what explanations compare with."""

    version: str
    schema_digest: str
    names: tuple[str, ...]  # D
    settings: ModelSettings
    transform: Transform
    weights: dict[str, Tensor]
    contribution_medians: tuple[float, ...]  # D, of -log p(x_j | x_-j) on normal rows, nats
    contribution_scales: tuple[float, ...]  # D, 1.4826 MAD with a floor
    noise_seed: int
    labels: dict[int, str] = field(default_factory=dict)  # CRC-32 of a category's text -> the text
    extra: dict[str, Any] = field(default_factory=dict)  # plain JSON of others: calibration, learning
    channels: Channels | None = None  # what `score: combined` needs beside the network

    def network(self) -> Network:
        """The network with these weights, on the CPU, for scoring."""
        network = empty_network(self.transform, self.settings)
        network.load_state_dict(self.weights)
        return network.eval().requires_grad_(requires_grad=False)


def empty_network(transform: Transform, settings: ModelSettings) -> Network:
    """A network of the right shape with fresh weights."""
    return Network(len(transform.continuous), transform.class_counts, settings)


def pack(model: Model) -> bytes:
    """Write a model as bytes."""
    manifest = {
        "version": model.version,
        "schema_digest": model.schema_digest,
        "names": model.names,
        "settings": asdict(model.settings),
        "transform": model.transform.to_json(),
        "contribution_medians": model.contribution_medians,
        "contribution_scales": model.contribution_scales,
        "noise_seed": model.noise_seed,
        "labels": {str(code): text for code, text in model.labels.items()},
        "extra": model.extra,
        "channels": model.channels.to_json() if model.channels else None,
    }
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.weights.items()}
    if model.channels:
        weights |= {
            _CHANNEL + name: tensor for name, tensor in model.channels.tensors(model.transform.class_counts).items()
        }
    body = save(weights, metadata={"manifest": json.dumps(manifest, allow_nan=False)})
    return MAGIC + hashlib.sha256(body).digest() + body


def unpack(blob: bytes) -> Model:
    """Read a model.

    Raises:
        ArtefactError: It is damaged, of another version of the format, or its parts do not fit together.
    """
    head = len(MAGIC) + _DIGEST_BYTES
    if not blob.startswith(MAGIC) or len(blob) < head:
        raise ArtefactError(f"{len(blob)} bytes are no artefact of this version")
    body = blob[head:]
    if hashlib.sha256(body).digest() != blob[len(MAGIC) : head]:
        raise ArtefactError("the artefact's checksum differs: it is damaged or cut")
    try:
        tensors = load(body)
        manifest = json.loads(_metadata(body)["manifest"])
        weights = {name: tensor for name, tensor in tensors.items() if not name.startswith(_CHANNEL)}
        parts = {name.removeprefix(_CHANNEL): tensor for name, tensor in tensors.items() if name not in weights}
        settings = dict(manifest["settings"])
        settings["hidden"] = tuple(settings["hidden"])
        transform = Transform.from_json(manifest["transform"])
        model = Model(
            version=str(manifest["version"]),
            schema_digest=str(manifest["schema_digest"]),
            names=tuple(manifest["names"]),
            settings=ModelSettings(**settings),
            transform=transform,
            weights=weights,
            contribution_medians=tuple(float(value) for value in manifest["contribution_medians"]),
            contribution_scales=tuple(float(value) for value in manifest["contribution_scales"]),
            noise_seed=int(manifest["noise_seed"]),
            labels={int(code): str(text) for code, text in manifest["labels"].items()},
            extra=dict(manifest["extra"]),
            channels=_channels(manifest["channels"], parts, transform),
        )
        _check(model)
    except (
        SafetensorError,
        LookupError,
        TypeError,
        ValueError,
        ArithmeticError,
        RuntimeError,
        AttributeError,
    ) as error:
        raise ArtefactError(f"the artefact's parts do not fit together: {error}") from error
    return model


def _metadata(body: bytes) -> dict[str, str]:
    size = int.from_bytes(body[:8], "little")
    metadata: dict[str, str] = json.loads(body[8 : 8 + size])["__metadata__"]
    return metadata


def _channels(data: dict[str, Any] | None, tensors: dict[str, Tensor], transform: Transform) -> Channels | None:
    return None if data is None else Channels.of(data, tensors, transform.class_counts)


def _check(model: Model) -> None:
    n_features = len(model.names)
    lengths = (len(model.transform.kinds), len(model.contribution_medians), len(model.contribution_scales))
    if any(length != n_features for length in lengths):
        raise ValueError(f"{n_features} names, but {lengths} kinds, medians and scales")
    if not all(torch.isfinite(tensor).all() for tensor in model.weights.values()):
        raise ValueError("a weight is not finite")
    if not np.isfinite([*model.contribution_medians, *model.contribution_scales]).all():
        raise ValueError("a contribution's median or scale is not finite")
    if min(model.contribution_scales, default=1.0) <= 0:
        raise ValueError("a contribution's scale is not positive")
    if (model.settings.score == "combined") != (model.channels is not None):
        raise ValueError(f"a model whose score is {model.settings.score} has channels where it needs none, or none")
    if model.channels is not None:
        n_coordinates = model.channels.neighbours.references.shape[1]
        if n_coordinates != len(model.transform.point_owners):
            raise ValueError(f"the references have {n_coordinates} coordinates")
    _check_sizes(model)
    model.network()  # raises where the weights have other names


def _check_sizes(model: Model) -> None:
    """Nothing is allocated by what a manifest says: the weights that are there have to have the widths it names."""
    samples = (model.settings.train_samples, model.settings.score_samples, model.settings.cascade_samples)
    if max(samples) > MAX_SAMPLES:
        raise ValueError(f"{max(samples)} importance samples, at most {MAX_SAMPLES}")
    if not all(isinstance(number, int) for number in (*samples, model.settings.latent, *model.settings.hidden)):
        raise ValueError("a width or number of samples is no whole number")
    n_continuous, n_classes = len(model.transform.continuous), sum(model.transform.class_counts)
    hidden, latent = model.settings.hidden, model.settings.latent
    for part, widths in (
        ("encoder", (3 * n_continuous + n_classes, *hidden, 2 * latent)),
        ("decoder", (latent, *reversed(hidden), 2 * n_continuous + n_classes)),
    ):
        for layer, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
            name = f"{part}.{2 * layer}.weight"  # an activation lies between two layers
            if name not in model.weights or model.weights[name].shape != (n_out, n_in):
                raise ValueError(f"the weights {name} are missing, or not of the shape {(n_out, n_in)}")


def as_floats(values: NDArray[np.float64]) -> tuple[float, ...]:
    """A vector as plain numbers."""
    return tuple(float(value) for value in values)
