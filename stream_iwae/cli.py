"""The command line. Exit codes: 0 ok, 1 failed, 2 usage, 75 broker unreachable, 78 configuration, 130 interrupted."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from stream_iwae import __version__
from stream_iwae.errors import ConfigurationError, StreamIwaeError
from stream_iwae.units import parse_duration_ms

app = typer.Typer(
    name="stream-iwae",
    help="Streaming anomaly detection for network telemetry on Kafka.\n\nNew here? `stream-iwae demo` shows all of it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
kafka_app = typer.Typer(help="A real Apache Kafka on this machine, without Java or Docker.", no_args_is_help=True)
models_app = typer.Typer(help="The models that were announced.", no_args_is_help=True)
app.add_typer(kafka_app, name="kafka")
app.add_typer(models_app, name="models")

ConfigPath = Annotated[Path, typer.Option("--config", "-c", help="The configuration file; see config.yaml.")]
KafkaDirectory = Annotated[
    Path | None, typer.Option("--dir", help="Where the broker keeps its data; default: in the user cache.")
]
Bootstrap = Annotated[str, typer.Option("--bootstrap-servers", "-b", help="The broker, as host:port.")]
DEFAULT_CONFIG = Path("config.yaml")
_OF_FILES = "For a CSV or parquet file of your own"
_EVALUATE_EXAMPLES = """[bold]Examples[/bold]

All models on NSL-KDD, three seeds, a page with plots:

[cyan]stream-iwae evaluate --dataset nsl-kdd --html report.html[/cyan]

A file of your own with a header line:

[cyan]stream-iwae evaluate --dataset flows.csv --label Label[/cyan]

The same, learnt from its first rows, whatever they are:

[cyan]stream-iwae evaluate --dataset flows.csv --label Label --normal-label ok --protocol unlabelled[/cyan]

A time series, two models, the figures as data:

