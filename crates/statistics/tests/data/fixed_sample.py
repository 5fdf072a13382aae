"""Writes fixed_sample_cases.json: the results of the usual fixed-sample test, computed with scipy. Run: python3 fixed_sample.py (scipy 1.17)."""

import json
import pathlib

import numpy as np
from scipy import stats

ALPHA = 0.05


def judge(metric):
    sign = 1.0 if metric["direction"] == "lower_is_better" else -1.0
    x, y = np.array(metric["canary"]), np.array(metric["control"])
    margin = max(metric.get("absolute", 0.0), metric.get("relative", 0.0) * abs(y.mean()))
    shifted = x - sign * margin
    smaller = stats.mannwhitneyu(shifted, y, alternative="less", method="asymptotic")
    larger = stats.mannwhitneyu(shifted, y, alternative="greater", method="asymptotic")
    within, beyond = (smaller.pvalue, larger.pvalue) if sign > 0 else (larger.pvalue, smaller.pvalue)
    pooled = np.sqrt(((len(x) - 1) * x.var(ddof=1) + (len(y) - 1) * y.var(ddof=1)) / (len(x) + len(y) - 2))
    finding = "fail" if beyond <= ALPHA else "pass" if within <= ALPHA else "undecided"
    return {
        "margin": margin, "u": larger.statistic, "p_within": within, "p_beyond": beyond,
        "cohen_d": sign * (x.mean() - y.mean()) / pooled, "finding": finding,
    }


def case(name, *metrics):
    reports = [judge(metric) for metric in metrics]
    worth = {"pass": 1.0, "undecided": 0.5, "fail": 0.0}
    weights = [metric["weight"] for metric in metrics]
    score = 100 * sum(w * worth[r["finding"]] for w, r in zip(weights, reports)) / sum(weights)
    decision = "promote" if score >= 95 else "rollback" if score <= 60 else "hold"
    return {"name": name, "alpha": ALPHA, "metrics": list(metrics),
            "expected": {"metrics": reports, "score": score, "decision": decision}}


def metric(control, canary, direction="lower_is_better", weight=1.0, **margin):
    values = {"control": [float(v) for v in control], "canary": [float(v) for v in canary]}
    return {"direction": direction, "weight": weight, **margin, **values}


def main():
    random = np.random.default_rng(20261123)
    latency = lambda n, factor=1.0: np.round(random.lognormal(3, 0.5, n) * factor, 2)
    scores = lambda n, shift=0.0: np.round(np.clip(random.normal(0.8 + shift, 0.1, n), 0, 1), 3)
    cases = [
        case("same latency, relative margin", metric(latency(150), latency(120), relative=0.25)),
        case("latency doubled", metric(latency(80), latency(60, 2.0), relative=0.2)),
        case("too few to know", metric(latency(8), latency(7), absolute=1.0)),
        case("no margin", metric(latency(50), latency(50, 0.8))),
        case("confidence as good", metric(scores(200), scores(150), "higher_is_better", absolute=0.05)),
        case("confidence fell", metric(scores(200), scores(150, -0.2), "higher_is_better", absolute=0.05)),
        case("whole numbers with many ties", metric(random.poisson(3, 90), random.poisson(3, 70), absolute=0.5)),
        case("negative values, both margins",
             metric(-latency(60), -latency(60), "higher_is_better", absolute=1.0, relative=0.2)),
        case("three metrics by weight",
             metric(latency(150), latency(120), relative=0.25, weight=6.0),
             metric(scores(200), scores(150), "higher_is_better", absolute=0.05, weight=3.0),
             metric(latency(8), latency(7), absolute=0.5, weight=1.0)),
        case("one broken metric in three",
             metric(latency(150), latency(120), relative=0.25),
             metric(scores(200), scores(150), "higher_is_better", absolute=0.05),
             metric(latency(80), latency(60, 2.0), relative=0.2)),
        case("half of the weight fails",
             metric(latency(150), latency(120), relative=0.25),
             metric(latency(80), latency(60, 2.0), relative=0.2)),
    ]
    lines = ",\n".join(json.dumps(case) for case in cases)
    text = f'{{"source": "scipy.stats.mannwhitneyu, numpy", "cases": [\n{lines}\n]}}\n'
    pathlib.Path(__file__).with_name("fixed_sample_cases.json").write_text(text)


if __name__ == "__main__":
    main()
