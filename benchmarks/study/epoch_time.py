"""How long an epoch of the training commands takes end to end, in both frameworks, and where the time goes."""

from __future__ import annotations

import contextlib
import csv
import functools
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from cce_minus.recsys import TrainConfig, epoch_batches, prepare_data
from cce_minus.recsys.run.profile import Profile
from cce_minus.recsys.run.progress import TrainResult

from .cells import DATASETS, FULL, Cell, Method, grouped
from .results import replace_rows

NEGATIVES = 1024
EAGER = Method("eager CE-", {"num_negatives": NEGATIVES, "group_size": 1})
LOSSES = (grouped(NEGATIVES), EAGER, FULL)
FRAMEWORKS = ("torch", "jax")

COLUMNS = (
    "dataset", "framework", "method", "steps", "epoch_seconds", "training_seconds", "saving_seconds",
    "validation_seconds",
    "batches_seconds", "step_ms", "loss_ms", "gpu", "torch", "triton", "commit",
)  # fmt: skip

_EPOCHS, _VALIDATED = 6, 3  # the first compiles, and so does the validation of the third: both are left out


def measure(framework: str, method: Method, data: Path, dataset: str) -> dict[str, object]:
    """Trains six epochs with the framework's training command and returns what the later ones took, in seconds.

    ``epoch_seconds`` is an epoch with validation and checkpoint; ``training_seconds`` the median of those without
    validation, of which ``saving_seconds`` are what training waits for a checkpoint, and ``validation_seconds`` the
    difference;
    ``batches_seconds`` what an epoch's batches take on the host alone. ``step_ms`` and ``loss_ms``, of PyTorch and but
    for eager CE-, are how long a step and the loss keep the GPU busy (`timing.measure_cell`).
    """
    cell = Cell(DATASETS[dataset], method, {"epochs": _EPOCHS, "patience": _EPOCHS, "eval_every": _VALIDATED})
    config = cell.config(data, 1)
    eager = eager_training(framework) if method == EAGER else contextlib.nullcontext()
    profile = _Saving()
    timed = mock.patch(f"cce_minus.{framework}_impl.train.Profile", return_value=profile)
    with tempfile.TemporaryDirectory() as folder, eager, timed:
        train_with(framework, replace(config, out=str(Path(folder) / "run")))
        with (Path(folder) / "run" / "metrics.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
    ends = [float(row["seconds"]) for row in rows]
    took = [after - before for before, after in itertools.pairwise(ends)]  # of the second epoch and on
    plain = statistics.median(seconds for epoch, seconds in enumerate(took, start=2) if epoch % _VALIDATED)
    whole = took[-1]
    split = prepare_data(config)[1]
    begin = time.perf_counter()
    steps = sum(1 for _ in epoch_batches(config, split, 1))
    batches = time.perf_counter() - begin
    costs: dict[str, object] = {}
    if framework == "torch" and method != EAGER:
        costs = _gpu_costs(cell, data)
    return {
        "dataset": dataset,
        "framework": framework,
        "method": method.name,
        "steps": steps,
        "epoch_seconds": whole,
        "training_seconds": plain,
        "saving_seconds": statistics.median(profile.waited),
        "validation_seconds": whole - plain,
        "batches_seconds": batches,
        **costs,
    }


def add(path: Path, rows: list[dict[str, object]]) -> None:
    """Adds rows to the CSV at ``path``, in place of those of the same data set, framework and method."""
    replace_rows(path, rows, COLUMNS, key=("dataset", "framework", "method"))


def train_with(framework: str, config: TrainConfig) -> TrainResult:
    """Trains as the command of ``framework`` does."""
    if framework == "torch":
        from cce_minus.torch_impl.train import train
    else:
        from cce_minus.jax_impl.train import train
    return train(config)


def _gpu_costs(cell: Cell, data: Path) -> dict[str, object]:
    import torch

    from .timing import measure_cell

    if not torch.cuda.is_available():
        return {}
    costs = measure_cell(cell, data, torch.device("cuda"))
    return {name: costs[name] for name in ("step_ms", "loss_ms")}


class _Saving(Profile):
    """Collects the seconds that training waits for each checkpoint, most of which is written meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[float] = []

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        with super().part(name):
            yield
        if name == "checkpoints":
            self.waited.append(time.perf_counter() - begin)


@contextlib.contextmanager
def eager_training(framework: str) -> Iterator[None]:
    """The training command with CE- as one writes it in its framework, from the benchmark of the loss."""
    if framework == "torch":
        from cce_minus.torch_impl.training.steps import TrainingSteps

        class EagerSteps(TrainingSteps):
            def __init__(self, *arguments: Any, **options: Any) -> None:
                super().__init__(*arguments, **options | {"loss": _eager_torch})
                self._captures = False  # it picks the rows that count, whose number the host waits for

        steps: Any = EagerSteps
    else:
        from cce_minus.jax_impl.training.steps import TrainingSteps

        steps = functools.partial(TrainingSteps, loss=_eager_jax)
    with mock.patch(f"cce_minus.{framework}_impl.training.trainer.TrainingSteps", steps):
        yield


def _eager_torch(model: Any, inputs: Any, targets: Any, seed: Any, *, objective: Any, frequencies: Any = None) -> Any:
    import torch

    from ..loss.providers_torch import eager_loss

    rows = model.item_rows()
    hidden = model(inputs, rows)
    # Autocast would leave the gathered rows in fp32, twice the memory that they need.
    dtype = torch.get_autocast_dtype(rows.device.type) if torch.is_autocast_enabled(rows.device.type) else rows.dtype
    counted = targets >= 0
    return eager_loss(
        hidden[counted].to(dtype), rows.to(dtype), targets[counted].long(), objective.sampler.num_negatives
    )


def _eager_jax(
    model: Any,
    inputs: Any,
    targets: Any,
    seed: Any,
    dropout_key: Any = None,
    *,
    objective: Any,
    frequencies: Any = None,
) -> Any:
    """Of every position, as shapes are fixed under jit; those without a target are masked."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from ..loss.providers_jax import xla_rows

    rows = model.item_rows()
    hidden = model(jnp.asarray(inputs), rows, rngs=None if dropout_key is None else nnx.Rngs(dropout=dropout_key))
    target = jnp.asarray(targets).reshape(-1)
    counted = target >= 0
    operands = hidden.astype(model.dtype).reshape(len(target), -1), rows.astype(model.dtype), jnp.maximum(target, 0)
    key = jax.random.fold_in(jax.random.key(seed[0]), seed[1])
    losses = xla_rows(*operands, objective.sampler.num_negatives, key)
    return jnp.where(counted, losses, 0).sum() / jnp.maximum(counted.sum(), 1)
