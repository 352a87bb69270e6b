"""Hostile input by the million, from a seed: `python tests/faults/fuzz.py`; an input that fails tells how to see it again.

What must hold: nothing but the expected error of each reader; every event has one fate, so consumed = aggregated +
late + rejected + skipped; every message is accounted for, by the fates that it has alone; a rejected one keeps its bytes.
"""

import argparse
import functools
import json
import random
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).parent))  # tests are no package; `hostile` is theirs alone

import hostile

from stream_iwae.batches import RecordBatch, TrainingBatch
from stream_iwae.config import Config
from stream_iwae.errors import ArtefactError, ConfigurationError, StateError
from stream_iwae.events.config import EventsConfig
from stream_iwae.features.config import FeaturesConfig
from stream_iwae.incidents.config import IncidentsConfig
from stream_iwae.outputs import Publisher, Topics
from stream_iwae.pipeline import Pipeline, Stages
from stream_iwae.windows.config import WindowsConfig
from stream_iwae.windows.progress import Progress, decode_metadata, encode_metadata
from stream_iwae.wire import (
    decode_scores,
    decode_state,
    decode_training,
    encode_state_delta,
    encode_state_shard,
    encode_training,
)

BATCH = 500  # messages a pipeline sees before it is made anew
ROOT = Path(__file__).parents[2]
TOPICS = Topics("alerts", "dead-letters", "state", "training")


class FoundError(AssertionError):
    """An input that should not have done this; says how to see it again."""


# --- messages ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """One way to read a topic, and the fields of what is sent to it."""

    name: str
    stages: Stages
    fields: dict[str, list[str]]


def _stages(events, features, **windows):
    return Stages(
        detector="fuzz",
        topic="events",
        events=EventsConfig.model_validate(events),
        windows=WindowsConfig.model_validate({"size": "10s", "grace": "2s", "max_entities": 50, **windows}),
        features=FeaturesConfig.model_validate(features),
        incidents=IncidentsConfig(),
    )


def _times(form):
    return [form(hostile.NOW_MS + step * 700) for step in range(60)]


_ADDRESSES = [f'"10.0.{i % 4}.{i}"' for i in range(12)] + ['"2001:DB8::1"', '"::ffff:10.0.0.9"']
_NUMBERS = ["40", "60", "1500", "0", "123456789", "7.5"]
_FLOW = {
    "dst": _ADDRESSES,
    "src_port": _NUMBERS,
    "proto": ['"tcp"', '"17"', "6"],
    "bytes": _NUMBERS,
    "packets": _NUMBERS,
}
_SPECIALS = {"duration_s": ["0.1", "3"], "flags": ['"S"', '"SA"', "2"], "exporter": ['"r1"', '"r2"']}


