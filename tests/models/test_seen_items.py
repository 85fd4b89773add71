"""Evaluation and recommendations with and without the items of a history, against plain NumPy; and the memory they
take."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from cce_minus.jax_impl.models import build_model
from cce_minus.jax_impl.models.parts import Parts
from cce_minus.jax_impl.serving import evaluate as jax_evaluate
from cce_minus.recsys import ConfigError, MetricsTally, Ragged, self_information
from cce_minus.recsys.run.model_config import ModelConfig
from cce_minus.recsys.serving.evaluation import HeldOut
from flax import nnx

ITEMS, CUTOFFS = 37, (3, 10, 40)


def histories() -> Ragged:
    """Lengths below and above the model's 12 positions; the third has seen every item but 4, some often."""
    rng = np.random.default_rng(1)
    rows = [rng.integers(0, ITEMS, length) for length in (1, 3, 12, 30, 7, 2, 5)]
    rows[2] = np.concatenate([rng.permutation(ITEMS - 4), rng.integers(0, ITEMS - 4, 9)])
    return Ragged.from_rows(rows)


def targets(rows: Ragged) -> np.ndarray:
    """The last but one of them was seen before."""
    found = np.array([30, 31, 36, 2, 5, 11, 17], dtype=np.int32)
    found[5] = rows[5][0]
    return found


def scores_of(framework: Any, model: Any, rows: Ragged) -> np.ndarray:
    inputs = np.full((len(rows), 12), -1, np.int32)
    for row, items in enumerate(rows):
        inputs[row, -len(items[-12:]) :] = items[-12:]
    table = np.asarray(model.item_table[...] if framework.name == "jax" else model.item_table.detach())
    return framework.hidden(model, inputs)[:, -1] @ table.T


def plain_metrics(
    scores: np.ndarray, rows: Ragged, target: np.ndarray, information: np.ndarray, filter_seen: bool
) -> dict[str, float]:
    tally = MetricsTally(ITEMS, cutoffs=CUTOFFS, information=information)
    for row, items in enumerate(rows):
        left_out = (set(items.tolist()) if filter_seen else set()) - {int(target[row])}
        order = [item for item in np.argsort(-scores[row], kind="stable").tolist() if item not in left_out]
        rank = 1 + order.index(int(target[row]))
        tally.add(np.array([rank]), np.array([order + [-1] * (ITEMS - len(order))]))
    return tally.metrics()


@pytest.mark.parametrize("filter_seen", [False, True])
@pytest.mark.parametrize("chunk", [5, 37, 8192])
def test_evaluate_is_plain_numpy(framework: Any, filter_seen: bool, chunk: int):
    model, rows = framework.build(seed=3), histories()
    target, information = targets(rows), self_information(rows, ITEMS)
    expected = plain_metrics(scores_of(framework, model, rows), rows, target, information, filter_seen)
    options = {"cutoffs": CUTOFFS, "filter_seen": filter_seen, "information": information}
    got = framework.evaluate(model, rows, target, **options, batch_size=3, chunk=chunk)
    assert got == pytest.approx(expected, abs=1e-12)
    assert len(got) == 7 * len(CUTOFFS)


def test_all_batches_are_compiled_once(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jax_evaluate, "MOST_BATCHES", 1)
    model, rows = build_model(ModelConfig(ITEMS, max_length=12, dim=8), rngs=nnx.Rngs(3)), histories()
    compiled = jax_evaluate._rank_and_count._cache_size()  # pyright: ignore[reportAttributeAccessIssue]
    jax_evaluate.evaluate(model, rows, targets(rows), filter_seen=True, batch_size=2, cutoffs=(2,))
    assert jax_evaluate._rank_and_count._cache_size() == compiled + 1  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("filter_seen", [False, True])
def test_a_ranking_compiled_ahead_is_the_same(filter_seen: bool):
    """JAX's, which is compiled for shapes alone and then ranks with the weights of the moment; without a compilation of
    its own."""
    model, rows = build_model(ModelConfig(ITEMS, max_length=12, dim=8), rngs=nnx.Rngs(3)), histories()
    batches = HeldOut(rows, targets(rows), max_length=12, filter_seen=filter_seen, batch_size=3)
    expected = jax_evaluate.start_evaluation_on(batches, jax_evaluate.Ranker(Parts.of(model), ITEMS), cutoffs=(3, 10))()
    compiled = jax_evaluate._rank_and_count._cache_size()  # pyright: ignore[reportAttributeAccessIssue]
    ahead = jax_evaluate.compile_ahead(Parts.of(model).shapes(), ITEMS, batches, (3, 10))
    ranker = jax_evaluate.Ranker(Parts.of(model), ITEMS, ahead=ahead)
    for _ in range(2):
        assert jax_evaluate.start_evaluation_on(batches, ranker, cutoffs=(3, 10))() == expected
    assert jax_evaluate._rank_and_count._cache_size() == compiled  # pyright: ignore[reportAttributeAccessIssue]
    others = HeldOut(rows, targets(rows), max_length=12, filter_seen=filter_seen, batch_size=4)
    assert jax_evaluate.start_evaluation_on(others, ranker, cutoffs=(3, 10))() == pytest.approx(expected)


