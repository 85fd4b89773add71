"""Binary cross-entropy by hand, against the papers' formulas written out, its module; its errors and those of log_q;
both frameworks."""

from __future__ import annotations

from typing import Any

import cce_minus.jax_impl as ours_jax
import cce_minus.torch_impl as ours_torch
import numpy as np
import pytest
import torch
from cce_minus.kernels import AllItems, ArgumentTypeError, ArgumentValueError, UniformNegatives, negative_ids

from tests.oracle import oracle

FRAMEWORKS = (ours_torch, ours_jax)
N, V, D, K = 30, 50, 16, 12
RNG = np.random.default_rng(0)
HIDDEN = RNG.standard_normal((N, D), np.float32)
TABLE = RNG.standard_normal((V, D), np.float32)
TARGET = RNG.integers(0, V, N)


def call(framework: Any, negatives: Any, **keywords: Any) -> np.ndarray:
    arrays = [HIDDEN, TABLE, TARGET]
    if framework is ours_torch:
        arrays = [torch.from_numpy(array) for array in arrays]
        negatives = torch.from_numpy(negatives) if isinstance(negatives, np.ndarray) else negatives
    return np.asarray(framework.sampled_linear_binary_cross_entropy(*arrays, negatives, **keywords))


def test_oracle_by_hand():
    # scores 1 (target) and 3: sigmoids .7310586 and .9525741; two terms, the target's weighs 1/2
    e, c = np.array([[1.0, 2.0]]), np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    got = oracle(e, c, np.array([0]), np.array([[2]]), grad_loss=[1.0], positive_weight=0.5)
    np.testing.assert_allclose(got.loss, [(0.5 * 0.3132617 + 3.0485874) / 2], atol=1e-6)
    np.testing.assert_allclose(got.dbias, [-0.5 * 0.2689414 / 2, 0, 0.9525741 / 2], atol=1e-6)
    np.testing.assert_allclose(got.dhidden, [[0.9525741 / 2 - 0.0672354, 0.9525741 / 2]], atol=1e-6)


@pytest.mark.parametrize("framework", FRAMEWORKS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("t", [0.0, 0.3, 1.0])
def test_gbce_is_the_papers(framework: Any, t: float):
    """-1 / (K + 1) (log(sigmoid(s+)^beta) + sum log(1 - sigmoid(s-))), arXiv 2308.07192, on draws that hold no
    target."""
    sampler = UniformNegatives(K, 16)
    ids = negative_ids(sampler, num_rows=N, num_items=V, seed=5)
    sigmoid = 1 / (1 + np.exp(-np.einsum("nd,nkd->nk", HIDDEN, TABLE[np.c_[TARGET, ids]]).astype(np.float64)))
    alpha = K / (V - 1)
    beta = alpha * (t * (1 - 1 / alpha) + 1 / alpha)
    want = -(np.log(sigmoid[:, 0] ** beta) + np.log(1 - sigmoid[:, 1:]).sum(1)) / (K + 1)
    clean = (ids != TARGET[:, None]).all(1)
    got = call(framework, sampler, gbce_t=t, seed=5, reduction="none")
    assert clean.sum() > N / 2
    np.testing.assert_allclose(got[clean], want[clean], rtol=1e-5)
    kept = call(framework, sampler, gbce_t=t, seed=5, reduction="none", remove_accidental_hits=False)
    np.testing.assert_allclose(kept, want, rtol=1e-5)


@pytest.mark.parametrize("framework", FRAMEWORKS, ids=lambda f: f.__name__)
def test_one_negative_is_half_of_sasrecs_bce(framework: Any):
    ids = RNG.integers(0, V, (N, 1))
    positive, negative = ((HIDDEN * TABLE[index]).sum(1).astype(np.float64) for index in (TARGET, ids[:, 0]))
    sasrec = np.log1p(np.exp(-positive)) + np.log1p(np.exp(negative))
    got = call(framework, ids, reduction="none", remove_accidental_hits=False)
    np.testing.assert_allclose(2 * got, sasrec, rtol=1e-5)


@pytest.mark.parametrize("framework", FRAMEWORKS, ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    ("negatives", "keywords", "argument", "error"),
    [
        (AllItems(), {}, "negatives", ArgumentTypeError),
        (np.zeros(3, np.int64), {"gbce_t": 0.5}, "gbce_t", ArgumentTypeError),
        (UniformNegatives(4), {"gbce_t": 1.5}, "gbce_t", ArgumentValueError),
        (UniformNegatives(4), {"gbce_t": "1"}, "gbce_t", ArgumentTypeError),
        ("uniform", {}, "negatives", ArgumentTypeError),
    ],
)
def test_errors(framework: Any, negatives: Any, keywords: dict[str, Any], argument: str, error: type[Exception]):
    with pytest.raises(error, match=f"^{argument}: expected"):
        call(framework, negatives, seed=1, **keywords)


@pytest.mark.parametrize("framework", FRAMEWORKS, ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    ("negatives", "log_q", "keywords", "error"),
    [
        (np.zeros(3, np.int64), np.zeros(V + 1, np.float32), {}, ArgumentValueError),
        (np.zeros(3, np.int64), np.zeros(V, np.int64), {}, ArgumentTypeError),
        (np.zeros(3, np.int64), np.zeros(V, np.float32), {"logq_correction": False}, ArgumentValueError),
        (UniformNegatives(4), np.zeros(V, np.float32), {"seed": 1}, ArgumentTypeError),
    ],
    ids=["shape", "dtype", "unused", "beside a sampler"],
)
def test_errors_of_log_q(
    framework: Any, negatives: Any, log_q: np.ndarray, keywords: dict[str, Any], error: type[Exception]
):
    arrays: list[Any] = [HIDDEN, TABLE, TARGET, negatives, log_q]
    if framework is ours_torch:
        arrays = [torch.from_numpy(array) if isinstance(array, np.ndarray) else array for array in arrays]
    with pytest.raises(error, match=r"^log_q: expected"):
        framework.sampled_linear_cross_entropy(*arrays[:4], log_q=arrays[4], **keywords)


def test_module_is_the_function_with_its_own_seed():
    module = ours_torch.SampledLinearBinaryCrossEntropyLoss(UniformNegatives(K), gbce_t=0.5, seed=7)
    arrays = [torch.from_numpy(array) for array in (HIDDEN, TABLE, TARGET)]
    first, second = module(*arrays), module(*arrays)
    assert float(first) == float(call(ours_torch, UniformNegatives(K), gbce_t=0.5, seed=7))
    assert float(first) != float(second)
    assert "gbce_t=0.5" in repr(module)
    with pytest.raises(ArgumentTypeError, match="negatives"):
        ours_torch.SampledLinearBinaryCrossEntropyLoss(AllItems())
