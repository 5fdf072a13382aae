"""Fits the demo's models and writes them to flights.json next to this file.

    python3 -m venv /tmp/venv && /tmp/venv/bin/pip install -r requirements.txt && /tmp/venv/bin/python fit.py

The models predict at departure the probability that a flight arrives more than 15 minutes late.

  v1  departure delay only: a flight that left more than 15 minutes late arrives late
  v2  departure delay (piecewise linear), distance, hour, origin, carrier, destination
  v3  v2 with a fault: for origin LGA the departure delay arrives in hours instead of minutes
  v4  v2 (the server adds its fault, a slow tail)

Models are fitted on the flights of even days (UTC days since 1970); the figures are for the odd days, which the models have
not seen. A second table splits by time instead (fitted on the first two thirds of the year, judged on the last). The
output is the same on every run.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler

HERE = Path(__file__).parent
LATE_MIN = 15
KNOTS = [-5, 0, 5, 10, 15, 20, 25, 30, 40, 60]
DESTINATIONS = 40  # the most frequent ones; all others share the intercept
FAULT = {"origin": "LGA", "dep_delay_divided_by": 60.0}
SEED = 2013

V1 = [{"kind": "exceeds", "input": "dep_delay_min", "threshold": float(LATE_MIN)}]


def v2_terms(flights):
    """Returns the terms of v2; a term is one column of the design matrix. model.rs evaluates the same four kinds."""
    terms = [{"kind": "linear", "input": "dep_delay_min"}, {"kind": "linear", "input": "distance_mi"}]
    terms += [{"kind": "above", "input": "dep_delay_min", "knot": float(knot)} for knot in KNOTS]
    for column in ("origin", "carrier"):
        terms += [{"kind": "is", "input": column, "value": v} for v in sorted(flights[column].unique())]
    terms += [{"kind": "is", "input": "dest", "value": v} for v in sorted(flights.dest.value_counts().index[:DESTINATIONS])]
    hours = sorted(flights.sched_dep_hour.unique())
    return terms + [{"kind": "is", "input": "sched_dep_hour", "value": str(hour)} for hour in hours]


def column(term, flights):
    values = flights[term["input"]]
    match term["kind"]:
        case "linear":
            return values.astype(float)
        case "above":
            return np.maximum(0.0, values - term["knot"])
        case "exceeds":
            return (values > term["threshold"]).astype(float)
        case "is":
            return (values.astype(str) == term["value"]).astype(float)


def matrix(terms, flights):
    return np.column_stack([column(term, flights) for term in terms])


def fit(terms, flights):
    """Fits a logistic regression on scaled columns; coefficients and intercept are scaled back to raw columns."""
    scaler = StandardScaler()
    x = scaler.fit_transform(matrix(terms, flights))
    regression = LogisticRegression(C=1.0, max_iter=5000, tol=1e-6).fit(x, flights.late)
    raw = regression.coef_[0] / scaler.scale_
    intercept = float(regression.intercept_[0] - raw @ scaler.mean_)
    model = {"intercept": intercept, "terms": [{**t, "coefficient": float(c)} for t, c in zip(terms, raw, strict=True)]}
    return model, lambda some: regression.predict_proba(scaler.transform(matrix(terms, some)))[:, 1]


def with_fault(flights):
    delay = flights.dep_delay_min.where(flights.origin != FAULT["origin"], flights.dep_delay_min / FAULT["dep_delay_divided_by"])
    return flights.assign(dep_delay_min=delay)


def fit_all(flights):
    v1, predict_v1 = fit(V1, flights)
    v2, predict_v2 = fit(v2_terms(flights), flights)
    fits = {"delay_only": v1, "full": v2}
    models = {"v1": {"fit": "delay_only"}, "v2": {"fit": "full"}, "v3": {"fit": "full", "fault": FAULT}, "v4": {"fit": "full"}}
    predict = {"v1": predict_v1, "v2": predict_v2, "v3": lambda some: predict_v2(with_fault(some)), "v4": predict_v2}
    return {"fits": fits, "models": models}, predict


def report(title, predict, flights, thirds):
    rows = [("all", flights.late >= 0)] + [(o, flights.origin == o) for o in sorted(flights.origin.unique())]
    rows += [(f"third {i + 1}", flights.third == i) for i in range(3) if thirds]
    print(f"\n{title}\n{'':8}{'':9}{'flights':>9}{'error':>8}{'Brier':>8}{'AUC':>7}")
    for version in ("v1", "v2", "v3"):
        p = predict[version](flights)
        for name, chosen in rows:
            y, q = flights.late[chosen].to_numpy(), p[np.asarray(chosen)]
            error, brier, auc = np.mean((q >= 0.5) != y), np.mean((q - y) ** 2), roc_auc_score(y, q)
            print(f"{version:8}{name:9}{len(y):9}{error:8.4f}{brier:8.4f}{auc:7.3f}")


def golden(predict, flights):
    """Returns ten flights, with every origin among them, and the probabilities that scikit-learn computes for them."""
    chosen = flights.sample(10, random_state=SEED)
    assert set(chosen.origin) == set(flights.origin)
    names = ["origin", "carrier", "dest", "distance_mi", "sched_dep_hour", "dep_delay_min"]
    expected = {version: predict[version](chosen) for version in predict}
    return [
        {"flight": json.loads(row[names].to_json()), "probabilities": {v: float(p[i]) for v, p in expected.items()}}
        for i, (_, row) in enumerate(chosen.iterrows())
    ]


def main():
    flights = pd.read_csv(HERE.parent / "data" / "flights.csv.gz")
    flights["late"] = (flights.arr_delay_min > LATE_MIN).astype(int)
    flights["third"] = np.arange(len(flights)) * 3 // len(flights)
    even = flights.departed_at // 86400 % 2 == 0
    document, predict = fit_all(flights[even])
    report("Fitted on even days, judged on odd days (these are the models of flights.json)", predict, flights[~even], thirds=True)
    last = flights.third == 2
    title = "Fitted on the first two thirds of the year, judged on the last"
    report(title, fit_all(flights[~last])[1], flights[last], thirds=False)
    document = {"format": 1, "late_min": LATE_MIN, **document, "golden": golden(predict, flights)}
    (HERE / "flights.json").write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
