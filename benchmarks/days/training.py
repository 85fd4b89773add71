"""The runs of a chain, by the training commands' own way, and what each reaches on today's held-out items."""

from __future__ import annotations

import importlib
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from cce_minus.recsys import TrainConfig, num_batches, read_metrics_log
from cce_minus.recsys.data.ragged import take_ranges
from cce_minus.recsys.run.progress import TrainResult
from cce_minus.recsys.serving.served_run import ServedRun

from ..study.epoch_time import train_with
from .cells import BASE, FULL, PART_OF_STEPS, WARM, Chain
from .logs import LogData, in_items_of, write_logs

Values = dict[str, object]

METRICS = ("ndcg@10", "hr@10")


def train_chain(chain: Chain, data: Path, device: torch.device) -> list[Values]:
    """Trains the runs of ``chain`` on the data set's file in ``data``; returns their rows by the names of the CSV's
    columns.

    Raises ``ValueError`` where the full retraining is best so early that a part of its steps is no whole epoch.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yesterday, today = write_logs(data / f"{chain.cell.dataset.name}.parquet", chain.day, folder)
        config = replace(chain.cell.config(data, chain.seed), device=device.type)
        base = replace(config, data=str(yesterday), out=str(folder / BASE))
        full = replace(config, data=str(today), out=str(folder / FULL))
        day = Comparison(chain.framework, device.type, LogData.of(base), LogData.of(full), chain.day.begin)
        rows = [day.run(BASE, base), day.run(FULL, full)]
        to_best = int(str(rows[-1]["best_epoch"])) + 1
        if to_best < PART_OF_STEPS:
            raise ValueError(f"full retraining: expected its best epoch from {PART_OF_STEPS} on, got {to_best}")
        warm = replace(full, epochs=to_best // PART_OF_STEPS, from_run=base.out, out=str(folder / WARM))
        rows.append(day.run(WARM, warm))
    return rows


@dataclass(frozen=True)
class Comparison:
    """The logs of a day that begins at ``since``, and how runs of a ``framework`` are trained on either and measured
    alike: on what ``today`` holds out."""

    framework: str
    device: str
    yesterday: LogData
    today: LogData
    since: int

    def run(self, kind: str, config: TrainConfig) -> Values:
        """Trains one; returns its row."""
        result = train_with(self.framework, config)
        own = self.yesterday if kind == BASE else self.today
        steps = num_batches(own.split.train, batch_size=config.batch_size)
        curve = [row["ndcg@10"] for row in read_metrics_log(Path(config.out) / "metrics.csv") if "ndcg@10" in row]
        return {
            "kind": kind,
            "events": len(own.interactions.item),
            "users": own.interactions.num_users,
            "items": own.split.num_items,
            "steps_per_epoch": steps,
            "epochs": len(result.losses),
            "steps": len(result.losses) * steps,
            "best_epoch": result.best_epoch,
            "steps_to_best": (result.best_epoch + 1) * steps,
            **{f"valid_{name}": result.valid[name] for name in METRICS},
            **self._test(Path(config.out), own, result),
            "valid_curve": " ".join(f"{value:.5f}" for value in curve),
            "seconds": result.seconds,
        }

    def _test(self, out: Path, own: LogData, result: TrainResult) -> Values:
        """What the best weights of the run in ``out``, which was trained on its ``own`` log, reach on today's test
        part: of every user, and of those who were active on the day.

        An item that the model does not have is a miss.
        """
        history, target = self.today.split.test_history, self.today.split.test_target
        active = self.today.active(self.since)
        if own is self.today:  # by the run itself
            found: Values = {f"test_{name}": result.test[name] for name in METRICS}
            parts = {"active": active}
        else:
            found, parts = {}, {"test": np.ones_like(active), "active": active}
        found |= {"test_users": len(target), "active_users": int(active.sum())}
        served = ServedRun.open(out)
        load = importlib.import_module(f"cce_minus.{self.framework}_impl.serve").load_served
        model, places = served.load(load, self.device), served.catalog.places_of(self.today.catalog)
        for part, chosen in parts.items():
            rows = np.flatnonzero(chosen)
            some = take_ranges(history.values, history.offsets[rows], history.offsets[rows + 1])
            known, items = in_items_of(places, some, target[rows])
            share = len(items) / len(rows) if len(rows) else None  # a day without such users has no mean
            nothing = dict.fromkeys(METRICS, 0.0)
            metrics = model.evaluate(known, items, own.split, config=served.config) if share else nothing
            found |= {f"{part}_{name}": None if share is None else share * metrics[name] for name in METRICS}
        return found