@functools.cache
def kinds():
    """Presets, nested paths, an envelope, cumulative counters, records as windows."""
    flows = [
        {"name": "flows", "aggregate": "count"},
        {"name": "bytes", "aggregate": "sum", "field": "bytes", "profile": True},
        {"name": "bytes_std", "aggregate": "std", "field": "bytes"},
        {"name": "ports", "aggregate": "distinct", "field": "src_port"},
        {"name": "protos", "aggregate": "entropy", "field": "proto"},
        {"name": "middle", "aggregate": "quantile", "field": "packets", "q": 0.5},
        {"name": "top", "aggregate": "top_share", "field": "dst"},
        {"name": "last", "aggregate": "last", "field": "proto"},
    ]
    simulated = {"ts": _times(str), "src": _ADDRESSES, **_FLOW, **_SPECIALS}
    pmacct = {
        "event_type": ['"purge"', '"purge_init"'], "timestamp_end": _times(lambda ms: f'"{_datetime(ms)}"'), "ip_src": _ADDRESSES,
        "ip_dst": _ADDRESSES, "port_src": _NUMBERS, "ip_proto": ['"tcp"'], "bytes": _NUMBERS, "packets": _NUMBERS, "tcp_flags": ['"2"'],
    }  # fmt: skip
    goflow2 = {
        "time_flow_end_ns": _times(lambda ms: str(ms * 10**6)), "src_addr": _ADDRESSES, "dst_addr": _ADDRESSES, "src_port": _NUMBERS,
        "proto": ['"TCP"', "6"], "bytes": _NUMBERS, "packets": _NUMBERS, "sampling_rate": ["0", "1", "1000"], "sampler_address": ['"r"'],
    }  # fmt: skip
    counters = {
        "time": [{"field": "at.time", "format": "iso"}, {"field": "ts", "format": "epoch_s"}],
        "envelope": "metrics",
        "fields": {
            "host": {"path": "tags.host", "type": "text", "optional": False},
            "port": {"path": "tags.if.name", "type": "text"},
            "octets": {"path": "values.octets", "counter": "cumulative", "bits": 32},
            "load": {"path": "values.load"},
        },
        "entity": ["host", "port"],
        "source": "host",
        "series": ["port"],
    }
    telemetry = {
        "at": _times(lambda ms: '{"time": "%sZ"}' % _datetime(ms).replace(" ", "T")),  # noqa: UP031  # braces
        "tags": ['{"host": "r1", "if": {"name": "eth0"}}', '{"host": "r2", "if.name": "eth1"}', '{"host": "r1"}'],
        "values": ['{"octets": 100, "load": 0.5}', '{"octets": 4294967290}', '{"octets": 7, "load": 1}'],
    }
    loads = [
        {"name": "octets", "aggregate": "sum", "field": "octets"},
        {"name": "load", "aggregate": "max", "field": "load"},
    ]
    return (
        Kind("simulated", _stages({"preset": "simulated"}, flows), simulated),
        Kind("pmacct", _stages({"preset": "pmacct"}, flows, kind="hopping", size="20s", advance="10s"), pmacct),
        Kind("goflow2", _stages({"preset": "goflow2"}, flows), goflow2),
        Kind("counters", _stages(counters, loads), telemetry),
        Kind(
            "records", _stages({"preset": "simulated"}, [{"name": "b", "per_event": "bytes"}], kind="record"), simulated
        ),
    )


def _datetime(ms):
    return np.datetime64(ms, "ms").astype("datetime64[s]").item().isoformat(" ")


def batch_of(values, times, first=0):
    offsets = np.arange(first, first + len(values), dtype=np.int64)
    return RecordBatch("events", 0, offsets, np.array(times, dtype=np.int64), values, first + len(values))


def run_messages(stages, values, times, cuts):
    """Messages through every stage but the model, in polls of the given sizes; returns what became of them."""
    pipeline = Pipeline(stages, 0)
    publisher = Publisher(TOPICS, stages)
    publisher.begin(0, 0, [])
    pipeline.begin(0, None)
    total, letters, at = None, [], 0
    for size in cuts:
        pipeline.process(
            batch_of(values[at : at + size], times[at : at + size], at), None, hostile.NOW_MS, lambda: None
        )
        at += size
        commit = publisher.prepare(pipeline)
        if commit is None:
            continue
        counts = commit.outcome.counts
        if not counts.is_balanced:
            raise AssertionError(f"the fates do not add up: {counts}")
        letters += commit.outcome.rejected
        total = counts if total is None else total
        if total is not counts:
            total.add(counts)
    return total, letters


def check_messages(stages, values, times, cuts):
    """All that must hold of them."""
    total, letters = run_messages(stages, values, times, cuts)
    alone = (
        sum(_fates_alone(stages, value, at) for value, at in zip(values, times, strict=True))
        if len(values) < 3
        else None
    )
    if alone is not None and total.consumed != alone:
        raise AssertionError(f"{total.consumed} events of {alone}")
    if total.consumed < len(values):
        raise AssertionError(f"{len(values)} messages have {total.consumed} fates: {total}")
    for letter in letters:
        if letter.value != values[letter.offset] or not letter.detail or len(letter.detail) > 400:
            raise AssertionError(f"a dead letter of offset {letter.offset} is not what came: {letter.detail!r}")
    return total


def _fates_alone(stages, value, at):
    decoded = Pipeline(stages, 0)._intake.read(batch_of([value], [at]))
    if decoded.n_consumed != len(decoded.events) + len(decoded.rejected) + sum(decoded.skipped.values()):
        raise AssertionError(f"the fates of one message do not add up: {decoded}")
    return decoded.n_consumed


