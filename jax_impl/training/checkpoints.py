"""Checkpoints of a training run with Orbax: weights, optimiser state, target frequencies and progress after each
epoch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import jax
import orbax.checkpoint as ocp
from flax import nnx

from ...recsys import ConfigError
from ...recsys.files import usable
from ...recsys.run.progress import Progress
from ...recsys.run.run_directory import WRITABLE
from ..models.sequence_model import SequenceModel
from .objective import Frequencies

TrainingState = tuple[SequenceModel, nnx.Optimizer[SequenceModel], Frequencies | None]
"""All that a step updates, in the order of ``train_step``."""


class Checkpoints:
    """The last checkpoint of a run; a new one is complete before the old one goes (Orbax renames a finished folder)."""

    def __init__(self, manager: ocp.CheckpointManager) -> None:
        self._manager = manager

    def save(self, state: TrainingState, progress: Progress) -> None:
        """Writes the state after ``progress.epochs`` epochs; raises ``ConfigError`` where it cannot be written."""
        parts = ocp.args.Composite(
            state=ocp.args.StandardSave(nnx.state(state)), progress=ocp.args.JsonSave(asdict(progress))
        )
        with usable("out", WRITABLE):
            try:
                self._manager.save(progress.epochs, args=parts)
            except ValueError as error:
                # TensorStore's words for what the system refuses, such as a full disk.
                if "os_error" not in str(error):
                    raise
                raise OSError(f"..{str(error)[-100:]}") from error

    def restore(self, state: TrainingState) -> Progress:
        """Loads the last checkpoint into ``state``; a run without one has new ``Progress``. Raises ``ConfigError``."""
        if self._manager.latest_step() is None:
            return Progress()
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, nnx.state(state))
        try:
            restored = self._manager.restore(
                self._manager.latest_step(),
                args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract), progress=ocp.args.JsonRestore()),
            )
        except Exception as error:  # Orbax raises anything for a damaged file, a bare Exception too
            reason = f"{type(error).__name__}: {error!s:.100}"
            raise ConfigError(
                f"resume: expected a checkpoint that can be read, got {self._manager.directory} ({reason})"
            ) from error
        nnx.update(state, restored["state"])
        return Progress(**restored["progress"])


@contextmanager
def open_checkpoints(folder: Path) -> Iterator[Checkpoints]:
    """Opens the checkpoints in ``folder``, an absolute path; saving is synchronous."""
    options = ocp.CheckpointManagerOptions(max_to_keep=1, enable_async_checkpointing=False)
    with ocp.CheckpointManager(folder, options=options) as manager:
        yield Checkpoints(manager)
