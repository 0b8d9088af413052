"""How often to draw around each class so that rare ones reach a stated share of all objects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from dataengine.errors import UserError

_MARGIN = 1.1  # aim a little higher: the mean counts are estimates


@dataclass(frozen=True)
class Plan:
    """probabilities: (C + 1,) of drawing around class 0 .. C-1, and, last, of drawing without regard to class.

    keep: probability with which an object of another class stays in a layout drawn around a class.
    """

    probabilities: np.ndarray
    keep: float

    def anchor(self, rng: np.random.Generator) -> int | None:
        """Class to draw around, None for any."""
        k = int(rng.choice(len(self.probabilities), p=self.probabilities))
        return k if k < len(self.probabilities) - 1 else None


def parse_balance(text: str | None) -> float | dict[str, float] | None:
    """ "0.2" -> 0.2, a share for every class; "car=0.1,ship=0.3" -> a share for each of these. Raises UserError."""
    if text is None:
        return None
    try:
        if "=" not in text:
            return float(text)
        return {name.strip(): float(share) for name, share in (part.split("=") for part in text.split(","))}
    except ValueError:
        raise UserError(f"--balance {text!r} is neither a share nor class=share,class=share; try 0.2") from None


def shares_of(balance: float | Mapping[str, float] | None, classes: tuple[str, ...]) -> np.ndarray:
    """Stated minimum share of each class, (C,). A single number is meant for every class.

    Raises `UserError` for a share outside [0, 1), an unknown class, or shares that add up to more than 1.
    """
    if balance is None:
        return np.zeros(len(classes))
    stated = dict(balance) if isinstance(balance, Mapping) else dict.fromkeys(classes, float(balance))
    unknown = [name for name in stated if name not in classes]
    if unknown:
        raise UserError(f"balance names the class {unknown[0]!r}, which is not one of {', '.join(classes)}")
    for name, share in stated.items():
        if not 0 <= share < 1:
            raise UserError(f"balance for {name!r} is {share:g}; give a share from 0 to below 1")
    if sum(stated.values()) > 1:
        raise UserError(f"balance adds up to {sum(stated.values()):g} over {len(stated)} classes; 1 is the most")
    return np.array([stated.get(name, 0.0) for name in classes])


def plan(shares: np.ndarray, draw_counts: Callable[[np.random.Generator, int | None], np.ndarray], draws: int) -> Plan:
    """The plan that meets `shares` with the fewest layouts drawn around a class, and removes objects only if it must.

    draw_counts: (rng, anchor) -> number of objects of each class (C,) in one layout drawn around `anchor`.
    draws: layouts to estimate the mean counts around each class from; three times as many are drawn around none.

    The expected share of a class is linear in the probabilities once multiplied out, so this is a linear program;
    where it has no solution, objects of other classes are thinned in the layouts drawn around a class.
    """
    classes = len(shares)
    if not shares.any():
        return Plan(np.eye(classes + 1)[-1], 1.0)
    rng = np.random.default_rng(0)  # the plan is a property of the sampler, not of a run
    wanted = np.flatnonzero(shares)
    means = np.zeros((classes + 1, classes))  # mean count of each class (column) in layouts drawn around a class (row)
    for k in (*wanted, classes):
        counts = [draw_counts(rng, int(k) if k < classes else None) for _ in range(draws * (3 if k == classes else 1))]
        means[k] = np.mean(counts, axis=0)
    missing = [int(k) for k in wanted if means[k, k] == 0]
    assert not missing, f"no layout holds classes {missing}"
    aim = shares * min(_MARGIN, 0.999 / shares.sum())
    for keep in (1.0, 0.7, 0.5, 0.35, 0.2, 0.1, 0.0):
        thinned = means.copy()
        thinned[:classes] *= np.where(np.eye(classes, dtype=bool), 1.0, keep)
        probabilities = _solve(thinned, aim, wanted)
        if probabilities is not None:
            return Plan(probabilities, keep)
    raise AssertionError("shares of at most 1 can always be met by layouts of one class each")


def _solve(means: np.ndarray, aim: np.ndarray, wanted: np.ndarray) -> np.ndarray | None:
    from scipy.optimize import linprog

    anchored = np.ones(len(means))
    anchored[-1] = 0
    allowed = [(0, 1) if k in wanted or k == len(means) - 1 else (0, 0) for k in range(len(means))]
    surplus = means - aim[None] * means.sum(1, keepdims=True)  # (C + 1, C), linear in the probabilities
    result = linprog(
        anchored, A_ub=-surplus.T[wanted], b_ub=np.zeros(len(wanted)), A_eq=np.ones((1, len(means))), b_eq=[1],
        bounds=allowed,
    )  # fmt: skip
    if not result.success:
        return None
    probabilities = np.clip(result.x, 0, None)
    return probabilities / probabilities.sum()
