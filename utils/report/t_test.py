"""Student's t-test of two methods over a few seeds: is their difference more than the spread of the seeds?"""

import math
import statistics
from collections.abc import Hashable, Mapping
from dataclasses import dataclass

LEVEL = 0.05  # two-sided
SAME = 1e-20  # variance of fractions that differ by rounding only


@dataclass(frozen=True)
class TTest:
    """A t statistic, which is the mean difference in standard errors, and its degrees of freedom."""

    t: float
    freedom: float

    @property
    def is_significant(self) -> bool:
        """Whether a two-sided test at LEVEL rejects equal means: 12.7 standard errors for two paired seeds, 4.3 for
        three, 2.8 for five.
        """
        from scipy.special import stdtrit  # slow import; the quantile of scipy.stats.t, without scipy.stats

        return bool(abs(self.t) > stdtrit(self.freedom, 1 - LEVEL / 2))


def t_test(ours: Mapping[Hashable, float], theirs: Mapping[Hashable, float]) -> TTest | None:
    """Compare two methods whose values are given by seed.

    With n >= 2 seeds in common, the paired test of the differences d of these seeds: t = mean(d) / (s(d) / sqrt(n)),
    n - 1 degrees of freedom, s the sample standard deviation. Otherwise Welch's test of all values:
    t = (m1 - m2) / sqrt(v1 + v2) with v = s^2 / n, and (v1 + v2)^2 / (v1^2 / (n1 - 1) + v2^2 / (n2 - 1)) degrees of
    freedom.
    None if a method has a single value without a partner, or if the standard error is zero.
    """
    common = ours.keys() & theirs.keys()
    if len(common) > 1:
        gains = [ours[seed] - theirs[seed] for seed in common]
        difference, variance, freedom = (
            statistics.mean(gains),
            statistics.variance(gains) / len(gains),
            len(gains) - 1.0,
        )
    elif len(ours) > 1 and len(theirs) > 1:
        difference = statistics.mean(ours.values()) - statistics.mean(theirs.values())
        parts = [(statistics.variance(values.values()) / len(values), len(values) - 1) for values in (ours, theirs)]
        variance = sum(part for part, _ in parts)
        freedom = variance**2 / sum(part**2 / n for part, n in parts) if variance > SAME else 0.0
    else:
        return None
    return TTest(difference / math.sqrt(variance), freedom) if variance > SAME else None
