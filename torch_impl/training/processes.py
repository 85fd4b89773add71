"""The processes of a training on several devices of this host, by PyTorch's elastic launcher, the one of torchrun."""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from ...recsys import ConfigError, DataError, DivergedError, RankError, TrainConfig
from ...recsys.run.callbacks import require_sendable
from ...recsys.run.events import Callback
from ...recsys.run.progress import TrainResult
from ..ranks import PROJECT


class Train(Protocol):
    """The training of one process."""

    def __call__(self, config: TrainConfig, *, callbacks: Sequence[Callback] = ()) -> TrainResult: ...


def train_in_processes(train: Train, config: TrainConfig, callbacks: Sequence[Callback] = ()) -> TrainResult:
    """``train(config)`` in ``config.devices`` processes; its typed errors are raised here as they were there.

    ``callbacks`` are pickled, so that what they collect stays in the first process; raises ``ConfigError`` for one that
    cannot be. Raises ``RankError`` where a process has ended otherwise, after the others have been ended, too.
    """
    require_sendable(callbacks, config.devices)
    level = logging.getLogger(PROJECT).getEffectiveLevel()
    with tempfile.TemporaryDirectory() as folder, _callers_signals(), _silent("torch."):
        launch = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=config.devices,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",  # the host's own name may be nowhere known
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        try:
            return elastic_launch(launch, train_rank)(train, config, level, callbacks)[0]
        except ChildFailedError as error:
            raised = _own_error(error, config.devices)
            raise raised from (None if raised is error else error)
        except SignalException as ended:
            raise KeyboardInterrupt from ended


@contextmanager
def _silent(start: str) -> Iterator[None]:
    """Loggers whose names begin so tell nothing: what goes wrong is raised."""
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith(start)]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


@contextmanager
def _callers_signals() -> Iterator[None]:
    """Puts back what the caller does at signals, which the launcher takes for itself in the main thread."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)
    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in signals} if is_main else {}
    environment = os.environ.get(_SIGNALS)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if environment is None:
            os.environ.pop(_SIGNALS, None)


_SIGNALS = "TORCHELASTIC_SIGNALS_TO_HANDLE"


def train_rank(train: Train, config: TrainConfig, level: int, callbacks: Sequence[Callback]) -> TrainResult:
    """Trains as one of the processes, whose log is of this ``level``."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger(PROJECT).setLevel(level)
    try:
        return train(config, callbacks=callbacks)
    except _TYPED:
        raise
    except Exception:
        time.sleep(_GIVES_WAY)  # it may follow from another's end, which is what is to be told
        raise


_TYPED, _GIVES_WAY = (ConfigError, DataError, DivergedError), 3


def _own_error(error: ChildFailedError, number: int) -> Exception:
    rank, failure = error.get_first_failure()
    told: Any = failure.message
    if not isinstance(told, dict):
        how, then = told, "resume goes on from the last checkpoint"
        if failure.exitcode >= 0:
            how, then = f"exit code {failure.exitcode}", 'a script that trains needs if __name__ == "__main__":'
        return RankError(
            f"devices: expected {number} processes that end together, got rank {rank} (process {failure.pid}) ended by "
            f"{how}; {then}"
        )
    kind, _, text = told["message"].partition(": ")
    typed = {each.__name__: each for base in _TYPED for each in _with_subclasses(base)}
    return typed[kind](text) if kind in typed else error


def _with_subclasses(kind: type[Exception]) -> list[type[Exception]]:
    return [kind, *(each for own in kind.__subclasses__() for each in _with_subclasses(own))]