[cyan]stream-iwae evaluate --dataset load.parquet --label odd --time when --models iwae,pca --json a.json[/cyan]"""


def settle_environment() -> None:
    """What libraries read when they are loaded."""
    # One thread a process: on a busy machine torch's pool makes a training step twenty times slower.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("POLARS_MAX_THREADS", "1")
    # Polars' allocator keeps freed pages by default: 20 MB at the peak of 100,000 entities, for 3 % of time.
    os.environ.setdefault("_RJEM_MALLOC_CONF", "dirty_decay_ms:100,muzzy_decay_ms:0")


def main() -> NoReturn:
    """Run a command and end with its exit code; the only place that catches everything."""
    settle_environment()
    try:
        app(standalone_mode=True)
    except StreamIwaeError as error:
        typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    sys.exit(0)


@app.command()
def run(
    config: ConfigPath = DEFAULT_CONFIG,
    trainer: Annotated[bool, typer.Option(help="Also run the trainer, as a child process.")] = True,
    rekeyer: Annotated[
        bool, typer.Option(help="Also run the re-keyer, as a child process, where events.rekey asks for one.")
    ] = True,
) -> None:
    """Watch the events topic: windows, scores, alerts. Runs until SIGTERM or Ctrl-C, then drains."""
    _check(config)
    from stream_iwae.bootstrap import run_service  # noqa: PLC0415  # torch loads only where it is used

    run_service(config, with_trainer=trainer, with_rekeyer=rekeyer)


@app.command()
def train(
    config: ConfigPath = DEFAULT_CONFIG,
    child_of: Annotated[int | None, typer.Option(hidden=True, help="Leave when this process is gone.")] = None,
) -> None:
    """Run the trainer alone: training topic in, models out. One is enough for all replicas."""
    _check(config)
    from stream_iwae.bootstrap import run_trainer  # noqa: PLC0415

    run_trainer(config, child_of)


@app.command()
def rekey(
    config: ConfigPath = DEFAULT_CONFIG,
    child_of: Annotated[int | None, typer.Option(hidden=True, help="Leave when this process is gone.")] = None,
) -> None:
    """Run the re-keyer alone: events of any partition in, keyed by entity out. Replicas share the partitions."""
    _check(config)
    from stream_iwae.bootstrap import run_rekeyer  # noqa: PLC0415

    run_rekeyer(config, child_of)


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="NDJSON file, an event a line in the order they came; - is stdin.")],
    config: ConfigPath = DEFAULT_CONFIG,
    alerts: Annotated[Path | None, typer.Option(help="Write the alerts here instead of standard output.")] = None,
    model: Annotated[Path | None, typer.Option(help="Score with this artefact and learn nothing.")] = None,
) -> None:
    """Run the same pipeline over a file, without Kafka: collect, train, score, alert."""
    from stream_iwae.bootstrap import run_replay  # noqa: PLC0415

    run_replay(config, file, alerts, model)


@app.command()
def simulate(
    out: Annotated[Path | None, typer.Option(help="Write NDJSON events to this file.")] = None,
    truth: Annotated[Path | None, typer.Option(help="Write the scenarios and their exact intervals here.")] = None,
    bootstrap_servers: Annotated[str | None, typer.Option("--bootstrap-servers", "-b", help="Or to a broker.")] = None,
    topic: Annotated[str, typer.Option(help="The topic on that broker.")] = "flows",
    seed: Annotated[int, typer.Option(help="Another seed is another network with other scenarios.")] = 1,
    hosts: Annotated[int, typer.Option(help="How many hosts the network has.")] = 120,
    history: Annotated[str, typer.Option(help="How much ordinary traffic comes first.")] = "24h",
    live: Annotated[str, typer.Option(help="How long the part with the scenarios is.")] = "8h",
) -> None:
    """Write a seeded, labelled network: ordinary traffic, attacks, and what must not alarm."""
    from stream_iwae.lab.simulate_command import simulate as write  # noqa: PLC0415

    write(
        seed=seed,
        n_hosts=hosts,
        history_ms=_duration("--history", history),
        live_ms=_duration("--live", live),
        out=out,
        truth=truth,
        bootstrap_servers=bootstrap_servers,
        topic=topic,
    )


@app.command()
def publish(
    source: Annotated[str, typer.Argument(help="A data set's name (nsl-kdd, darpa98, ...), an NDJSON file, or -.")],
    topic: Annotated[str, typer.Option(help="The topic to write to; made where it is missing.")],
    bootstrap_servers: Bootstrap = "127.0.0.1:9092",
    key: Annotated[str | None, typer.Option(help="Fields to key by, comma-separated: the entity.")] = None,
    partitions: Annotated[int, typer.Option(help="Partitions of a topic that has to be made.")] = 1,
    speed_up: Annotated[float | None, typer.Option(help="Times real time; without it, as fast as it goes.")] = None,
    batch: Annotated[int, typer.Option(help="Events a message, grouped by key.")] = 1,
    limit: Annotated[int | None, typer.Option(help="Stop after so many events.")] = None,
    data: Annotated[Path | None, typer.Option(help="Where the data sets are.", envvar="STREAM_IWAE_DATA")] = None,
) -> None:
    """Send a data set or a file to a topic, and wait until every message has arrived."""
    from stream_iwae.lab import publish_command  # noqa: PLC0415

    publish_command.publish(source, topic, bootstrap_servers, key, partitions, speed_up, batch, limit, data)


@app.command(epilog=_EVALUATE_EXAMPLES)
def evaluate(
    dataset: Annotated[
        str,
        typer.Option(
            help="nsl-kdd, nsl-kdd-test, kdd99, darpa98, smd-1-6, smd-2-1, simulated (and simulated-plain, without "
            "hosts' own pasts); or any CSV or parquet file; several with commas; or all of the names."
        ),
    ] = "nsl-kdd",
    protocol: Annotated[
        str,
        typer.Option(
            help="What is learnt from. clean-warmup: the first normal rows. unlabelled: the first rows, whatever they "
            "are. flipped: anomalies as the ordinary. attacks-5pct, attacks-1pct: unlabelled, the anomalies thinned "
            "out to that share. Several with commas; or all."
        ),
    ] = "clean-warmup",
    models: Annotated[
        str,
        typer.Option(
            help="iwae, vae, autoencoder, isolation-forest, pca, nearest-neighbour, half-space-trees; "
            "midas and midas-r on darpa98; or all."
        ),
    ] = "all",
    seeds: Annotated[int, typer.Option(help="How often, each with other weights and draws: 3 is 0, 1, 2.", min=1)] = 3,
    data: Annotated[Path | None, typer.Option(help="Where the data sets are.", envvar="STREAM_IWAE_DATA")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the figures as data here.")] = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="Write a page with plots here.")] = None,
    warmup: Annotated[int | None, typer.Option(help="Rows to learn from, in place of the protocol's.", min=64)] = None,
    learn: Annotated[
        bool | None,
        typer.Option(
            "--learn/--no-learn",
            help="Go on learning after the warm-up, as the service does, or stay frozen. "
            "Without either: learn where rows have a time.",
            show_default=False,
        ),
    ] = None,
    budget: Annotated[str, typer.Option(help="Alerts that are acceptable, such as 20/day or 5/h.")] = "20/day",
    label: Annotated[
        str | None, typer.Option(help="Of a file: the column that says what is an anomaly.", rich_help_panel=_OF_FILES)
    ] = None,
    normal_label: Annotated[
        str | None,
        typer.Option(
            help="Values of it that are normal, with commas. Without it: 0, false, no, normal, benign, nothing.",
            rich_help_panel=_OF_FILES,
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            help="The column with the time; `none`: do not look for one. Without it: a column called timestamp, "
            "time, date ... if it holds times.",
            rich_help_panel=_OF_FILES,
        ),
    ] = None,
    entity: Annotated[
        str | None, typer.Option(help="The column that names the host, device or user.", rich_help_panel=_OF_FILES)
    ] = None,
    drop: Annotated[
        str | None, typer.Option(help="Columns to leave out, with commas.", rich_help_panel=_OF_FILES)
    ] = None,
    mapping: Annotated[
        Path | None,
        typer.Option(
            "--mapping",
            "--config",
            "-c",
            help="A configuration such as deploy/examples/nsl-kdd.yaml: its sections events, windows and features say "
            "how rows become windows. Without it each row is a window and each column a feature.",
            rich_help_panel=_OF_FILES,
        ),
    ] = None,
    header: Annotated[
        bool, typer.Option(help="Whether the first line names the columns.", rich_help_panel=_OF_FILES)
    ] = True,
    shuffle: Annotated[
        bool, typer.Option("--shuffle", help="Shuffle rows that are sorted by label.", rich_help_panel=_OF_FILES)
    ] = False,
) -> None:
    """How well the detector tells anomalies from the rest on labelled data, beside its rivals.

    Models learn from the warm-up and score every row; labels only judge. Half of a small file at most is warm-up.
    """
    try:
        from stream_iwae.lab.evaluate_command import Wanted, run_evaluation  # noqa: PLC0415
        from stream_iwae.lab.labelled_file import FileOptions  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(error.name or "lab", "not installed", "run pip install 'stream-iwae[lab]'") from error
    from pydantic import ValidationError  # noqa: PLC0415

    from stream_iwae.detection.config import DetectionConfig  # noqa: PLC0415

    try:
        detection = DetectionConfig.model_validate({"budget": budget})
    except ValidationError as error:
        raise ConfigurationError("--budget", budget, "write a rate such as 20/day, 5/h or 10/week") from error
    dropped = tuple(name.strip() for name in (drop or "").split(",") if name.strip())
    file = FileOptions(label, normal_label, time, entity, dropped, mapping, header, shuffle)
    wanted = Wanted(dataset, protocol, models, seeds, warmup, learn, detection, file)
    run_evaluation(wanted, data, json_file, html_file)


@app.command()
def demo(
    seed: Annotated[int, typer.Option(help="Another seed is another network with other scenarios.")] = 1,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the results as data here.")] = None,
    keep: Annotated[bool, typer.Option(help="Keep the broker's data, logs and configuration.")] = False,
) -> None:
    """Everything at once: a real Kafka, a simulated network, the service, alerts, and what was caught."""
    from stream_iwae.lab.demo import run_demo  # noqa: PLC0415

    sys.exit(run_demo(seed=seed, json_file=json_file, keep=keep))


@kafka_app.command("start")
def kafka_start(
    directory: KafkaDirectory = None,
    brokers: Annotated[int, typer.Option(help="3 gives a cluster with replication.")] = 1,
) -> None:
    """Start Apache Kafka and wait until it answers; prints its address."""
    from stream_iwae.lab import local_kafka  # noqa: PLC0415

    running = local_kafka.start(directory, brokers=brokers)
    typer.echo(running.bootstrap_servers)


@kafka_app.command("status")
def kafka_status(directory: KafkaDirectory = None) -> None:
    """Say whether it runs, and where; exit code 1 where it does not."""
    from stream_iwae.lab import local_kafka  # noqa: PLC0415

    running = local_kafka.status(directory)
    if running is None:
        typer.echo("not running; start it with: stream-iwae kafka start")
        raise typer.Exit(1)
    typer.echo(f"{running.bootstrap_servers} (processes {', '.join(map(str, running.pids))}; {running.directory})")


@kafka_app.command("stop")
def kafka_stop(directory: KafkaDirectory = None) -> None:
    """Stop it; its data stays."""
    from stream_iwae.lab import local_kafka  # noqa: PLC0415

    local_kafka.stop(directory)


@models_app.command("list")
def models_list(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """List the stored versions, oldest first."""
    from stream_iwae.bootstrap import open_model_store  # noqa: PLC0415

    for version in open_model_store(config).versions():
        typer.echo(version)


@models_app.command("export")
def models_export(version: str, out: Path, config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Write one version to a file, for `stream-iwae replay --model`."""
    from stream_iwae.bootstrap import open_model_store  # noqa: PLC0415

    out.write_bytes(open_model_store(config).load(version))


