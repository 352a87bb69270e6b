"""Which features a configuration asks for, and what is told where it asks for nonsense."""

import pytest
from pydantic import ValidationError

from stream_iwae.batches import Kind
from stream_iwae.errors import ConfigurationError
from stream_iwae.features.config import FeaturesConfig, aggregates, check_fields, check_windows, needed_fields, schema

TYPES = {"src": "address", "proto": "text", "service": "text", "bytes": "number", "packets": "number"}


def features(*listed, **more):
    return FeaturesConfig.model_validate({"list": listed, **more})


def test_a_listed_feature_takes_the_place_of_the_preset_s():
    config = features({"name": "bytes", "aggregate": "mean", "field": "bytes"}, preset="flows-per-source")
    (found,) = [feature for feature in config.features if feature.name == "bytes"]

    assert found.aggregate == "mean"
    assert len(config.features) == len(FeaturesConfig(preset="flows-per-source").features)


def test_an_operand_that_is_no_output_is_computed_but_not_scored():
    config = features(
        {"name": "bytes", "aggregate": "sum", "field": "bytes", "output": False},
        {"name": "packets", "aggregate": "sum", "field": "packets", "output": False},
        {"name": "size", "ratio": ["bytes", "packets"], "unit": "bytes"},
    )

    assert [aggregate.name for aggregate in aggregates(config)] == ["bytes", "packets"]
    assert schema(config, TYPES).names == ("size",)
    assert needed_fields(config) == {"bytes", "packets"}


@pytest.mark.parametrize(
    ("feature", "kind"),
    [
        ({"aggregate": "count"}, Kind.MAGNITUDE),
        ({"aggregate": "sum", "field": "bytes"}, Kind.MAGNITUDE),
        ({"aggregate": "distinct", "field": "src"}, Kind.MAGNITUDE),
        ({"aggregate": "share", "where": {"field": "proto", "equals": "tcp"}}, Kind.RATIO),
        ({"aggregate": "top_share", "field": "src"}, Kind.RATIO),
        ({"aggregate": "reach", "field": "src"}, Kind.MAGNITUDE),
        ({"aggregate": "surge", "field": "src"}, Kind.MAGNITUDE),
        ({"aggregate": "entropy", "field": "src"}, Kind.GAUGE),
        ({"aggregate": "last", "field": "service"}, Kind.CATEGORY),
        ({"per_event": "service"}, Kind.CATEGORY),
        ({"per_event": "bytes"}, Kind.NUMBER),
        ({"time": "hour_of_day"}, Kind.CYCLIC),
        ({"aggregate": "sum", "field": "bytes", "kind": "gauge"}, Kind.GAUGE),
    ],
)
def test_the_kind_follows_from_the_source_unless_it_is_given(feature, kind):
    assert schema(features({"name": "x", **feature}), TYPES).kinds == (kind,)


@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        ([], "at least one feature"),
        ([{"name": "x", "aggregate": "count", "output": False}], "at least one feature"),
        ([{"name": "x"}], "exactly one of aggregate, per_event, ratio, time"),
        ([{"name": "x", "aggregate": "count", "time": "hour_of_day"}], "exactly one of"),
        ([{"name": "x", "per_event": "bytes", "q": 0.5}], "belong to an aggregate"),
        ([{"name": "x", "aggregate": "quantile", "field": "bytes"}], "q belongs to a quantile"),
        ([{"name": "x", "aggregate": "sum"}], "needs a field"),
        ([{"name": "n_events", "aggregate": "count"}], "a name of our own"),
        ([{"name": "x", "aggregate": "count"}] * 2, "features repeat: x"),
        ([{"name": "x", "ratio": ["a", "b"]}], "needs an aggregate 'a'"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused_with_the_reason(listed, reason):
    with pytest.raises(ValidationError, match=reason):
        features(*listed)


def test_a_profile_adds_a_feature_after_the_others():
    listed = (
        {"name": "bytes", "aggregate": "sum", "field": "bytes", "profile": True, "output": False},
        {"name": "tcp", "aggregate": "share", "where": {"field": "proto", "equals": "tcp"}, "profile": True},
        {"name": "n", "aggregate": "count"},
    )
    found = schema(features(*listed), TYPES)

    assert found.names == ("tcp", "n", "bytes_vs_own", "tcp_vs_own")
    assert found.kinds == (Kind.RATIO, Kind.MAGNITUDE, Kind.MAGNITUDE, Kind.GAUGE)
    assert found.units[2:] == ("times its usual limit", "spreads beyond its usual limit")


@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        ([{"name": "x", "time": "hour_of_day", "profile": True}], "only a number has a usual range"),
        ([{"name": "x", "per_event": "service", "kind": "category", "profile": True}], "only a number"),
        (
            [{"name": "x", "aggregate": "count", "profile": True}, {"name": "x_vs_own", "aggregate": "count"}],
            "features repeat: x_vs_own",
        ),
    ],
)
def test_a_profile_that_makes_no_sense_is_refused(listed, reason):
    with pytest.raises(ValidationError, match=reason):
        features(*listed)


