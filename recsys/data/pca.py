"""Principal component analysis (Pearson, 1901)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def principal_components(x: npt.NDArray[np.floating], k: int) -> npt.NDArray[np.float64]:
    """Returns the coordinates (n, min(k, d)) float64 of the rows of ``x`` (n, d) along its axes of most variance.

    ``(x - mean) axes``, where the axes are the orthonormal eigenvectors of the covariance ``(x - mean)^T (x - mean) /
    n`` with the largest eigenvalues. An axis's entry of largest size is positive, so that the same data give the same
    signs. Coordinates along axes without variance, beyond rounding, are exactly 0.
    """
    centred = x.astype(np.float64) - x.mean(axis=0, dtype=np.float64)
    variances, axes = np.linalg.eigh(centred.T @ centred / len(x))
    kept = np.argsort(-variances, kind="stable")[:k]
    variances, axes = variances[kept], axes[:, kept]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    noise = max(variances.max(initial=0.0), 0.0) * x.shape[1] * np.finfo(np.float64).eps
    return (centred @ axes) * (variances > noise)
