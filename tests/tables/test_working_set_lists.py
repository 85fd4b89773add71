"""Working sets of samplers whose groups have lists: places of the drawn items, and log weights of the rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cce_minus import jax_impl, torch_impl
from cce_minus.kernels import (
    ArgumentTypeError,
    ArgumentValueError,
    HardNegatives,
    History,
    InBatchNegatives,
    PopularityNegatives,
    UniformNegatives,
    negative_ids,
)

from tests.tables.working_sets import (
    COUNTS,
    DEVICE,
    FRAMEWORKS,
    IMPLS,
    LISTS,
    OF_TARGETS,
    inputs_of,
    kind,
    loss_of,
    made,
    make,
)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("negatives", LISTS, ids=kind)
def test_lists_are_places(negatives: Any, framework: str, impl: str):
    target, inputs = inputs_of(100, 4000, ignored=0.6)
    found = made(framework, negatives, target, num_items=4000, seed=7, inputs=inputs, impl=impl)
    drawn = negative_ids(negatives, num_rows=int((target != -100).sum()), num_items=4000, seed=7)
    every = np.unique(np.concatenate([drawn.ravel(), target[target >= 0], inputs[inputs >= 0]]))
    np.testing.assert_array_equal(found["ids"][: int(found["count"][0])], every)
    lists = found["drawn"]
    has_rows = np.arange(len(lists)) * negatives.group_size < (target != -100).sum()
    assert (lists[~has_rows] == -1).all()
    np.testing.assert_array_equal(np.unique(found["ids"][lists[has_rows]], axis=0), np.unique(drawn, axis=0))
    np.testing.assert_array_equal(
        found["log_weight"], negatives.probabilities(4000).log_weight[found["ids"]]  # the correction of V items
    )  # fmt: skip


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize("negatives", OF_TARGETS, ids=kind)
def test_in_batch_negatives_are_targets(negatives: Any, framework: str):
    target, _ = inputs_of(40, 4000)
    log_q = np.log((1 + COUNTS) / (1 + COUNTS).sum()).astype(np.float32)
    found = made(framework, negatives, target, num_items=4000, seed=7, log_q=log_q)
    if type(negatives) is InBatchNegatives:
        np.testing.assert_array_equal(found["ids"][: int(found["count"][0])], np.unique(target[target >= 0]))
        np.testing.assert_allclose(found["log_weight"], -log_q[found["ids"]] - np.log(4000), atol=1e-6)
    assert ("drawn" in found) == (negatives.group_size is not None)
    # without probabilities there is no correction
    bare = make(framework, negatives, target, num_items=4000, seed=7)
    assert bare.log_weight is None
    assert np.isfinite(float(loss_of(framework, bare, logq_correction=False)))
    with pytest.raises(ArgumentTypeError, match="log_q: expected the log"):
        loss_of(framework, bare)
    with pytest.raises(ArgumentValueError, match="remove_accidental_hits: expected True"):
        loss_of(framework, bare, logq_correction=False, remove_accidental_hits=False)
    module: Any = torch_impl if framework == "torch" else jax_impl
    with pytest.raises(ArgumentTypeError, match="negatives: expected UniformNegatives, "):
        loss_of(framework, bare, call=module.sampled_linear_binary_cross_entropy)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(
    "negatives", [UniformNegatives(70, 32), *LISTS, *OF_TARGETS, HardNegatives(40, 9, 32)], ids=kind
)
def test_frameworks_agree(negatives: Any, impl: str):
    target, inputs = inputs_of(60, 4000)
    log_q = np.log((1 + COUNTS) / (1 + COUNTS).sum()).astype(np.float32) if negatives.in_batch else None
    each = [
        made(framework, negatives, target, num_items=4000, seed=3, inputs=inputs, log_q=log_q, impl=impl)
        for framework in FRAMEWORKS
    ]
    assert each[0].keys() == each[1].keys()
    for name, array in each[0].items():
        tolerance = 1e-6 if name == "log_weight" and negatives in OF_TARGETS else 0  # of the frameworks' logaddexp
        np.testing.assert_allclose(array, each[1][name], rtol=0, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_histories_are_those_of_the_catalog(framework: str):
    target, _ = inputs_of(40, 4000)
    users, offsets = np.arange(40, dtype=np.int32) % 3, np.array([0, 2, 2, 5], np.int32)
    history = History(users, offsets, np.array([7, 3999, 3, 4, 3000], np.int32))
    negatives = PopularityNegatives(COUNTS, 70, group_size=32)
    given = make(framework, negatives, target, num_items=4000, seed=7, history=history)
    weights = made(framework, negatives, target, num_items=4000, seed=7, history=history)["history_weight"]
    np.testing.assert_array_equal(weights, negatives.probabilities(4000).log_weight)
    assert np.isfinite(float(loss_of(framework, given)))
    with pytest.raises(ArgumentTypeError, match="history: expected None beside a working set"):
        loss_of(framework, given, history=history)
    uniform = make(framework, UniformNegatives(20, 16), target, num_items=4000, seed=7, history=history)
    assert uniform.history_weight is None
    for wrong, message in (
        (history._replace(users=users[:9]), "history: expected users of shape .40,."),
        (history._replace(offsets=offsets[:1]), "history: expected offsets"),
    ):
        with pytest.raises(ArgumentValueError, match=message):
            make(framework, negatives, target, num_items=4000, seed=7, history=wrong)
    if DEVICE == "cpu":
        with pytest.raises(ArgumentValueError, match=r"history: expected items in \[0, 4000\)"):
            loss_of(framework, make(framework, negatives, target, num_items=4000, seed=7,
                                    history=history._replace(items=history.items + 1)))  # fmt: skip
