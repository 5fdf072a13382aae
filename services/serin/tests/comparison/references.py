"""Reference figures of scipy and statsmodels for the pairs that `serin compare` judged. Reads cases as JSON, writes one list of figures per case."""

import json
import sys

import numpy as np
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.proportion import proportion_confint


def likeliest(n, b, c, delta):
    """Maximum likelihood estimate of the share of pairs that only A gets wrong, if B's share is higher by delta."""
    low, high = max(0.0, -delta), (1.0 - delta) / 2.0

    def minus_log(q):
        shares = np.array([q + delta, q, 1.0 - 2.0 * q - delta])
        counts = np.array([b, c, n - b - c])
        with np.errstate(divide="ignore", invalid="ignore"):
            return -np.sum(np.where(counts > 0, counts * np.log(np.maximum(shares, 1e-300)), 0.0))

    return optimize.minimize_scalar(minus_log, bounds=(low, high), method="bounded", options={"xatol": 1e-12}).x


def score(n, b, c, delta):
    """Tango's statistic, with its variance at the maximum likelihood estimate."""
    q = likeliest(n, b, c, delta)
    variance = (2.0 * q + delta - delta * delta) / n
    distance = (b - c) / n - delta
    return 0.0 if distance == 0.0 else distance / np.sqrt(max(variance, 1e-300))


def exact(n, b, c, delta):
    """P(score as low or lower) over all tables, at the worst share that the counts do not exclude."""
    excluded = 1e-4
    seen = score(n, b, c, delta)
    low = stats.beta.ppf(excluded / 2, c, n - c + 1) if c else 0.0
    high = stats.beta.ppf(1 - excluded / 2, c + 1, n - c) if c < n else 1.0
    least, most = max(0.0, -delta), (1.0 - delta) / 2.0
    tables = [(x, y) for y in range(n + 1) for x in range(n + 1 - y) if score(n, x, y, delta) <= seen + 1e-6]
    x, y = np.array(tables).T
    worst = 0.0
    for q in np.linspace(np.clip(low, least, most), np.clip(high, least, most), 65):
        shares = np.clip([q + delta, q, 1.0 - 2.0 * q - delta], 0.0, 1.0)
        worst = max(worst, stats.multinomial.pmf(np.stack([x, y, n - x - y], 1), n, shares / shares.sum()).sum())
    return min(1.0, worst + excluded)


def error_rate(case):
    n, b, c, margin, alpha = (case[name] for name in ("n", "only_b", "only_a", "margin", "alpha"))
    if margin == 0.0:
        beyond = stats.binomtest(b, b + c, alternative="greater").pvalue if b + c else 1.0
        within = stats.binomtest(c, b + c, alternative="greater").pvalue if b + c else 1.0
        if b + c:
            two_sided = mcnemar([[n - b - c, c], [b, 0]], exact=True).pvalue
            assert abs(two_sided - min(1.0, 2 * min(beyond, within))) < 1e-9
    elif b + c < 30 and n * margin < 60:
        # This enumerates all tables of counts, so it is not used for thousands of pairs.
        beyond, within = (exact(n, c, b, -margin), exact(n, b, c, margin)) if n <= 50 else (None, None)
    else:
        beyond, within = stats.norm.sf(score(n, b, c, margin)), stats.norm.cdf(score(n, b, c, margin))
    low = high = None
    if b + c >= 30:
        end = stats.norm.isf(alpha / 2)
        at = (b - c) / n
        low = optimize.brentq(lambda d: score(n, b, c, d) - end, -1 + 1e-9, at - 1e-12)
        high = optimize.brentq(lambda d: score(n, b, c, d) + end, at + 1e-12, 1 - 1e-9)
    return [beyond, within, low, high]


def differs(case):
    n, k, limit, alpha = (case[name] for name in ("n", "differ", "limit", "alpha"))
    if min(k, n - k) < 30:
        beyond = stats.binomtest(k, n, limit, alternative="greater").pvalue
        within = stats.binomtest(k, n, limit, alternative="less").pvalue
        method = "beta"
    else:
        z = (k / n - limit) / np.sqrt(limit * (1 - limit) / n)
        beyond, within, method = stats.norm.sf(z), stats.norm.cdf(z), "wilson"
    low, high = proportion_confint(k, n, alpha=alpha, method=method)
    return [beyond, within, low, high]


def mean(case):
    differences, margin, alpha = np.array(case["differences"]), case["margin"], case["alpha"]
    beyond = stats.ttest_1samp(differences, margin, alternative="greater").pvalue
    within = stats.ttest_1samp(differences, margin, alternative="less").pvalue
    if case["both_ways"]:
        below = stats.ttest_1samp(differences, -margin, alternative="less").pvalue
        beyond, within = min(1.0, 2 * min(beyond, below)), max(within, 1.0 - below)
    low, high = stats.ttest_1samp(differences, 0.0).confidence_interval(1 - alpha)
    return [beyond, within, low, high]


kinds = {"error rate": error_rate, "differs": differs, "mean": mean}
print(json.dumps([[None if x is None else float(x) for x in kinds[case["kind"]](case)] for case in json.load(sys.stdin)]))