@app.command("check-config")
def check_config(config: ConfigPath = DEFAULT_CONFIG) -> None:
    """Check a configuration file and the environment without starting anything."""
    from stream_iwae.config import Config  # noqa: PLC0415

    loaded = Config.load(config)
    typer.echo(f"{config}: detector {loaded.detector!r}, topic {loaded.kafka.topics.events!r}: good")


@app.command("print-config")
def print_config(
    config: ConfigPath = DEFAULT_CONFIG,
    schema: Annotated[bool, typer.Option(help="Print the JSON Schema instead, for editors.")] = False,
) -> None:
    """Print the configuration in force with all defaults; secrets are masked."""
    import yaml  # noqa: PLC0415

    from stream_iwae.config import Config, json_schema  # noqa: PLC0415

    if schema:
        typer.echo(json.dumps(json_schema(), indent=2))
        return
    typer.echo(yaml.safe_dump(Config.load(config).model_dump(mode="json"), sort_keys=False, allow_unicode=True))


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


def _check(config: Path) -> None:
    """Tell of a wrong configuration at once; what is needed to run takes seconds to load."""
    from stream_iwae.config import Config  # noqa: PLC0415

    Config.load(config)


def _duration(option: str, text: str) -> int:
    try:
        return parse_duration_ms(text)
    except ValueError as error:
        raise ConfigurationError(option, text, str(error)) from error
