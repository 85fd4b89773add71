"""The processes that train together, started once a host or a GPU: how they meet, and what they tell each other."""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from ..recsys import ConfigError, DataError, DivergedError, RankError, TrainConfig

PROJECT = __name__.split(".")[0]
"""The logger of all of the project."""

MEETING, SILENCE = 300, 45
"""Seconds in which all processes have to come, and without a sign of life of one, after which JAX ends the others."""

_WORK_AFTER = 24 * 60 * 60  # seconds that a process may go on for after the others' end
_APPEARS = 60  # seconds within which a host sees the file of another, which network file systems may tell late

_ADDRESS, _NUMBER, _INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
_STARTED = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE")  # by launchers whose processes JAX finds by itself
_TOLD = 2000  # bytes of an error that others are told
_NETWORK = ("Gloo", "NCCL", "UNAVAILABLE", "coordination service", "heartbeat")  # of errors where another has ended
_LARGE = 2**26  # bytes of an array that crosses the network by itself

_ON_ALL = "on all processes"
_Error = TypeVar("_Error", bound=Exception)

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Processes:
    """This one is number ``index`` of ``number``. Alone it exchanges nothing. Others call what exchanges at the same
    time, in their main threads."""

    index: int = 0
    number: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this one logs and writes."""
        return self.index == 0

    def any(self, asked: bool) -> bool:
        """Whether any process has ``asked``."""
        return asked if self.number == 1 else bool(multihost_utils.process_allgather(np.array([asked])).any())

    def wait(self) -> None:
        """Waits until all processes are here."""
        if self.number > 1:
            multihost_utils.sync_global_devices(PROJECT)

    @contextmanager
    def together(self) -> Iterator[None]:
        """What one process refuses inside, with a ``ConfigError`` or a ``DataError``, is raised on all, with its number
        on the others."""
        refused = None
        try:
            yield
        except (ConfigError, DataError) as error:
            refused = error
        told = self._told(b"" if refused is None else str(refused).encode() or b"?")
        if refused is None and (refusing := [index for index, each in enumerate(told) if each]):
            refused = ConfigError(f"{told[refusing[0]].decode(errors='ignore')} (process {refusing[0]})")
        if refused is not None:
            raise _of_all(refused)

    @contextmanager
    def left_together(self) -> Iterator[None]:
        """A training that diverges does so on all processes, which leave once the first one has written what was
        before."""
        try:
            yield
        except DivergedError as error:
            self.wait()
            _of_all(error)
            raise

    def require_one_folder(self, file: Path) -> None:
        """Raises ``ConfigError``, on all processes, unless all see the ``file`` that the first one has written."""
        with self.together():
            end = time.monotonic() + _APPEARS
            while not file.exists() and time.monotonic() < end:
                time.sleep(1)
            if not file.exists():
                raise ConfigError(f"out: expected one folder of all processes, got none of the first one at {file}")

    def require_alike(self, told: str) -> None:
        """Raises ``ConfigError``, on all of several processes, unless all have been ``told`` the same."""
        every = self._told(hashlib.blake2b(told.encode(), digest_size=16).hexdigest().encode())
        if others := [index for index, each in enumerate(every) if each != every[0]]:
            refused = ConfigError(
                f"devices: expected the same options, events and checkpoint, and as much room for the log, on all "
                f"{self.number} processes, got others than process 0's on {', '.join(map(str, others))}"
            )
            raise _of_all(refused)

    def take_from_first(self, tree: Any) -> Any:
        """The first process's numbers of a tree of arrays that all devices have, of which others need the shapes and
        dtypes alone: NumPy arrays of several processes, the same tree of one."""
        if self.number == 1:
            return tree
        arrays, structure = jax.tree.flatten(tree)
        small = [place for place, each in enumerate(arrays) if each.nbytes < _LARGE]
        for places in ([small] if small else []) + [[place] for place in range(len(arrays)) if place not in small]:
            sent = [self._sent(arrays[place]) for place in places]
            for place, got in zip(places, multihost_utils.broadcast_one_to_all(sent), strict=True):
                arrays[place] = got
        return jax.tree.unflatten(structure, arrays)

    def _sent(self, array: Any) -> np.ndarray:
        return np.asarray(array) if self.is_first else np.zeros(array.shape, array.dtype)

    def _told(self, told: bytes) -> list[bytes]:
        """The first bytes of what each process has to tell."""
        if self.number == 1:
            return [told]
        words = np.zeros(_TOLD, np.uint8)
        words[: len(told)] = np.frombuffer(told[:_TOLD], np.uint8)
        return [bytes(each).rstrip(b"\0") for each in multihost_utils.process_allgather(words)]


@contextmanager
def joined(config: TrainConfig) -> Iterator[Processes]:
    """The processes that were started to train together, of which this is one, alone where it was started alone; the
    first one is heard, the others are silent.

    They are started together where JAX's variables say so, or with several ``devices`` by a launcher that starts
    several processes and that JAX knows. Raises ``ConfigError`` where they cannot meet by what they were told, and
    ``RankError`` where one of them has ended. JAX itself ends a process, with a message, whose others do not come
    within `MEETING`, or give no sign of life for `SILENCE`.
    """
    if not jax.distributed.is_initialized() and _are_started(config):
        _meet()
    processes = Processes(jax.process_index(), jax.process_count()) if jax.distributed.is_initialized() else Processes()
    if processes.number == 1:
        yield processes
        return
    _require_equal_shares()
    project = logging.getLogger(PROJECT)
    level = project.level
    if not processes.is_first:
        project.setLevel(logging.ERROR)
    try:
        processes.wait()  # gloo connects within 30 s, before data that one may read for longer
        yield processes
        processes.wait()  # until all is written
        atexit.unregister(_end_at_once)  # of a training before, whose error was caught
    except (Exception, KeyboardInterrupt) as error:
        if _ON_ALL in getattr(error, "__notes__", ()):
            raise
        is_own = isinstance(error, ConfigError | DataError | KeyboardInterrupt)
        if is_own or not any(mark in str(error) for mark in _NETWORK):
            atexit.register(_end_at_once)
            raise
        raise RankError(
            f"devices: expected {processes.number} processes that end together, got one that has ended or cannot be "
            f"reached ({error!s:.500}); JAX tells its number within {SILENCE} s, and resume goes on from the last "
            f"checkpoint"
        ) from error
    finally:
        project.setLevel(level)


def started_together(config: TrainConfig) -> bool:
    """Whether this is one of several processes, which may not have met."""
    return jax.process_count() > 1 if jax.distributed.is_initialized() else _are_started(config)


def _of_all(error: _Error) -> _Error:
    """An ``error`` that all processes raise."""
    error.add_note(_ON_ALL)
    return error


def _end_at_once() -> None:
    """Ends a process that has failed alone, which JAX would have wait for those that wait for its next step."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(1)


