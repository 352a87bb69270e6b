import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from stream_iwae.errors import ArtefactError
from stream_iwae.iwae.artefact import MAGIC, pack, unpack
from stream_iwae.iwae.scoring import Scorer
from stream_iwae.iwae.settings import ModelSettings

KINDS = ("magnitude", "category", "gauge")


@pytest.fixture(scope="module")
def model(make_rows, make_model):
    made = make_model(make_rows(80, KINDS), KINDS)
    return replace(made, labels={7: "tcp"}, extra={"calibration": {"t": 1.5, "empty": None}, "windows": [1, 2]})


def rewritten(blob, change):
    """The blob with another manifest or weights and a checksum that is right."""
    body = blob[len(MAGIC) + 32 :]
    size = int.from_bytes(body[:8], "little")
    manifest = json.loads(json.loads(body[8 : 8 + size])["__metadata__"]["manifest"])
    weights = load(body)
    change(manifest, weights)
    body = save(weights, metadata={"manifest": json.dumps(manifest)})
    return MAGIC + hashlib.sha256(body).digest() + body


def test_everything_comes_back_as_it_was(model, make_rows):
    again = unpack(pack(model))
    rows = make_rows(40, KINDS, seed=4)

    for name in ("version", "schema_digest", "names", "settings", "transform", "noise_seed", "labels", "extra"):
        assert getattr(again, name) == getattr(model, name)
    assert np.array_equal(Scorer(again).score(rows).scores, Scorer(model).score(rows).scores)
    assert np.array_equal(
        Scorer(again).explain(rows).contributions, Scorer(model).explain(rows).contributions, equal_nan=True
    )


@pytest.mark.parametrize("score", ["bound", "reconstruction"])
def test_a_model_without_channels_comes_back_without(make_rows, make_model, score):
    rows = make_rows(80, KINDS)
    model = make_model(rows, KINDS, ModelSettings(score=score, hidden=(16,), latent=2, score_samples=4, device="cpu"))
    again = unpack(pack(model))

    assert again.channels is None
    assert np.array_equal(Scorer(again).score(rows).scores, Scorer(model).score(rows).scores)


def test_the_same_model_is_the_same_bytes(model):
    assert pack(model) == pack(unpack(pack(model)))


@given(st.data())
@hypothesis_settings(deadline=None, max_examples=60)
def test_any_single_byte_that_is_damaged_is_noticed(model, data):
    blob = bytearray(pack(model))
    blob[data.draw(st.integers(0, len(blob) - 1))] ^= data.draw(st.integers(1, 255))

    with pytest.raises(ArtefactError):
        unpack(bytes(blob))


@given(st.binary(max_size=200), st.integers(0, 200))
@hypothesis_settings(deadline=None, max_examples=60)
def test_bytes_that_are_no_artefact_are_refused(model, noise, n_kept):
    with pytest.raises(ArtefactError):
        unpack(pack(model)[:n_kept] + noise)


def no_change(manifest, weights):
    pass


def rename_setting(manifest, weights):
    manifest["settings"]["unknown"] = 1


def drop_transform(manifest, weights):
    del manifest["transform"]


def widen(manifest, weights):
    manifest["settings"]["hidden"] = [17]


def add_name(manifest, weights):
    manifest["names"].append("one too many")


def drop_weight(manifest, weights):
    del weights["raw_scale"]


def spoil_weight(manifest, weights):
    weights["raw_scale"][0] = torch.nan


def spoil_scale(manifest, weights):
    manifest["contribution_scales"][0] = float("nan")


def flatten_scale(manifest, weights):
    manifest["contribution_scales"][0] = 0.0


def drop_channels(manifest, weights):
    manifest["channels"] = None


def drop_surprise(manifest, weights):
    del manifest["channels"]["of_distance"]


def spoil_surprise(manifest, weights):
    manifest["channels"]["of_network"]["scale"] = 0.0


def drop_references(manifest, weights):
    del weights["channel.numbers"]


def spoil_references(manifest, weights):
    weights["channel.numbers"][0, 0] = torch.inf


def narrow_references(manifest, weights):
    weights["channel.numbers"] = weights["channel.numbers"][:, 1:].contiguous()


def unknown_class(manifest, weights):
    weights["channel.classes"][0, 0] = 255


def fewer_categories(manifest, weights):
    weights["channel.classes"] = weights["channel.classes"][:, :0].contiguous()


def unknown_unit(manifest, weights):
    manifest["transform"]["units"][0] = 0.0


def unknown_kind(manifest, weights):
    manifest["transform"]["kinds"][0] = "colour"


@pytest.mark.parametrize(
    "change",
    [
        rename_setting,
        drop_transform,
        widen,
        add_name,
        drop_weight,
        spoil_weight,
        spoil_scale,
        flatten_scale,
        unknown_kind,
        unknown_unit,
        drop_channels,
        drop_surprise,
        spoil_surprise,
        drop_references,
        spoil_references,
        narrow_references,
        unknown_class,
        fewer_categories,
    ],
)
def test_parts_that_do_not_fit_together_are_refused(model, change):
    unpack(rewritten(pack(model), no_change))

    with pytest.raises(ArtefactError, match="do not fit together"):
        unpack(rewritten(pack(model), change))


def test_another_version_of_the_format_is_refused_by_its_first_bytes(model):
    with pytest.raises(ArtefactError, match="no artefact of this version"):
        unpack(b"SIWAE2\n" + pack(model)[len(MAGIC) :])


def test_a_number_that_json_has_not_cannot_be_packed(model):
    with pytest.raises(ValueError, match="JSON"):
        pack(replace(model, extra={"threshold": float("nan")}))
