"""`stream-iwae evaluate`: a table on the terminal, rows as JSON, and a page with plots."""

import json
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from stream_iwae.errors import ConfigurationError
from stream_iwae.lab.datasets import data_directory
from stream_iwae.lab.evaluate import MODELS, Result, evaluate
from stream_iwae.lab.evaluation_report import COLUMNS, means, write_report
from stream_iwae.lab.protocols import DATASETS, PROTOCOLS, prepare


def run_evaluation(
    dataset: str,
    protocol: str,
    models: str,
    n_seeds: int,
    data: Path | None,
    json_file: Path | None,
    html_file: Path | None,
) -> None:
    """Evaluate models on a data set under a protocol; `all` is each of them.

    Raises:
        ConfigurationError: There is no such data set, protocol or model.
        DatasetError: A file of a data set is missing.
    """
    torch.set_num_threads(1)
    wanted = list(MODELS) if models == "all" else models.split(",")
    for model in wanted:
        if model not in MODELS:
            raise ConfigurationError("--models", model, f"it is none of {', '.join(MODELS)}")
    console = Console(stderr=True)
    results: list[tuple[Result, NDArray[np.bool_]]] = []
    for name in DATASETS if dataset == "all" else dataset.split(","):
        for rules in PROTOCOLS if protocol == "all" else protocol.split(","):
            for seed in range(n_seeds):
                trial = prepare(name, rules, data_directory(data), seed)
                for model in wanted:
                    console.print(f"{name}, {rules}, seed {seed}: {model} on {len(trial.judged):,} rows")
                    result = evaluate(name, rules, trial, model, seed)
                    results.append((result, trial.judged.is_anomaly))
            _print(name, rules, [result for result, _ in results if (result.dataset, result.protocol) == (name, rules)])
    if json_file is not None:
        rows = [result.row() for result, _ in results]
        json_file.write_text(json.dumps({"rows": rows}, indent=2) + "\n", encoding="utf-8")
    if html_file is not None:
        write_report(html_file, results)
        console.print(f"plots are in {html_file}")


def _print(dataset: str, protocol: str, results: list[Result]) -> None:
    table = Table(*(title for _, title in COLUMNS), title=f"{dataset}, {protocol}")
    for line in means(results):
        table.add_row(*(line[name] for name, _ in COLUMNS))
    Console().print(table)
