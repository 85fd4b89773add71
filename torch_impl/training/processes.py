"""The processes of a training on several devices of this host, by PyTorch's elastic launcher, the one of torchrun."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from typing import Any

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from ...recsys import ConfigError, DataError, DivergedError, RankError, TrainConfig
from ...recsys.run.progress import TrainResult
from ..ranks import PROJECT

Train = Callable[[TrainConfig], TrainResult]


def train_in_processes(train: Train, config: TrainConfig) -> TrainResult:
    """``train(config)`` in ``config.devices`` processes; its typed errors are raised here as they were there.

    Raises ``RankError`` where a signal has ended a process, after the others have been ended, too.
    """
    launch = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=config.devices,
        run_id=uuid.uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(),
    )
    level = logging.getLogger(PROJECT).getEffectiveLevel()
    loggers = {name: logging.getLogger(name) for name in ("torch.distributed.elastic", "torch.multiprocessing.spawn")}
    before = {name: logger.level for name, logger in loggers.items()}
    for logger in loggers.values():
        logger.setLevel(logging.CRITICAL)  # what goes wrong is told below
    try:
        return elastic_launch(launch, train_rank)(train, config, level)[0]
    except ChildFailedError as error:
        raised = _own_error(error, config.devices)
        raise raised from (None if raised is error else error)
    except SignalException as signal:
        raise KeyboardInterrupt from signal
    finally:
        for name, logger in loggers.items():
            logger.setLevel(before[name])


def train_rank(train: Train, config: TrainConfig, level: int) -> TrainResult:
    """Trains as one of the processes, whose log is of this ``level``."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger(PROJECT).setLevel(level)
    return train(config)


def _own_error(error: ChildFailedError, number: int) -> Exception:
    rank, failure = error.get_first_failure()
    told: Any = failure.message
    if not isinstance(told, dict):  # ended by a signal
        return RankError(
            f"devices: expected {number} processes that end together, got rank {rank} (process {failure.pid}) ended by "
            f"{told}; resume goes on from the last checkpoint"
        )
    kind, _, text = told["message"].partition(": ")
    typed = {each.__name__: each for base in (ConfigError, DataError, DivergedError) for each in _with_subclasses(base)}
    return typed[kind](text) if kind in typed else error


def _with_subclasses(kind: type[Exception]) -> list[type[Exception]]:
    return [kind, *(each for own in kind.__subclasses__() for each in _with_subclasses(own))]
