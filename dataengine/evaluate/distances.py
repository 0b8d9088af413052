"""Distances between two sets of embeddings: Frechet, and maximum mean discrepancy with two kernels."""

from __future__ import annotations

import numpy as np

CMMD_SIGMA, CMMD_SCALE = 10.0, 1000.0


def frechet(a: np.ndarray, b: np.ndarray) -> float:
    """Frechet distance between Gaussians fitted to embeddings (N, E) and (M, E) (FID: Heusel et al. 2017, equation 6).

    The trace of sqrt(C_a C_b) is the sum of the singular values of A B^T, where A^T A = C_a. This is exact also for
    fewer images than dimensions, where a matrix square root would be of a singular matrix.

    >>> a = np.array([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    >>> round(frechet(a, a + [3.0, 4.0]), 6)
    25.0
    """
    roots = []
    for x in (a, b):
        centred = (x - x.mean(0)) / np.sqrt(len(x) - 1)
        roots.append(np.linalg.qr(centred, mode="r") if len(x) > x.shape[1] else centred)
    nuclear = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    spreads = sum((root**2).sum() for root in roots)
    return float(max(((a.mean(0) - b.mean(0)) ** 2).sum() + spreads - 2 * nuclear, 0.0))


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy of embeddings (N, E) and (N, E), kernel (x.y / E + 1)^3 (KID: Binkowski
    et al. 2018, equation 4). Can be slightly negative."""
    import torch
    from torchmetrics.image.kid import poly_mmd

    return float(poly_mmd(torch.from_numpy(a), torch.from_numpy(b)))


def gaussian_discrepancy(a: np.ndarray, b: np.ndarray) -> float:
    """1000 times the squared maximum mean discrepancy of unit-normalised embeddings (N, E) and (M, E), Gaussian kernel
    of sigma 10, minimum-variance estimator (CMMD: Jayasumana et al. 2024, equation 4). At least 0.

    >>> gaussian_discrepancy(np.eye(2), 3 * np.eye(2))
    0.0
    """
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))

    def mean_kernel(x: np.ndarray, y: np.ndarray) -> float:
        return np.exp(-(2 - 2 * x @ y.T) / (2 * CMMD_SIGMA**2)).mean()

    return float(CMMD_SCALE * (mean_kernel(a, a) + mean_kernel(b, b) - 2 * mean_kernel(a, b)))
