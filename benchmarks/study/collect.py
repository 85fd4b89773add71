"""Rows of the study from folders that the training commands of either framework have written."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

from cce_minus.recsys import TrainConfig

from .cells import digest_of
from .results import ResultsError, describe


def row_of(folder: Path) -> dict[str, object]:
    """The row of a finished run; raises ``ResultsError`` where ``folder`` has none."""
    try:
        config = TrainConfig.from_json((folder / "config.json").read_text())
        result = json.loads((folder / "result.json").read_text())
        with (folder / "metrics.csv").open(newline="") as file:
            epochs = list(csv.DictReader(file))
    except FileNotFoundError as error:
        raise ResultsError(f"{folder}: expected a finished run, got none of its {Path(error.filename).name}") from error
    validated = [epoch for epoch in epochs if epoch["ndcg@10"]]
    return {
        **describe(config),
        "method": "training command" + (", also on validation" if config.train_on_valid else ""),
        "framework": "torch" if (folder / "torch-checkpoints").exists() else "jax",
        # Of a final model the epochs are what validation chose for its seed: no option of the cell.
        "digest": digest_of(replace(config, epochs=1) if config.train_on_valid else config),
        "epochs": len(epochs),
        "best_epoch": result["best_epoch"],
        "steps_per_epoch": int(epochs[0]["step"]),
        "train_loss": result["losses"][result["best_epoch"]],
        **{f"valid_{name}": result["valid"].get(name) for name in ("ndcg@10", "hr@10")},
        **{f"test_{name}": result["test"][name] for name in ("ndcg@10", "hr@10", "coverage@10", "surprisal@10")},
        "valid_curve": " ".join(f"{float(epoch['ndcg@10']):.5f}" for epoch in validated),
        "train_seconds": result["seconds"],
    }
