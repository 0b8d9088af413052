"""AeroGen's enhancement, for layouts that another sampler draws: scaled, shifted, turned and flipped."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dataengine.data.layout import Layout
from dataengine.layouts.reuse import ReuseSampler, limits_of
from dataengine.layouts.sampler import Sampler


class EnhancedSampler:
    """Draws from another sampler and changes what it drew as `ReuseSampler` changes real layouts.

    real: layouts whose altitudes, ground sample distances and lengths the scale stays within."""

    def __init__(self, sampler: Sampler, real: Sequence[Layout]):
        self.sampler, self.limits = sampler, limits_of(real)
        self.classes, self.kind, self.size = sampler.classes, sampler.kind, sampler.size

    def sample(self, rng: np.random.Generator) -> Layout:
        """One layout with at least one object."""
        drawn = [self.sampler.sample(rng)]
        return ReuseSampler(drawn, self.size, merge=0.0, max_overlap=1.0, limits=self.limits).sample(rng)
