"""What an own server needs of a run: item vectors, an index of them, and the encoder, also as a program."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ..data.ragged import Ragged, take_ranges
from ..errors import ConfigError, DataError
from ..files import usable
from ..run.run_directory import RunDirectory
from ..run.tensor_file import Stored, write_tensor_file
from ..run.weights_file import read_config
from .encoder_program import EncoderProgram, describe_program, require_program
from .index_recall import QUERIES, measure_index
from .item_index import FLAT, IndexPlan, build_index, plan_index, require_faiss, sample_rows
from .served_run import ServedModel, ServedRun

logger = logging.getLogger(__name__)

MOST_INDEXED = 2**32
"""Bytes of vectors in float32 that an export makes an exact index of without being asked."""


class ExportedModel(ServedModel, Protocol):
    """A `ServedModel` with what an export needs of it."""

    def hidden_states(self, histories: Ragged) -> npt.NDArray[np.float32]:
        """Those (rows, D) that score the next item after each history."""
        ...

    def encoder_program(self) -> EncoderProgram:
        """Raises ``ConfigError`` where the framework cannot write one."""
        ...


LoadExported = Callable[[Path, str, str], ExportedModel]
"""As `served_run.Load`."""


def export_run(
    run: ServedRun, load: LoadExported, to: Path, *, device: str, index: str | None = None, program: bool = False
) -> list[Path]:
    """Writes what an own server needs into the folder ``to`` and returns the files.

    ``items.safetensors`` holds ``vectors`` (V, D), float32, or bfloat16 where they are the rows of such a table and
    nothing else, ``encoder.safetensors`` the model's weights and configuration, ``catalog.parquet`` labels and titles
    by row: the score of item j is ``hidden . vectors[j]`` with the encoder's hidden state of a history.

    ``index.faiss`` is an index of the vectors in float32 by inner product, of the kind ``index`` (`plan_index`) or
    "none"; ``index.json`` its parameters and the recall that is measured (`measure_index`) with hidden states of the
    run's test histories, or with item vectors where the run's data cannot be used. By default it is exact, up to
    `MOST_INDEXED` bytes of vectors. The index alone takes the vectors into memory, and none but ``flat`` and ``hnsw``
    take all of them.

    With ``program`` the encoder is a program too (`EncoderProgram`), in float32 whatever the run's precision, and
    ``encoder.json`` says how to call it (`describe_program`).

    Raises ``ConfigError`` for an index that cannot be trained, without the packages of cce-minus[export] where they are
    needed, for a model too large for a program, and for a folder that cannot be written.
    """
    if to.exists() and (not to.is_dir() or RunDirectory(to, "any").config.exists()):
        raise ConfigError(f"to: expected a folder of its own for the files, without a run, got {to}")
    config = read_config(run.files.best_weights)
    plan = _planned(index, config.num_items, config.dim)
    if program:
        require_program(config)
    model = load(run.files.best_weights, device, "fp32")
    vectors = model.item_vectors()
    encoder = model.encoder_program() if program else None  # first: an index may take an hour
    made = _index(run, model, vectors, plan) if plan else None
    names = ("items.safetensors", "encoder.safetensors", "catalog.parquet")
    items, weights, catalog = files = [to / name for name in names]
    with usable("to", "a folder that can be written"):
        to.mkdir(parents=True, exist_ok=True)
        for name in _OPTIONAL:
            (to / name).unlink(missing_ok=True)  # of other vectors
        write_tensor_file(items, {"vectors": vectors}, {})
        shutil.copyfile(run.files.best_weights, weights)
        shutil.copyfile(run.files.catalog, catalog)
    # Neither FAISS nor PyTorch raise OSError for a file that cannot be written.
    with usable("to", "a folder that can be written", RuntimeError):
        if encoder:
            path = to / encoder.file
            encoder.write(path)
            size = path.stat().st_size
            (to / "encoder.json").write_text(describe_program(encoder, config, size), encoding="utf-8")
            files += [path, to / "encoder.json"]
            logger.info("%s holds the rows of its %d items: %.1f MiB", path, config.num_items, size / 2**20)
        if made:
            path = to / "index.faiss"
            require_faiss().write_index(made[0], str(path))
            told = {**made[1], "bytes": path.stat().st_size}
            (to / "index.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
            files += [path, to / "index.json"]
    return files


_OPTIONAL = ("index.faiss", "index.json", "encoder.pt2", "encoder.jax.bin", "encoder.json")


def _planned(index: str | None, num_items: int, dim: int) -> IndexPlan | None:
    if index == "none":
        return None
    plan = plan_index(index or FLAT, num_items, dim)
    if index is None and plan.memory > MOST_INDEXED:
        logger.info(
            "no index.faiss, which would take %.1f GiB of memory; --index flat makes it, --index ivf-pq a smaller one",
            plan.memory / 2**30,
        )
        return None
    require_faiss()
    return plan


def _index(run: ServedRun, model: ExportedModel, vectors: Stored, plan: IndexPlan) -> tuple[Any, dict[str, Any]]:
    """The index, and what there is to say of it."""
    num_items, dim = vectors.shape
    beside = 4 * plan.training_rows * dim
    logger.info("index %s: takes about %.2f GiB of memory", plan.kind, (plan.memory + beside) / 2**30)
    made = build_index(plan, vectors)
    queries, source = _queries(run, model, vectors)
    measured = measure_index(made, vectors, queries)
    logger.info(
        "index %s: recall@%d %.4f of the exact search's items, %d queries (%s), %.3f ms a query on %d threads",
        plan.kind, measured.k, measured.recall, measured.queries, source, measured.milliseconds, measured.threads,
    )  # fmt: skip
    return made, {
        "kind": plan.kind,
        "parameters": plan.parameters,
        "num_items": num_items,
        "dim": dim,
        f"recall@{measured.k}": round(measured.recall, 6),
        "queries": measured.queries,
        "queries_from": source,
        "milliseconds_a_query": round(measured.milliseconds, 4),
        "threads": measured.threads,
    }


def _queries(run: ServedRun, model: ExportedModel, vectors: Stored) -> tuple[npt.NDArray[np.float32], str]:
    """What an index is asked: at most `QUERIES` hidden states or vectors (n, D), and which of them they are."""
    try:
        histories = run.read_data()[1].test_history
    except (ConfigError, DataError) as error:
        logger.warning("the index's recall is measured with item vectors, not with hidden states of users: %s", error)
        histories = None
    if histories is None or not len(histories):
        return sample_rows(vectors, min(QUERIES, vectors.shape[0])), "item vectors"
    chosen = np.random.default_rng(0).choice(len(histories), min(QUERIES, len(histories)), replace=False)
    starts, ends = histories.offsets[chosen], histories.offsets[chosen + 1]
    return model.hidden_states(take_ranges(histories.values, starts, ends)), "test histories"