def messages_of(seed, number, kind, n=BATCH):
    rng = random.Random(f"messages-{seed}-{number}")
    values = [hostile.message(rng, kind.fields) for _ in range(n)]
    times = [hostile.record_time(rng, at) for at in range(n)]
    cuts, left = [], n
    while left:
        cuts.append(min(left, rng.choice((1, 17, 100, 400))))
        left -= cuts[-1]
    return values, times, cuts


def fuzz_messages(seed, number, n=BATCH):
    """One batch of messages; finds the shortest part of it that still fails."""
    several = kinds()
    kind = several[number % len(several)]
    values, times, cuts = messages_of(seed, number, kind, n)
    try:
        return check_messages(kind.stages, values, times, cuts)
    except Exception as error:
        for at, (value, time_ms) in enumerate(zip(values, times, strict=True)):
            try:
                check_messages(kind.stages, [value], [time_ms], [1])
            except Exception as cause:
                shown = f"message {at} of kind {kind.name}, alone: {value[:300] if value else value!r} at {time_ms}"
                raise FoundError(f"{shown}\n{type(cause).__name__}: {cause}") from cause
        raise FoundError(
            f"{len(values)} messages of kind {kind.name}, together: {type(error).__name__}: {error}"
        ) from error


# --- our own records ---------------------------------------------------------------------------


def _training(rng):
    n = rng.randrange(6)
    numbers = np.array([[rng.choice((0.0, 1.5, 2.0**30, np.nan, 1e300)) for _ in range(3)] for _ in range(n)]).reshape(
        n, 3
    )
    ids = np.arange(n, dtype=np.uint64)
    some = np.full(n, 0.5)
    return TrainingBatch(
        "digest",
        "1.0",
        ids,
        ids,
        np.arange(n),
        numbers,
        some,
        some,
        some > 1,
        {7: "tcp"},
        history_ended=rng.random() < 0.3,
    )


def _state(rng):
    keys = [f"10.0.0.{rng.randrange(9)}" for _ in range(4)]
    return {
        "presence": {key: [5, 4, hostile.NOW_MS, "r1"] for key in keys},
        "counters": {key: [float(hostile.NOW_MS), 5.0] for key in keys},
        "incidents": {},
        "profiles": {key: [3, b"\x00" * 4, b"\x00" * 4, b"\x00" * 2] for key in keys},
    }


def _magics():
    return (b"SIt1", b"SId1", b"SIs1")


def fuzz_records(seed, number):
    """Training, scores, state and commit metadata: damaged, and with a right checksum over wrong content."""
    rng = random.Random(f"records-{seed}-{number}")
    stages = _RESTORED
    written = encode_training(_training(rng)) or [b""]
    state = _state(rng)
    records = encode_state_delta(3, state) + encode_state_shard(3, 1, state)
    scores = b'{"detector":"d","model_version":"1","entities":[{"a":"b"}],"window_end_ms":[1],"scores":[1.5],"p_values":[0.1],"severities":[0]}'
    metadata = encode_metadata(Progress(3, 5, 4, 9, ((4, 6),)), 7, "f", None)
    _only(StateError, decode_training, _damaged(rng, written[0]))
    _only(StateError, decode_scores, hostile.spoilt(rng, scores))
    _only(StateError, decode_metadata, hostile.spoilt(rng, metadata.encode()).decode("utf-8", "replace"), 3)
    _only(StateError, decode_state, [(key, _damaged(rng, value)) for key, value in records])
    _only(StateError, decode_state, [(hostile.spoilt(rng, key), value) for key, value in records])
    odd = hostile.value_like(rng, [3, state])
    found = _only(
        StateError, decode_state, [(b"delta/3/0", hostile.framed(b"SId1", msgspec.msgpack.encode(_plain(odd))))]
    )
    values = hostile.value_like(rng, state)
    restored = found[0] if found is not None and rng.random() < 0.5 else values
    if isinstance(restored, dict):
        pipeline = Pipeline(stages, 0)
        whole = decode_metadata(encode_metadata(Progress(3, 5, 4, 9), 7, "f", None), 3)
        if _only(StateError, _restore, pipeline, whole, restored):
            run = batch_of(
                [b'{"ts": 1767571200000, "src": "10.0.0.1", "bytes": 4, "octets": 9}'] * 3, [hostile.NOW_MS] * 3, 9
            )
            pipeline.process(run, None, hostile.NOW_MS, lambda: None)


