"""In-batch and hard negatives and histories by formulas written out, running frequencies, vmap and modules; in both
frameworks."""

from __future__ import annotations

from typing import Any

import cce_minus.jax_impl as ours_jax
import cce_minus.torch_impl as ours_torch
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from cce_minus.kernels import (
    AllItems,
    ArgumentError,
    HardNegatives,
    History,
    InBatchNegatives,
    MixedNegatives,
    UniformNegatives,
    user_items,
)
from scipy.special import logsumexp

FRAMEWORKS = (ours_torch, ours_jax)
N, V, D = 32, 50, 16
RNG = np.random.default_rng(0)
HIDDEN = RNG.standard_normal((N, D), np.float32)
TABLE = RNG.standard_normal((V, D), np.float32)
TARGET = RNG.integers(0, 20, N)
Q = RNG.dirichlet(np.ones(V))
LOG_Q = np.log(Q).astype(np.float32)
SCORES = (HIDDEN @ TABLE.T).astype(np.float64)


def call(framework: Any, negatives: Any, loss: str = "sampled_linear_cross_entropy", **keywords: Any) -> np.ndarray:
    arrays: list[Any] = [HIDDEN, TABLE, TARGET]
    if framework is ours_torch:
        arrays = [torch.from_numpy(array) for array in arrays]
        keywords = {
            name: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
            for name, value in keywords.items()
        }
        if isinstance(keywords.get("history"), History):
            keywords["history"] = History(*map(torch.from_numpy, keywords["history"]))
    return np.asarray(getattr(framework, loss)(*arrays, negatives, **keywords))


both = pytest.mark.parametrize("framework", FRAMEWORKS, ids=lambda f: f.__name__)