def _are_started(config: TrainConfig) -> bool:
    by_launcher = any(os.environ.get(name, "1") != "1" for name in _STARTED)
    return _ADDRESS in os.environ or (config.devices > 1 and by_launcher)


def _meet() -> None:
    """Has JAX connect the processes, by its variables or by those of a launcher that it knows."""
    asked: dict[str, Any] = {}
    if _ADDRESS in os.environ:
        try:  # JAX reads the address alone
            named = {"num_processes": _NUMBER, "process_id": _INDEX}
            asked |= {name: int(os.environ[variable]) for name, variable in named.items() if variable in os.environ}
        except ValueError as error:
            raise ConfigError(f"{_NUMBER}, {_INDEX}: expected whole numbers in the environment ({error})") from error
        if len(asked) == 2:  # without what a launcher would say of the GPUs that are this process's
            asked["cluster_detection_method"] = "deactivate"
            where = os.environ[_ADDRESS]
            logger.info(
                "process %d of %d meets the others at %s, within %d s",
                asked["process_id"], asked["num_processes"], where, MEETING,
            )  # fmt: skip
    # one that has ended is known by its heartbeat; one that works on after a training must not be ended by others
    asked |= {"heartbeat_timeout_seconds": SILENCE, "shutdown_timeout_seconds": _WORK_AFTER}
    try:
        jax.distributed.initialize(**asked, initialization_timeout=MEETING)
    except (ValueError, RuntimeError) as error:  # as of variables that are missing, or of JAX in use before
        raise ConfigError(
            f"devices: expected processes that meet by {_ADDRESS}, {_NUMBER} and {_INDEX}, or by a launcher that "
            f"jax.distributed.initialize knows, before JAX is used; got: {error!s:.300}"
        ) from error


def _require_equal_shares() -> None:
    """Raises ``ConfigError``, on all processes, unless each has as many devices."""
    of_processes = np.bincount([device.process_index for device in jax.devices()])
    if len(set(of_processes)) > 1:
        raise ConfigError(f"devices: expected as many of each process, got {', '.join(map(str, of_processes))}")