def _restore(pipeline, metadata, state):
    pipeline.restore(metadata, state)
    return True


def _stages_restored():
    fields = {
        "src": {"path": "src", "type": "text"},
        "bytes": "bytes",
        "octets": {"path": "octets", "counter": "cumulative"},
    }
    events = {"time": [{"field": "ts", "format": "epoch_ms"}], "fields": fields, "entity": ["src"]}
    features = [
        {"name": "flows", "aggregate": "count", "profile": True},
        {"name": "octets", "aggregate": "sum", "field": "octets"},
    ]
    return _stages(events, features)


_RESTORED = _stages_restored()


def _damaged(rng, value):
    """Spoilt anyhow, half of the time under a checksum that is right."""
    if rng.random() < 0.5 or len(value) < 9:
        return hostile.spoilt(rng, value)
    return hostile.framed(rng.choice((value[:4], value[:4], *_magics())), hostile.spoilt(rng, value[8:]))


def _plain(value):
    """As msgpack can hold it."""
    if isinstance(value, dict):
        return {str(name).encode("utf-8", "replace").decode(): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return max(-(2**63), min(2**64 - 1, value))
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def _only(expected, read, *arguments):
    """Let a reader have its own error, and no other."""
    try:
        return read(*arguments)
    except expected:
        return None
    except Exception as error:
        shown = repr(arguments)[:600]
        raise FoundError(f"{read.__name__}{shown}\n{type(error).__name__}: {error}") from error


# --- artefacts and configurations --------------------------------------------------------------

_BLOB: list[bytes] = []


def an_artefact():
    """A small model, trained once."""
    if not _BLOB:
        from dataclasses import replace

        from stream_iwae.detection.calibration import Calibration
        from stream_iwae.iwae.artefact import pack
        from stream_iwae.iwae.settings import ModelSettings
        from stream_iwae.iwae.training import Features, train

        rows = np.random.default_rng(0).normal(size=(200, 3))
        rows[:, 2] = np.arange(200) % 3
        settings = ModelSettings(steps=3, hidden=(8,), latent=2, train_samples=2, score_samples=2, device="cpu")
        model = train(
            rows, Features(("a", "b", "c"), ("gauge", "magnitude", "category"), "d" * 16, {0: "x", 1: "y"}), settings, 0
        )
        calibration = Calibration.fit(np.random.default_rng(1).normal(size=300), windows_per_day=100.0)
        _BLOB.append(pack(replace(model, version="1.0", extra={"calibration": calibration.to_json()})))
    return _BLOB[0]


def rewritten(blob, change):
    """The artefact with another manifest, under a checksum that is right."""
    import hashlib

    from safetensors.torch import load, save

    from stream_iwae.iwae.artefact import MAGIC

    body = blob[len(MAGIC) + 32 :]
    size = int.from_bytes(body[:8], "little")
    manifest = json.loads(json.loads(body[8 : 8 + size])["__metadata__"]["manifest"])
    change(manifest)
    body = save(load(body), metadata={"manifest": json.dumps(manifest)})
    return MAGIC + hashlib.sha256(body).digest() + body


def fuzz_artefact(seed, number):
    """Bytes that are damaged, and manifests that are wrong under a right checksum."""
    import hashlib

    from safetensors import SafetensorError
    from safetensors.torch import load, save

    from stream_iwae.batches import FeatureSchema
    from stream_iwae.batches import Kind as FeatureKind
    from stream_iwae.detection.config import DetectionConfig
    from stream_iwae.iwae.artefact import MAGIC
    from stream_iwae.serving import load_serving_model

    rng = random.Random(f"artefact-{seed}-{number}")
    blob = an_artefact()
    body = blob[len(MAGIC) + 32 :]
    roll = rng.random()
    if roll < 0.2:
        blob = hostile.spoilt(rng, blob)
    elif roll < 0.5:
        body = hostile.spoilt(rng, body[:400]) + body[400:] if rng.random() < 0.7 else hostile.spoilt(rng, body)
        blob = MAGIC + hashlib.sha256(body).digest() + body
    else:
        size = int.from_bytes(body[:8], "little")
        manifest = json.loads(json.loads(body[8 : 8 + size])["__metadata__"]["manifest"])
        for _ in range(rng.choice((1, 1, 3))):
            odd = hostile.value_like(rng, manifest)
            manifest = odd if isinstance(odd, dict) else manifest
        if rng.random() < 0.1 and isinstance(manifest.get("settings"), dict):
            manifest["settings"] = {**manifest["settings"], "hidden": [10**9], "latent": 10**9}
        text = json.dumps(manifest, default=repr)
        try:
            body = save(load(body), metadata={"manifest": text.encode("utf-8", "replace").decode()})
        except SafetensorError:
            return
        blob = MAGIC + hashlib.sha256(body).digest() + body
    wanted = _schema_like(FeatureSchema, FeatureKind)
    model = _only(ArtefactError, load_serving_model, blob, wanted, DetectionConfig(), "cpu")
    if model is not None:
        rows = np.array([[0.5, 1.0, 1.0], [np.nan, 2.0, 7.0]])
        scores = _only(ArtefactError, model.scorer.score, rows, lambda: None)
        assert len(scores.scores) == 2


def _schema_like(schema, kind):
    made = schema(("a", "b", "c"), (kind.GAUGE, kind.MAGNITUDE, kind.CATEGORY), ("", "", ""))
    object.__setattr__(made, "names", made.names)

    class Wanted:
        digest = "d" * 16
        names = made.names

    return Wanted()


def fuzz_configuration(seed, number):
    """The shipped files, spoilt as text and as structures."""
    rng = random.Random(f"configuration-{seed}-{number}")
    files = [ROOT / "config.yaml", *sorted((ROOT / "deploy/examples").glob("*.yaml"))]
    text = rng.choice(files).read_text(encoding="utf-8")
    if rng.random() < 0.4:
        text = hostile.spoilt(rng, text.encode()).decode("utf-8", "replace")
    else:
        data = yaml.safe_load(text)
        for _ in range(rng.choice((1, 1, 2))):
            odd = hostile.value_like(rng, data)
            data = odd if isinstance(odd, dict) else data
        text = json.dumps(data, default=repr) if rng.random() < 0.3 else yaml.safe_dump(_plain(data))
    _only(ConfigurationError, Config.parse, text)


# --- command line ------------------------------------------------------------------------------

TARGETS = {
    "messages": fuzz_messages,
    "records": fuzz_records,
    "artefact": fuzz_artefact,
    "configuration": fuzz_configuration,
}


@dataclass
class Summary:
    """What was sent, and what became of it."""

    sent: Counter = field(default_factory=Counter)
    fates: Counter = field(default_factory=Counter)


def run(target, seed, number, summary):
    """One case; a failure says how to see it again."""
    try:
        found = TARGETS[target](seed, number)
    except Exception as error:
        command = f"python tests/faults/fuzz.py --target {target} --seed {seed} --case {number}"
        raise FoundError(f"{error}\nsee it again: {command}") from error
    summary.sent[target] += BATCH if target == "messages" else 1
    if target == "messages":
        summary.fates.update(
            consumed=found.consumed, aggregated=found.aggregated, late=found.late,
            rejected=found.rejected.total(), skipped=found.skipped.total(),
        )  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument(
        "--others", type=int, default=20_000, help="of each other target; configurations, which are long, a tenth"
    )
    parser.add_argument("--target", choices=TARGETS, help="this one alone")
    parser.add_argument("--case", type=int, help="this case of --target alone")
    asked = parser.parse_args()
    summary, started_s = Summary(), time.process_time()
    for target in [asked.target] if asked.target else TARGETS:
        n_cases = {"messages": -(-asked.messages // BATCH), "configuration": asked.others // 10}.get(
            target, asked.others
        )
        begun_s = time.process_time()
        for number in [asked.case] if asked.case is not None else range(n_cases):
            run(target, asked.seed, number, summary)
        print(f"{target}: {summary.sent[target]:,} in {time.process_time() - begun_s:.0f} s of CPU", flush=True)
    if summary.fates:
        print(", ".join(f"{fate} {n:,}" for fate, n in summary.fates.items()))
    print(f"seed {asked.seed}: nothing unexpected, nothing lost; {time.process_time() - started_s:.0f} s of CPU")


if __name__ == "__main__":
    main()