@both
@pytest.mark.parametrize("group", [16, None])
def test_in_batch_softmax_is_the_papers(framework: Any, group: int | None):
    """Other rows' targets, scores less log q, as Yi et al. (RecSys 2019), with the positive left alone and the mean
    over draws."""
    want = []
    for n in range(N):
        rows = np.arange(N) if group is None else np.arange(n // group * group, (n // group + 1) * group)
        others = TARGET[rows][TARGET[rows] != TARGET[n]]
        z = SCORES[n, others] - np.log(len(others) * Q[others] / (1 - Q[TARGET[n]]))
        want.append(logsumexp([SCORES[n, TARGET[n]], *z]) - SCORES[n, TARGET[n]])
    got = call(framework, InBatchNegatives(group, shuffle_rows=group is None), log_q=LOG_Q, reduction="none", seed=1)
    np.testing.assert_allclose(got, want, rtol=1e-5)


@both
def test_hard_negatives_of_the_whole_catalog(framework: Any):
    """With every item in the pool the loss is softmax cross-entropy over the items that score highest in the group."""
    got = call(framework, HardNegatives(V, 7, 16, shuffle_rows=False), reduction="none", seed=1)
    for first in (0, 16):
        rows = np.arange(first, first + 16)
        masked = np.where(np.arange(V) == TARGET[rows, None], -np.inf, SCORES[rows])
        hardest = np.argsort(-masked.max(0))[:7]
        for n in rows:
            kept = hardest[hardest != TARGET[n]]
            want = logsumexp([SCORES[n, TARGET[n]], *SCORES[n, kept]]) - SCORES[n, TARGET[n]]
            np.testing.assert_allclose(got[n], want, rtol=1e-5)


@both
def test_all_items_without_a_history_are_a_smaller_softmax(framework: Any):
    users = np.arange(N) % 3
    offsets, items = user_items([0, 0, 0, 1, 1], [3, 8, 3, 9, 49], 3)
    history = History(users, offsets, items)
    assert offsets.tolist() == [0, 2, 4, 4]
    assert items.tolist() == [3, 8, 9, 49]
    got = call(framework, AllItems(), reduction="none", history=history)
    allowed = np.ones((N, V), bool)
    allowed[users == 0, 3] = allowed[users == 0, 8] = allowed[users == 1, 9] = allowed[users == 1, 49] = False
    allowed[np.arange(N), TARGET] = True
    want = np.log(np.where(allowed, np.exp(SCORES), 0).sum(1)) - SCORES[np.arange(N), TARGET]
    np.testing.assert_allclose(got, want, rtol=1e-5)
    every = History(np.zeros(N, int), *user_items(np.zeros(V, int), np.arange(V), 1))
    assert (call(framework, UniformNegatives(10), reduction="none", history=every, seed=1) == 0).all(), (
        "no negative is left"
    )


@both
def test_frequencies(framework: Any):
    array = torch.tensor if framework is ours_torch else jnp.asarray
    q = array(np.full(5, 0.2, np.float32))
    got = framework.update_frequencies(q, array([[3, 3, -100], [0, 1, 3]]), rate=0.5)
    np.testing.assert_allclose(np.asarray(got), [0.2, 0.2, 0.1, 0.4, 0.1], rtol=1e-6)
    same = framework.update_frequencies(q, array([-7, -7]), rate=0.5, ignore_index=-7)
    np.testing.assert_array_equal(np.asarray(same), np.asarray(q))
    for rate in (0, 1.5, "1", True):
        with pytest.raises(ArgumentError, match=r"^rate"):
            framework.update_frequencies(q, array([1]), rate=rate)
    with pytest.raises(ArgumentError, match=r"^frequencies"):
        framework.update_frequencies(array([1, 2]), array([1]), rate=0.5)
    with pytest.raises(ArgumentError, match=r"^target"):
        framework.update_frequencies(q, array([1.0]), rate=0.5)


@both
def test_frequencies_follow_the_targets(framework: Any):
    """After many batches the estimate is the distribution that targets come from."""
    array = torch.tensor if framework is ours_torch else jnp.asarray
    rng = np.random.default_rng(1)
    q = array(np.full(V, 1 / V, np.float32))
    for _ in range(400):
        q = framework.update_frequencies(q, array(rng.choice(V, 256, p=Q)), rate=0.02)
    np.testing.assert_allclose(np.asarray(q).sum(), 1, rtol=1e-4)
    assert np.abs(np.subtract(q, Q)).sum() < 0.12


GOOD = {"negatives": InBatchNegatives(16), "log_q": LOG_Q, "seed": 1}
EMPTY = History(np.zeros(N, int), np.array([0, 0]), np.zeros(0, int))
BAD = [
    ({"log_q": None}, "log_q"),
    ({"negatives": MixedNegatives(UniformNegatives(4), InBatchNegatives()), "log_q": None}, "log_q"),
    ({"negatives": HardNegatives(9, 3)}, "log_q"),
    ({"logq_correction": False}, "log_q"),
    ({"remove_accidental_hits": False}, "remove_accidental_hits"),
    ({"history": (1, 2, 3)}, "history"),
    ({"history": EMPTY._replace(users=np.zeros(3, int))}, "history"),
    ({"history": EMPTY._replace(users=np.ones(N, int))}, "history"),
    ({"history": EMPTY._replace(users=np.ones(N, np.float32))}, "history"),
    ({"history": EMPTY._replace(offsets=np.array([0]))}, "history"),
    ({"history": EMPTY._replace(offsets=np.array([0, 1]))}, "history"),
    ({"history": EMPTY._replace(offsets=np.array([0, 2]), items=np.array([5, 5]))}, "history"),
    ({"history": EMPTY._replace(offsets=np.array([0, 1]), items=np.array([V]))}, "history"),
]


@both
@pytest.mark.parametrize(("changes", "argument"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_bad_calls_name_the_argument(framework: Any, changes: dict[str, Any], argument: str):
    with pytest.raises(ArgumentError) as caught:
        call(framework, **(GOOD | changes))
    assert caught.value.argument == argument
    call(framework, **GOOD)
    call(framework, **GOOD, history=EMPTY)


@both
@pytest.mark.parametrize(
    "negatives",
    [AllItems(), InBatchNegatives(), MixedNegatives(UniformNegatives(4), InBatchNegatives()), HardNegatives(9, 3)],
    ids=str,
)
def test_binary_cross_entropy_says_why_not(framework: Any, negatives: Any):
    with pytest.raises(ArgumentError, match=r"^negatives: expected UniformNegatives, .*: "):
        call(framework, negatives, "sampled_linear_binary_cross_entropy", seed=1)


@pytest.mark.parametrize("group", [16, None])
def test_mapped_rows_meet_the_whole_call_or_their_group(group: int | None):
    """vmap makes one call of all rows: groups are of all of them, and the whole call stays each mapped one's."""
    hidden, target = jnp.asarray(HIDDEN).reshape(2, 16, D), jnp.asarray(TARGET).reshape(2, 16)

    def loss(hidden: Any, target: Any, table: Any) -> Any:
        negatives = InBatchNegatives(group, shuffle_rows=group is None)
        return ours_jax.sampled_linear_cross_entropy(
            hidden, table, target, negatives, log_q=LOG_Q, reduction="none", seed=1
        )

    def total(table: Any, mapped: bool) -> Any:
        if mapped:
            return jax.vmap(loss, (0, 0, None))(hidden, target, table).sum()
        return sum(loss(hidden[i], target[i], table).sum() for i in range(2))

    got, want = (jax.value_and_grad(total)(jnp.asarray(TABLE), mapped) for mapped in (True, False))
    np.testing.assert_allclose(got[0], want[0], rtol=1e-5)
    np.testing.assert_allclose(got[1], want[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "negatives", [InBatchNegatives(16), MixedNegatives(UniformNegatives(20, 16), InBatchNegatives(16))], ids=str
)
def test_module_and_compiled_module(negatives: Any):
    hidden, table, target = map(torch.from_numpy, (HIDDEN, TABLE, TARGET))
    history = History(torch.zeros(N, dtype=torch.long), torch.tensor([0, 2]), torch.tensor([1, 4]))
    keywords = {"log_q": torch.from_numpy(LOG_Q), "history": history}
    modules = [ours_torch.SampledLinearCrossEntropyLoss(negatives, seed=3) for _ in range(2)]
    want = ours_torch.sampled_linear_cross_entropy(hidden, table, target, negatives, seed=3, **keywords)
    torch.testing.assert_close(modules[0](hidden, table, target, **keywords), want)
    compiled = torch.compile(modules[1], fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(hidden, table, target, **keywords), want)