def test_leaving_out_seen_items_improves_ranks(framework: Any):
    model, rows = framework.build(seed=3), histories()
    everything, unseen = (framework.evaluate(model, rows, targets(rows), filter_seen=seen) for seen in (False, True))
    assert unseen["mrr@10"] > everything["mrr@10"]


def test_frameworks_agree(framework: Any, other: Any, tmp_path):
    model, twin, rows = framework.build(seed=5), other.build(seed=6), histories()
    framework.save(model, tmp_path / "weights.safetensors")
    other.load(twin, tmp_path / "weights.safetensors")
    options = {"cutoffs": CUTOFFS, "filter_seen": True, "information": self_information(rows, ITEMS)}
    assert framework.evaluate(model, rows, targets(rows), **options) == other.evaluate(
        twin, rows, targets(rows), **options
    )
    mine = framework.recommend(model, rows, 4, filter_seen=True, batch_size=3, chunk=10)
    np.testing.assert_array_equal(other.recommend(twin, rows, 4, filter_seen=True), mine)


@pytest.mark.parametrize("chunk", [5, 8192])
def test_seen_items_are_never_recommended(framework: Any, chunk: int):
    model, rows = framework.build(seed=3), histories()
    scores = scores_of(framework, model, rows)
    for row, items in enumerate(rows):
        scores[row, items] = -np.inf
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :4]
    np.testing.assert_array_equal(
        framework.recommend(model, rows, 4, filter_seen=True, batch_size=3, chunk=chunk), expected
    )


def test_recommending_more_than_is_unseen_is_named(framework: Any):
    with pytest.raises(ConfigError, match=r"k: expected at most 4 with filter_seen, .*, got 5"):
        framework.recommend(framework.build(), histories(), 5, filter_seen=True)
    assert framework.recommend(framework.build(), histories(), 5).shape == (7, 5)
    assert framework.recommend(framework.build(), [], 5, filter_seen=True).shape == (0, 5)


def test_ties_among_unseen_items_go_to_the_lower_id(framework: Any):
    model = framework.build()
    if framework.name == "jax":
        model.item_table[...] = model.item_table[...] * 0
    else:
        model.item_table.data.zero_()
    top = framework.recommend(model, [[0, 2, 3], [36]], 3, filter_seen=True, chunk=2)
    assert top.tolist() == [[1, 4, 5], [0, 1, 2]]
    got = framework.evaluate(model, Ragged.from_rows([[0, 2, 3]]), np.array([5], np.int32), filter_seen=True, chunk=2)
    assert got["mrr@10"] == pytest.approx(1 / 3)


MEMORY = """
import resource, sys
import numpy as np
from cce_minus.recsys import Ragged
from cce_minus.recsys.run.model_config import ModelConfig
from cce_minus.recsys.serving.evaluation import HeldOut

rng = np.random.default_rng(0)
shape = ModelConfig(num_items=1_000_000, max_length=8, dim=16, num_blocks=1, num_heads=1)
if sys.argv[1] == "torch":
    from cce_minus.torch_impl.serving.evaluate import evaluate
    from cce_minus.torch_impl.models.sasrec import SASRec
    model = SASRec(shape)
else:
    from flax import nnx
    from cce_minus.jax_impl.serving.evaluate import evaluate
    from cce_minus.jax_impl.models.sasrec import SASRec
    model = SASRec(shape, rngs=nnx.Rngs(0))
histories = Ragged.from_rows([rng.integers(0, 1_000_000, 50) for _ in range(64)])
target = rng.integers(0, 1_000_000, 64).astype(np.int32)
evaluate(model, Ragged.from_rows([[1]]), target[:1], filter_seen=True, batch_size=1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
evaluate(model, histories, target, filter_seen=True, batch_size=64)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_no_users_times_items_matrix(framework: Any):
    """64 x 1,000,000 scores are 244 MiB; the chunks of 8192 items, keys and compilation are far less."""
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-c", MEMORY, framework.name]
    result = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=120)
    assert int(result.stdout.split()[-1]) < 120
