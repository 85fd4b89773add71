"""The one way by which gradients of the item table and its bias leave the kernels."""

import triton
import triton.language as tl


@triton.jit
def store_item_grad(
    p_item_grad, p_bias_grad, grad, bias_grad, items, m_items, scale, own_d, dim: tl.constexpr,
    HAS_KNOWN: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Write ``scale`` times the sums (B, BLOCK_D) of w e, and those of w (B,) for the bias, to ``items`` (B,) where
    ``m_items``; HAS_KNOWN: beside what is there. A gradient that nobody wants has no pointer. The first chunk of the
    width writes the bias's."""
    if p_item_grad is not None:
        d = own_d + tl.arange(0, BLOCK_D)
        mask = m_items[:, None] & (d < dim)[None, :]
        p_rows = p_item_grad + items.to(tl.int64)[:, None] * dim + d[None, :]
        total = grad * scale
        if HAS_KNOWN:
            total += tl.load(p_rows, mask=mask, other=0.0).to(tl.float32)
        tl.store(p_rows, total.to(p_item_grad.dtype.element_ty), mask=mask)
    if p_bias_grad is not None:
        m_bias = m_items & (own_d + items * 0 == 0)
        if HAS_KNOWN:
            bias_grad += tl.load(p_bias_grad + items, mask=m_bias, other=0.0).to(tl.float32)
        tl.store(p_bias_grad + items, bias_grad.to(p_bias_grad.dtype.element_ty), mask=m_bias)
