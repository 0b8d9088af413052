"""How often to sample around each class so that rare classes reach a minimum share of all objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from dataengine.errors import UserError

_SHARE_MARGIN = 1.1  # the shares aimed at are this much higher, since the mean counts are estimates
_KEEP_PROBABILITIES = (1.0, 0.7, 0.5, 0.35, 0.2, 0.1, 0.0)  # of objects of other classes, tried in this order
_PLAN_SEED = 0  # the plan is a property of the sampler, not of a run


@dataclass(frozen=True)
class Plan:
    """probabilities: float64 (C + 1,) of sampling around class 0 .. C-1 and, last, around no class.

    keep: probability that an object of another class stays in a layout sampled around a class.
    """

    probabilities: np.ndarray
    keep: float

    def anchor(self, rng: np.random.Generator) -> int | None:
        """Class to sample around, None for no class."""
        k = int(rng.choice(len(self.probabilities), p=self.probabilities))
        return k if k < len(self.probabilities) - 1 else None


def parse_balance(text: str | None) -> float | dict[str, float] | None:
    """A share for every class, or a share for each named class. Raises UserError for other text.

    >>> parse_balance("0.2")
    0.2
    >>> parse_balance("car=0.1, ship=0.3")
    {'car': 0.1, 'ship': 0.3}
    """
    if text is None:
        return None
    try:
        if "=" not in text:
            return float(text)
        return {name.strip(): float(share) for name, share in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise UserError(
            f"--balance {text!r} is neither a share nor class=share,class=share; for example: 0.2"
        ) from None


def shares_of(balance: float | Mapping[str, float] | None, classes: tuple[str, ...]) -> np.ndarray:
    """Minimum share of each class, float64 (C,). A single number is for every class, None for none.

    Raises UserError for a share outside [0, 1), an unknown class, or shares that add up to more than 1.

    >>> shares_of({"ship": 0.3}, ("car", "ship")).tolist()
    [0.0, 0.3]
    """
    if balance is None:
        return np.zeros(len(classes))
    stated = dict(balance) if isinstance(balance, Mapping) else dict.fromkeys(classes, float(balance))
    unknown = [name for name in stated if name not in classes]
    if unknown:
        raise UserError(f"--balance: unknown class {unknown[0]!r}; choose from {', '.join(classes)}.")
    for name, share in stated.items():
        if not 0 <= share < 1:
            raise UserError(f"--balance for {name!r} is {share:g}; give a share from 0 to below 1.")
    if sum(stated.values()) > 1:
        raise UserError(f"--balance adds up to {sum(stated.values()):g} over {len(stated)} classes; the maximum is 1.")
    return np.array([stated.get(name, 0.0) for name in classes])


def plan(
    shares: np.ndarray, sample_counts: Callable[[np.random.Generator, int | None], np.ndarray], n_samples: int
) -> Plan:
    """The plan that reaches `shares` (C,) with the fewest layouts sampled around a class, and with `keep` below 1 only
    if necessary.

    sample_counts: (rng, anchor) -> number of objects of each class (C,) in one layout sampled around `anchor`.
    n_samples: layouts to estimate the mean counts around each class from; three times as many around no class.

    The condition on the expected share of a class is linear in the probabilities, so this is a linear program. Where it
    has no solution, objects of other classes are thinned out in the layouts sampled around a class.
    """
    classes = len(shares)
    if not shares.any():
        return Plan(np.eye(classes + 1)[-1], 1.0)
    rng = np.random.default_rng(_PLAN_SEED)
    balanced = np.flatnonzero(shares)
    means = np.zeros((classes + 1, classes))  # mean count of each class (column) in layouts around a class (row)
    for k in (*balanced, classes):
        anchor, n = (int(k), n_samples) if k < classes else (None, 3 * n_samples)
        means[k] = np.mean([sample_counts(rng, anchor) for _ in range(n)], axis=0)
    missing = [int(k) for k in balanced if means[k, k] == 0]
    assert not missing, f"no layout holds classes {missing}"
    aim = shares * min(_SHARE_MARGIN, 0.999 / shares.sum())
    for keep in _KEEP_PROBABILITIES:
        thinned = means.copy()
        thinned[:classes] *= np.where(np.eye(classes, dtype=bool), 1.0, keep)
        probabilities = _solve(thinned, aim, balanced)
        if probabilities is not None:
            return Plan(probabilities, keep)
    raise AssertionError("shares of at most 1 can always be met by layouts of one class each")


def _solve(means: np.ndarray, aim: np.ndarray, balanced: np.ndarray) -> np.ndarray | None:
    """Probabilities (C + 1,) with which the expected shares reach `aim` (C,), None where there are none."""
    from scipy.optimize import linprog

    anchored = np.ones(len(means))
    anchored[-1] = 0
    allowed = [(0, 1) if k in balanced or k == len(means) - 1 else (0, 0) for k in range(len(means))]
    surplus = means - aim[None] * means.sum(1, keepdims=True)  # (C + 1, C), linear in the probabilities
    result = linprog(
        anchored, A_ub=-surplus.T[balanced], b_ub=np.zeros(len(balanced)), A_eq=np.ones((1, len(means))), b_eq=[1],
        bounds=allowed,
    )  # fmt: skip
    if not result.success:
        return None
    probabilities = np.clip(result.x, 0, None)
    return probabilities / probabilities.sum()
