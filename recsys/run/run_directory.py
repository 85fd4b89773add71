"""The folder of one training run: claimed by a new run, or continued by ``resume``."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from ..data.catalog import Catalog
from ..data.interactions import Interactions
from ..errors import ConfigError
from .config import TrainConfig

# Options that may differ when a run is resumed: they do not change the result of any epoch.
_MAY_CHANGE = ("epochs", "device", "out", "resume")


@dataclass(frozen=True)
class RunDirectory:
    """Paths of one run; each framework has its own checkpoint format, hence its own checkpoint folder."""

    path: Path
    framework: str

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / f"{self.framework}-checkpoints"

    @property
    def catalog(self) -> Path:
        return self.path / "catalog.parquet"

    @property
    def best_weights(self) -> Path:
        return self.path / "best.safetensors"

    @property
    def metrics_log(self) -> Path:
        return self.path / "metrics.csv"

    @property
    def learning_curve(self) -> Path:
        return self.path / "learning_curve.png"

    @property
    def result(self) -> Path:
        return self.path / "result.json"


def open_run(config: TrainConfig, framework: str, interactions: Interactions) -> RunDirectory:
    """Claims ``config.out`` for a new run, or with ``resume`` checks that the run there is this one.

    Writes the resolved configuration to ``config.json`` and the items to ``catalog.parquet``. Raises ``ConfigError``
    when the folder already holds a run, when there is none of this framework to resume, or when an option that shapes
    the result has changed, and ``DataError`` when the data's items have.
    """
    if config.eval_every > config.epochs:
        raise ConfigError(
            f"eval_every: expected at most epochs = {config.epochs} (validation chooses the best epoch), got "
            f"{config.eval_every}"
        )
    run = RunDirectory(Path(config.out).absolute(), framework)
    if config.resume:
        _check_resumable(run, config, interactions)
    elif run.config.exists():
        raise ConfigError(
            f"out: expected a folder without a run, got {run.path}; pass --resume to continue it, or another --out"
        )
    run.checkpoints.mkdir(parents=True, exist_ok=True)
    Catalog.of(interactions).write(run.catalog)
    temporary = run.config.with_suffix(".json.tmp")
    temporary.write_text(config.to_json())
    temporary.replace(run.config)
    return run


def _check_resumable(run: RunDirectory, config: TrainConfig, interactions: Interactions) -> None:
    if not (run.config.exists() and run.catalog.exists() and run.checkpoints.is_dir()):
        raise ConfigError(f"resume: expected a {run.framework} run in {run.path}, got none")
    saved = TrainConfig.from_json(run.config.read_text())
    for name in (field.name for field in dataclasses.fields(TrainConfig) if field.name not in _MAY_CHANGE):
        expected, got = getattr(saved, name), getattr(config, name)
        if got != expected:
            raise ConfigError(f"{name}: expected {expected!r} as in the run to resume, got {got!r}")
    Catalog.read(run.catalog).require_same(interactions, source=str(run.path))