def test_a_surge_of_single_events_is_refused_by_its_key():
    config = features({"name": "x", "aggregate": "surge", "field": "src"})
    check_windows(config, "hopping")

    with pytest.raises(ConfigurationError, match=r"features\.x\.aggregate.*tumbling or hopping"):
        check_windows(config, "record")


def test_what_is_recent_comes_last_in_the_unit_of_the_number_itself():
    listed = (
        {"name": "load", "per_event": "bytes", "kind": "gauge", "unit": "%", "recent": True, "profile": True},
        {"name": "size", "per_event": "bytes", "recent": True, "output": False},
        {"name": "n", "aggregate": "count"},
    )
    found = schema(features(*listed), TYPES)

    assert found.names == ("load", "n", "load_vs_own", "load_vs_recent", "size_vs_recent")
    assert found.kinds == (Kind.GAUGE, Kind.MAGNITUDE, Kind.GAUGE, Kind.GAUGE, Kind.NUMBER)
    assert found.units[-2:] == ("%", "")


@pytest.mark.parametrize(
    ("listed", "reason"),
    [
        ([{"name": "x", "time": "hour_of_day", "recent": True}], "recent is for a gauge or a ratio, this is a cyclic"),
        ([{"name": "x", "aggregate": "count", "recent": True}], "this is a magnitude; try profile"),
        (
            [
                {"name": "x", "per_event": "bytes", "recent": True},
                {"name": "x_vs_recent", "per_event": "bytes"},
            ],
            "features repeat: x_vs_recent",
        ),
    ],
)
def test_recent_is_refused_where_it_makes_no_sense(listed, reason):
    with pytest.raises(ValidationError, match=reason):
        features(*listed)


def test_an_unknown_preset_is_refused_with_those_there_are():
    with pytest.raises(ValidationError, match="no preset 'flows'; there are flows-per-source"):
        FeaturesConfig(preset="flows")


@pytest.mark.parametrize(
    ("feature", "key", "reason"),
    [
        ({"aggregate": "sum", "field": "octets"}, "features", "no such event field; there are src, proto"),
        ({"aggregate": "sum", "field": "proto"}, "features.x", "needs a number, but 'proto' is text"),
        ({"aggregate": "share", "where": {"field": "bytes", "equals": "many"}}, "features.x", "'bytes' is a number"),
        ({"aggregate": "sum", "field": "bytes", "kind": "category"}, "features.x.kind", "a category is one text"),
        ({"per_event": "service", "kind": "gauge"}, "features.x.kind", "a category is one text"),
        ({"per_event": "service", "profile": True}, "features.x.profile", "only a number has a usual range"),
        ({"per_event": "service", "recent": True}, "features.x.recent", "only a number has a usual range"),
    ],
)
def test_a_feature_that_does_not_fit_the_events_is_refused_by_its_key(feature, key, reason):
    with pytest.raises(ConfigurationError, match=reason) as caught:
        check_fields(features({"name": "x", **feature}), TYPES)
    assert caught.value.key == key


def test_the_digest_tells_schemas_apart():
    one = schema(features({"name": "x", "aggregate": "count"}), TYPES)
    other = schema(features({"name": "x", "aggregate": "count", "kind": "count"}), TYPES)

    assert one.digest == schema(features({"name": "x", "aggregate": "count"}), TYPES).digest
    assert one.digest != other.digest
