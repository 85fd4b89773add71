"""Device functions shared by the loss kernels: scores, masks, and the row's loss from its partition sum."""

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
LOWEST_PEAK = tl.constexpr(-3.0e38)  # below every score, and finite: -inf - -inf would be NaN
# of a draw that counts: times LOG2E it is minus infinity again, and weighs nothing
LOWEST_SCORE = tl.constexpr(-3.0e38)


@triton.jit
def exp(x):
    return tl.exp2(x * LOG2E)


@triton.jit
def exp_from(s, peak):
    """exp(s) / 2^peak with one rounding of the exponent: any ``peak`` near s / ln 2 serves, so it need not be exact."""
    return tl.exp2(tl.fma(s, LOG2E, -peak))


@triton.jit
def one_minus_exp_minus(x):
    """1 - exp(-x) for x >= 0, accurate for small x too."""
    series = x * (1.0 - x * (0.5 - x * (1.0 / 6.0 - x * (1.0 / 24.0))))
    return tl.where(x < 0.03, series, 1.0 - exp(-x))


@triton.jit
def cap(x, softcap, HAS_SOFTCAP: tl.constexpr):
    """(s, h): s = softcap tanh(x / softcap) and its derivative h = 1 - tanh^2, or (x, 1).

    With g = exp(-2 |x| / softcap): tanh = (1 - g) / (1 + g), by its series near 0 where that would cancel, and h = 4 g
    / (1 + g)^2, which stays accurate where 1 - tanh^2 would cancel.
    """
    if HAS_SOFTCAP:
        y = x / softcap
        square = y * y
        series = y * (1.0 - square * (1.0 / 3.0 - square * (2.0 / 15.0 - square * (17.0 / 315.0))))
        g = exp(-2.0 * tl.abs(y))
        far = (1.0 - g) / (1.0 + g)
        s = softcap * tl.where(tl.abs(y) < 0.1, series, tl.where(y < 0, -far, far))
        h = 4.0 * g / ((1.0 + g) * (1.0 + g))
    else:
        s = x
        h = tl.zeros_like(x) + 1.0
    return s, h


@triton.jit
def log1p(e):
    """log(1 + e) on [0, 1] by e times a polynomial through its Chebyshev nodes: 1.2e-7 off at most, relatively, and no
    logarithm."""
    ratio = ((-0.0031760570 * e + 0.019542528) * e - 0.056373615) * e + 0.10543624
    ratio = (((ratio * e - 0.15269667) * e + 0.19663274) * e - 0.24951616) * e + 0.33329710
    return ((ratio * e - 0.49999893) * e + 1.0) * e


@triton.jit
def softplus(x):
    """log(1 + exp(x)); NaN stays NaN."""
    y = tl.maximum(x, 0.0) + log1p(exp(-tl.abs(x)))
    return tl.where(x != x, x, y)


@triton.jit
def sigmoid_softplus(s):
    """(1 / (1 + exp(-s)), log(1 + exp(s))), both with small relative errors; zeros where ``s`` is minus infinity."""
    e = exp(-tl.abs(s))
    excess = log1p(e)
    share = exp(-excess)  # 1 / (1 + e)
    return tl.where(s < 0, e * share, share), tl.maximum(s, 0.0) + excess


@triton.jit
def sigmoid(s):
    """1 / (1 + exp(-s)); 0 where the exponential overflows."""
    return 1.0 / (1.0 + exp(-s))


@triton.jit
def add_product(accumulator, a, b, PRECISION: tl.constexpr):
    """accumulator + a b for fp32 ``a`` (B, M) and ``b`` (M, D) of any dtype, as ``b``'s matrix product.

    fp16 would lose probabilities times 1 / N below its range: each row of ``a`` is brought near 1 by a power of two
    before the cast. Rows stay apart, so that one of small numbers, or of none that is ever stored, is nobody's scale.
    """
    if b.dtype == tl.float16:
        exponent = tl.ceil(tl.log2(tl.maximum(tl.max(tl.abs(a), 1), 1e-30)))
        product = tl.dot((a * tl.exp2(-exponent)[:, None]).to(tl.float16), b)
        return tl.fma(product, tl.exp2(exponent)[:, None], accumulator)
    return tl.dot(a.to(b.dtype), b, accumulator, input_precision=PRECISION)


@triton.jit
def finish_rows(peak, l, kept, z_positive, mass):
    """(loss, lse, peak, shift) of rows from a reference ``peak``, the sum l of exp(s_j) / 2^peak and the number of kept
    draws.

    Negatives' z is s + log(mass / kept). With gap = log(sum of the negatives' exp(z)) - z_0: loss = softplus(gap), lse
    = z_0 + loss, or where the negatives are the larger ones theirs + softplus(-gap), and a negative's probability is
    exp(s_j) / 2^peak exp(-shift) with shift = log(l) + softplus(-gap). No difference of large numbers is ever rounded:
    neither a confident positive, nor one far below its negatives, nor logits of 1e4 cost accuracy. Where no draw is
    kept, or none weighs anything, the loss is 0; a positive of +inf makes it NaN, as it does F.cross_entropy's.
    """
    weighs = kept > 0
    # one item and hits kept: log(0 / m) is minus infinity, so that the draw weighs nothing
    correction = tl.log(tl.where(weighs, mass / tl.where(weighs, kept, 1.0), 1.0))
    log_l = tl.log(tl.where(weighs, l, 1.0))
    weighs = weighs & (log_l != float("-inf"))
    log_l = tl.where(weighs, log_l, 0.0)
    peak = tl.where(weighs, peak, 0.0)
    z_positive = tl.where(z_positive == float("inf"), float("nan"), z_positive)
    gap = tl.where(weighs, -tl.fma(z_positive, LOG2E, -peak) * LN2 + (log_l + correction), float("-inf"))
    gap = tl.where(z_positive != z_positive, z_positive, gap)
    loss, excess = softplus(gap), softplus(-gap)
    of_negatives = peak * LN2 + (log_l + correction)
    lse = tl.where(gap > 0, of_negatives + excess, z_positive + loss)
    return loss, lse, peak, log_l + excess


@triton.jit
def finish_binary_rows(l, kept, z_positive, positive_weight):
    """(loss, lse, peak, shift) of rows of binary cross-entropy from l, the sum of log(1 + exp(s_j)) over the kept
    draws.

    The loss is a mean over the positive and the kept draws. In place of the softmax's: lse and peak are the positive's
    score, shift is 1 / (1 + m), the factor of every term's gradient.
    """
    share = 1.0 / (kept + 1.0)
    loss = (positive_weight * softplus(-z_positive) + l) * share
    return loss, z_positive, z_positive, share
