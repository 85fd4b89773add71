"""JAX's item table in parts on several devices: its start, its files and its ranking, beside those of one device."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from cce_minus.jax_impl.models import build_model
from cce_minus.jax_impl.models.parts import Parts
from cce_minus.jax_impl.models.sharded import build_sharded_model
from cce_minus.jax_impl.models.weights import load_weights, save_weights
from cce_minus.jax_impl.ranks import AXIS, OF_ITEMS, on_mesh
from cce_minus.jax_impl.serving.evaluate import Ranker, start_evaluation_on
from cce_minus.jax_impl.serving.sharded_ranking import merged
from cce_minus.jax_impl.serving.spread import Spread
from cce_minus.jax_impl.stored import filled, stored_whole
from cce_minus.jax_impl.training.state import Copy
from cce_minus.jax_impl.training.step_program import State
from cce_minus.recsys import NO_ITEM, Ragged
from cce_minus.recsys.run import tensor_file
from cce_minus.recsys.run.mapped_rows import MappedRows
from cce_minus.recsys.run.model_config import ModelConfig
from cce_minus.recsys.run.tensor_file import Stored
from cce_minus.recsys.serving.evaluation import HeldOut
from flax import nnx
from jax.sharding import AxisType, Mesh, NamedSharding

DEVICES, ITEMS = 3, 41
ROWS = 14  # of a part, of which two have one more than items


def test_on_several_devices():
    """Each `check` here, in a process that has so many."""
    flags = f"--xla_force_host_platform_device_count={DEVICES}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-m", "tests.training.test_jax_table_parts"]
    folder = Path(__file__).parents[2]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_lists_are_merged_by_score_and_id():
    scores = jnp.array([[2.0, 1.0, np.nan, 0.0, 3.0, 1.0, -np.inf, np.nan]])
    scores, best = merged(scores, jnp.array([[7, 9, 1, NO_ITEM, 4, 8, 3, 2]]), 9)
    assert best.tolist() == [[4, 7, 8, 9, 1, 2, 3, NO_ITEM, NO_ITEM]]
    np.testing.assert_array_equal(scores[0, :6], [3.0, 2.0, 1.0, 1.0, np.nan, np.nan])


def check_tables_are_whole_in_files(mesh: Mesh) -> None:
    of_items = NamedSharding(mesh, OF_ITEMS)
    for dtype, shape in ((jnp.float32, (ITEMS, 3)), (jnp.bfloat16, (ITEMS, 3)), (jnp.float32, (ITEMS,))):
        numbers = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        like = jax.ShapeDtypeStruct((DEVICES * ROWS, *shape[1:]), dtype, sharding=of_items)
        array = filled(like, Stored.of(numbers))
        for index, part in enumerate(array.addressable_shards):
            own = numbers[index::DEVICES]
            np.testing.assert_array_equal(np.asarray(part.data, np.float32)[: len(own)], own)
        source = stored_whole(array, ITEMS)
        assert len(list(source.pieces())) > 1
        np.testing.assert_array_equal(tensor_file.as_numbers(source.array(), source.dtype), numbers)
        places = np.array([5, -1, 40, 0, 7], np.int32)
        rows = 1000 + np.arange(5 * numbers[0].size, dtype=np.float32).reshape(5, *shape[1:])
        array = filled(array, MappedRows("float32", lambda places=places, rows=rows: iter([(places, rows)])))
        numbers[places[places >= 0]] = jnp.asarray(rows[places >= 0]).astype(dtype)
        of_parts = np.asarray(array, np.float32).reshape(DEVICES, ROWS, -1)
        np.testing.assert_array_equal(of_parts[2, 1], numbers[5].ravel())
        copy = Copy(State({"item_table": array}, None, None, None), ITEMS)
        stored = copy.tensors()["parameters/item_table"]
        np.testing.assert_array_equal(tensor_file.as_numbers(stored.array(), stored.dtype), numbers)


def check_metrics_are_those_of_one_device(mesh: Mesh, folder: Path) -> None:
    """Of a table in parts and of one that all devices have, whose batches they share."""
    rng = np.random.default_rng(0)
    histories = Ragged.from_rows([rng.integers(0, ITEMS, length) for length in rng.integers(1, 30, 47)])
    targets = rng.integers(0, ITEMS, 47).astype(np.int32)
    for model_name, features in (("sasrec", 0), ("bert4rec", 2)):
        config = ModelConfig(
            ITEMS, model=model_name, max_length=8, dim=16, num_heads=2, num_blocks=1, num_features=features
        )
        one = build_model(config, rngs=nnx.Rngs(1))
        if one.item_features is not None:
            one.item_features[...] = jnp.asarray(rng.standard_normal((ITEMS, features)), jnp.float32)
        save_weights(one, folder / "one.safetensors")
        shared = build_sharded_model(config, mesh, seed=1)
        table = np.asarray(shared.item_table[...]).reshape(DEVICES, ROWS, -1)
        assert 0.015 < table.std() < 0.025
        assert len(np.unique(table)) == table.size
        load_weights(shared, folder / "one.safetensors")
        save_weights(shared, folder / "shared.safetensors")
        assert (folder / "one.safetensors").read_bytes() == (folder / "shared.safetensors").read_bytes()
        for filter_seen in (False, True):
            batches = HeldOut(histories, targets, max_length=8, filter_seen=filter_seen, batch_size=7)

            def found(model: Any, spread: Spread | None, batches: HeldOut = batches) -> tuple[Any, Any]:
                graph, *arrays = Parts.of(model)
                if spread is not None:
                    arrays = on_mesh(arrays, mesh, is_sharded=spread.is_sharded)
                ranker = Ranker(Parts(graph, *arrays), ITEMS, spread=spread, keeps=True)
                results = [start_evaluation_on(batches, ranker, cutoffs=(3, 15)) for _ in range(2)]
                assert results[0]() == results[1]()
                ranks, counts = ranker.found()
                return np.where(ranks > 15, ITEMS, ranks), counts

            ranks, counts = found(one, None)
            for model, spread in ((one, Spread(mesh, is_sharded=False)), (shared, Spread(mesh, is_sharded=True))):
                others, other_counts = found(model, spread)
                np.testing.assert_array_equal(others, ranks)
                for k, count in counts.items():
                    np.testing.assert_array_equal(other_counts[k], count)


def main() -> None:
    mesh = Mesh(np.array(jax.devices()[:DEVICES]), (AXIS,), axis_types=(AxisType.Auto,))
    with mock.patch.object(tensor_file, "PIECE", 100):
        check_tables_are_whole_in_files(mesh)
    with mock.patch("cce_minus.jax_impl.serving.evaluate.MOST_BATCHES", 4), tempfile.TemporaryDirectory() as folder:
        check_metrics_are_those_of_one_device(mesh, Path(folder))


if __name__ == "__main__":
    main()
