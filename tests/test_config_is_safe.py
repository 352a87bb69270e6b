"""A configuration executes nothing, whatever it says, and an error about it shows no secret."""

import pytest

from stream_iwae.config import Config
from stream_iwae.errors import ConfigurationError

CANARY = "canary-4711"
BASE = """
kafka: {bootstrap_servers: "x:1", topics: {events: e}}
events: {preset: simulated}
features: {preset: flows-per-source}
"""


def test_the_base_is_good():
    assert Config.parse(BASE).kafka.topics.events == "e"


@pytest.mark.parametrize(
    "tag",
    [
        "!!python/object/apply:os.system ['touch {mark}']",
        "!!python/object/new:os.system ['touch {mark}']",
        "!!python/object/apply:subprocess.check_output [['touch', '{mark}']]",
        "!!python/name:os.system",
        "!!python/module:os",
        "!!python/tuple [1, 2]",
        "!include /etc/passwd",
        "!ENV ${{HOME}}",
    ],
)
@pytest.mark.parametrize("place", ["detector: {tag}\n", "detector: x\nkafka: {tag}\n", "{tag}\n"])
def test_a_tag_that_would_run_something_is_refused_and_runs_nothing(tmp_path, tag, place):
    mark = tmp_path / "was-run"
    text = place.format(tag=tag.format(mark=mark))
    with pytest.raises(ConfigurationError, match="cannot be parsed at line"):
        Config.parse(text if place == "{tag}\n" else BASE + text)

    assert not mark.exists()


@pytest.mark.parametrize("text", ["detector: $(touch x)", "detector: '{{ 7 * 7 }}'", "detector: __import__('os')"])
def test_what_other_tools_would_expand_stays_text(text):
    assert Config.parse(BASE + text).detector in text


def test_aliases_that_multiply_end_soon():
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    with pytest.raises(ConfigurationError, match="aliases multiply"):
        Config.parse(bomb + BASE)
    with pytest.raises(ConfigurationError, match="aliases multiply or recur"):
        Config.parse(BASE + "learning: &a {interval: *a}")


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "{a: " * 100_000, "- " * 100_000, "a: 2020-99-99", "\x00", "a: \ud800"]
)
def test_no_text_ends_in_anything_but_a_configuration_error(text):
    with pytest.raises(ConfigurationError):
        Config.parse(text)


@pytest.mark.parametrize("preset", ["../../../etc/passwd", "/etc/passwd", "simulated/../simulated", "..", "\x00"])
def test_a_preset_is_a_name_and_no_path(preset):
    with pytest.raises(ConfigurationError, match="preset"):
        Config.parse(
            BASE.replace("preset: simulated", f"preset: {preset!r}" if "\x00" not in preset else 'preset: "\\0"')
        )


@pytest.mark.parametrize(
    "text",
    [
        f"kafka: {{bootstrap_servers: 'x:1', topics: {{events: e}}, security_protocol: SASL_SSL, sasl_password: {CANARY}}}",
        f"kafka: {{bootstrap_servers: 'x:1', topics: {{events: e}}, sasl_passwort: {CANARY}}}",
        f"kafka: {{bootstrap_servers: 'x:1', topics: {{events: e}}, sasl_password: [{CANARY}]}}",
        f"kafka: {{bootstrap_servers: 'x:1', topics: {{events: e}}, sasl_password: {{a: {CANARY}}}}}",
        f"kafka: {{bootstrap_servers: 'x:1', topics: {{event: e}}, sasl_password: {CANARY}}}",
        f"kafka: [{{sasl_password: {CANARY}}}]",
        f"kafka:\n  sasl_password: {CANARY}: [",
        f"kafka:\n  sasl_password: !{CANARY} x",
        f"kafka:\n  sasl_password: *{CANARY}",
        f"kafka:\n  sasl_password: '{CANARY}",
        f"http: {{token: {CANARY}, token_file: x}}",
        f"http: {{tokn: 1, token: {CANARY}}}",
        f"http: {{token: {CANARY}, tls_certfile: x}}",
    ],
)
def test_an_error_shows_no_secret(text):
    base = (
        BASE
        if text.startswith("http")
        else BASE.replace('kafka: {bootstrap_servers: "x:1", topics: {events: e}}\n', "")
    )
    with pytest.raises(ConfigurationError) as told:
        Config.parse(base + text)

    seen, error = [], told.value
    while error is not None:
        seen += [str(error), repr(error), repr(getattr(error, "value", ""))]
        error = error.__cause__
    assert CANARY not in "\n".join(seen)


def test_a_section_of_the_environment_that_is_no_json_is_named_and_not_shown(monkeypatch):
    monkeypatch.setenv("STREAM_IWAE__KAFKA", f'{{"sasl_password": "{CANARY}"')
    with pytest.raises(ConfigurationError, match="STREAM_IWAE__") as told:
        Config.parse(BASE)

    assert CANARY not in str(told.value)


def test_a_configuration_in_force_is_printed_without_secrets(monkeypatch):
    monkeypatch.setenv("STREAM_IWAE__HTTP__TOKEN", CANARY)
    monkeypatch.setenv("THE_PASSWORD", CANARY)
    text = BASE.replace("topics:", "sasl_password: '${THE_PASSWORD}', topics:")
    config = Config.parse(text)

    assert config.kafka.password() == config.http.secret() == CANARY
    assert CANARY not in repr(config) + str(config) + config.model_dump_json() + repr(config.model_dump())
