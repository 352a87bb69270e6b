import pytest
from pydantic import ValidationError

from stream_iwae.detection.config import DetectionConfig


@pytest.mark.parametrize(
    ("text", "a_day"),
    [("20/day", 20), ("20 / d", 20), ("5/h", 120), ("1.5/hour", 36), ("1/min", 1440), ("14/week", 2), (7, 7)],
)
def test_a_budget_is_a_rate_a_day(text, a_day):
    assert DetectionConfig(budget=text).budget == pytest.approx(a_day)


@pytest.mark.parametrize("text", ["20", "20/fortnight", "day", "-1/day", "0/day", "20 day", True, None, float("inf")])
def test_a_budget_that_cannot_be_read_is_refused(text):
    with pytest.raises(ValidationError):
        DetectionConfig(budget=text)


def test_the_error_names_what_a_budget_looks_like():
    with pytest.raises(ValidationError, match="20/day"):
        DetectionConfig(budget="20 a day")


def test_the_budget_over_the_rate_of_windows_is_the_p_value_of_a_warning():
    assert DetectionConfig(budget="20/day").warning_p_value(100_000.0) == pytest.approx(2e-4)


def test_few_windows_a_day_do_not_make_ordinary_ones_anomalous():
    assert DetectionConfig(budget="20/day").warning_p_value(10.0) == 0.01


def test_the_graver_severity_has_the_smaller_share():
    with pytest.raises(ValidationError, match="critical_share"):
        DetectionConfig(major_share=0.1, critical_share=0.2)


def test_a_configuration_survives_its_own_json():
    config = DetectionConfig(budget="5/h")

    assert DetectionConfig.model_validate_json(config.model_dump_json()) == config


def test_an_unknown_key_is_refused():
    with pytest.raises(ValidationError, match="budgets"):
        DetectionConfig(budgets=1)
