"""The folder of one training run: claimed by a new run, or continued by ``resume``."""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..data.catalog import Catalog
from ..data.datasets import DATASETS
from ..data.interactions import Interactions
from ..errors import ConfigError
from ..files import replacing, usable
from ..protocol.splits import Split
from .config import PATHS, TrainConfig
from .feature_columns import write_columns
from .fingerprint import Fingerprint
from .log_choices import LOGGERS
from .saved_options import left_of

# Options that may differ when a run is resumed: they do not change the result of any epoch.
_MAY_CHANGE = (
    "epochs", "device", "devices", "data_on", "table_on", "deterministic", "profile", "log_to", "out", "resume",
)  # fmt: skip
# Files that may have moved, because what they hold is compared: with the fingerprint and with the weights' features.
_MAY_MOVE = ("data", "titles", "item_features", "item_vectors")

NAMES = {"torch": "PyTorch", "jax": "JAX"}
"""What pictures call the frameworks."""

WRITABLE = "a folder that can be written"
"""What a run expects of the option ``out``."""


@dataclass(frozen=True)
class RunDirectory:
    """Paths of one run; each framework has its own checkpoint format, hence its own checkpoint folder."""

    path: Path
    framework: str

    @classmethod
    def of(cls, path: str | Path, framework: str = "any") -> RunDirectory:
        """That of a run of whichever framework, or of one of them."""
        return cls(Path(path).absolute(), framework)

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / f"{self.framework}-checkpoints"

    @property
    def job(self) -> Path:
        """What a launcher of processes called those that began the run."""
        return self.checkpoints / "job"

    @property
    def catalog(self) -> Path:
        return self.path / "catalog.parquet"

    @property
    def events(self) -> Path:
        """The log of a run that was trained on a table in memory."""
        return self.path / "fitted_events.parquet"

    def holds_log(self, config: TrainConfig) -> bool:
        """Whether `events` is what the run of this ``config`` was trained on, wherever its folder is now."""
        return self.events.exists() and config.data == os.path.join(config.out, self.events.name)

    @property
    def feature_columns(self) -> Path:
        """Of a run whose items have features."""
        return self.path / "features.json"

    @property
    def fingerprint(self) -> Path:
        return self.path / "data.json"

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
    def trace(self) -> Path:
        """Of a run that is profiled, for the viewer of its framework."""
        return self.path / "trace"

    @property
    def tracked(self) -> tuple[Path, ...]:
        """What loggers of other programs leave."""
        return tuple(self.path / name for name in (*LOGGERS, "tracking.json"))

    @property
    def result(self) -> Path:
        return self.path / "result.json"

    @property
    def claims(self) -> tuple[Path, ...]:
        """What a run writes before its first epoch ends; the folder of checkpoints is still empty then."""
        return (
            self.checkpoints,
            self.catalog,
            self.feature_columns,
            self.fingerprint,
            self.metrics_log,
            self.config,
            self.trace,
            *self.tracked,
        )


def find_run(config: TrainConfig, framework: str) -> RunDirectory:
    """The folder of a new run, or with ``resume`` of the run to continue, looked at before any data are read.

    Raises ``ConfigError`` when the folder already holds a run or cannot be one, when there is none of this framework to
    resume, or when an option that shapes the result has changed.
    """
    if config.eval_every > config.epochs:
        raise ConfigError(
            f"eval_every: expected at most epochs = {config.epochs} (validation chooses the best epoch), got "
            f"{config.eval_every}"
        )
    run = RunDirectory(Path(config.out).absolute(), framework)
    with usable("out", WRITABLE):
        if config.resume:
            _require_resumable(run, config)
        elif run.config.exists():
            raise ConfigError(
                f"out: expected a folder without a run, got {run.path}; pass --resume to continue it, or another --out"
            )
        nearest = next(folder for folder in (run.path, *run.path.parents) if folder.exists())
        if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
            raise ConfigError(f"out: expected {WRITABLE}, got {run.path}, where {nearest} is none")
    return run


def _require_resumable(run: RunDirectory, config: TrainConfig) -> None:
    if not (run.config.exists() and run.catalog.exists() and run.checkpoints.is_dir()):
        raise ConfigError(f"resume: expected a {run.framework} run in {run.path}, got none")
    saved = TrainConfig.read(run.config)
    # Runs of before there were fingerprints say nothing of their data but where they are.
    may_move = set(_MAY_MOVE) if run.fingerprint.exists() else set()
    if config.item_vectors_as == "initial":
        may_move.discard("item_vectors")
    # a rate that falls to the last epoch's end follows from their number
    fixed = {"epochs"} if saved.schedule != "constant" else set()
    # what is left to the log is the same of the same log
    left = {name for name in ("batch_size", "patience", "max_length") if getattr(config, name) == 0}
    left |= {"negatives", "num_negatives"} if config.negatives == "auto" else set()
    for name in (field.name for field in dataclasses.fields(TrainConfig)):
        if name in _MAY_CHANGE and name not in fixed:
            continue
        expected, got = getattr(saved, name), getattr(config, name)
        same = expected == got or name in left
        if name in PATHS and None not in (expected, got):
            same = name in may_move or _same_place(name, expected, got)
        if not same:
            raise ConfigError(f"{name}: expected {expected!r} as in the run to resume, got {got!r}")


def _same_place(name: str, expected: str, got: str) -> bool:
    if name == "data" and (expected in DATASETS or got in DATASETS):
        return expected == got
    return os.path.realpath(expected) == os.path.realpath(got)


@contextmanager
def claim_run(
    run: RunDirectory,
    config: TrainConfig,
    interactions: Interactions,
    split: Split,
    columns: Sequence[str] = (),
    left: Sequence[str] = (),
) -> Iterator[None]:
    """Claims the folder of `find_run` for a training inside, and lets go of one that ends in an error before its first
    epoch: nothing is left of it then.

    Writes the resolved configuration with absolute paths to ``config.json``, with the options that were ``left`` to the
    log (of a run that goes on, to begin with), the items to ``catalog.parquet``, what
    tells the events from others to ``data.json`` and the names of any ``columns`` of item features to
    ``features.json``. Raises ``DataError`` when the items or events are not those of the
    run to resume, and ``ConfigError`` when the folder cannot be written.
    """
    if config.resume:
        _require_resumable(run, config)  # again, as what was left to the log is known now
        Catalog.read(run.catalog).require_same(interactions, source=str(run.path))
        if run.fingerprint.exists():
            Fingerprint.read(run.fingerprint).require_same(Fingerprint.of(split), source=interactions.source)
        left = left_of(run.config)
    new = [path for path in (run.path, *run.path.parents, *run.claims) if not path.exists()]
    try:
        with usable("out", WRITABLE):
            run.checkpoints.mkdir(parents=True, exist_ok=True)
            Catalog.of(interactions).write(run.catalog)
            Fingerprint.of(split).write(run.fingerprint)
            if columns:
                write_columns(run.feature_columns, columns)
            with replacing(run.config) as temporary:
                temporary.write_text(config.located().to_json(left), encoding="utf-8")
        yield
    except BaseException:
        if not _has_epochs(run):
            _remove([path for path in run.claims if path in new], [path for path in new if path not in run.claims])
        raise


def _has_epochs(run: RunDirectory) -> bool:
    """Whether a training has left more than its claims: weights, or a row below the log's header."""
    logged = run.metrics_log.is_file() and run.metrics_log.read_bytes().count(b"\n") > 1
    return logged or run.best_weights.exists()


def _remove(claims: list[Path], folders: list[Path]) -> None:
    for path in claims:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    for folder in folders:  # the innermost first
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
