"""MLflow's record of a run."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .events import EpochEnded, RunStarted
from .progress import TrainResult
from .tracked_run import TrackedRun, id_of, keep_id, options_of

EXPERIMENT = "cce-minus"
"""The experiment of a run, unless MLFLOW_EXPERIMENT_NAME names another."""

MOST_PARAMS = 100
"""That MLflow takes at once."""


class MlflowLog(TrackedRun):
    """A run of MLflow where ``MLFLOW_TRACKING_URI`` says, else in the run's folder, in ``mlflow/mlflow.db``. MLflow
    takes no @ in names: ``valid/ndcg_at_10``. The epoch is a metric's step; a resumed run goes on with the same id."""

    name = "mlflow"

    def __init__(self) -> None:
        self._client: Any = None
        self._id = ""

    def start(self, event: RunStarted) -> None:
        is_local = not os.environ.get("MLFLOW_TRACKING_URI")
        if is_local:  # nothing leaves the computer; MLflow reads this when it is imported
            os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient
        from mlflow.entities import Param

        artifacts = event.folder / "mlflow" / "artifacts"
        if is_local:
            artifacts.mkdir(parents=True, exist_ok=True)
        uri = _local(event.folder) if is_local else None  # None: MLflow looks at its variables
        client = MlflowClient(tracking_uri=uri)
        known = id_of(event.folder, self.name) if event.resumed else None
        if known is None:
            experiment = _experiment(client, artifacts.as_uri() if is_local else None)
            known = client.create_run(experiment, run_name=event.folder.name).info.run_id
            keep_id(event.folder, self.name, known)
            params = [Param(name, str(value)) for name, value in options_of(event).items()]
            for first in range(0, len(params), MOST_PARAMS):
                client.log_batch(known, params=params[first : first + MOST_PARAMS])
        else:
            client.update_run(known, status="RUNNING")
        self._client, self._id = client, known

    def log(self, values: Mapping[str, float], event: EpochEnded) -> None:
        self._metrics(values, event.epoch)

    def end(self, result: TrainResult, values: Mapping[str, float]) -> None:
        self._metrics(values, result.best_epoch)
        self._client.set_terminated(self._id, "FINISHED")

    def fail(self) -> None:
        if self._client is not None:
            self._client.set_terminated(self._id, "FAILED")

    def _metrics(self, values: Mapping[str, float], epoch: int) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        metrics = [Metric(name.replace("@", "_at_"), value, now, epoch) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)


def _local(folder: Path) -> str:
    return f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}"


def _experiment(client: Any, artifacts: str | None) -> str:
    """The id of the experiment by its name, made where there is none."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or EXPERIMENT
    found = client.get_experiment_by_name(name)
    return client.create_experiment(name, artifact_location=artifacts) if found is None else found.experiment_id
