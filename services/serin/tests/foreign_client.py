"""A foreign client in Python that only uses Kafka and `serin_client`.

A foreign router splits its traffic. This script reports every answer and its label to Serin, and reads the verdicts. It prints the
verdict that covers all answers as JSON. Run by `services/serin/tests/python.rs`.
"""

import json
import sys
import time
import urllib.request
import uuid

from serin_client import Emitter, verdicts

PER_ARM = 200
BAD = {"canary": 30, "control": 20}


def phase(api):
    with urllib.request.urlopen(f"{api}/v1/rollouts/reviews") as answer:
        return json.load(answer)["phase"]


def bad(estimate):
    return round(estimate["n"] * (estimate["value"] or 0))


def predict(emitter, arm, version, truth):
    request = str(uuid.uuid4())
    emitter.prediction(
        request, model="reviews", version=version, arm=arm, outputs={"score": 0.9}, latency_ms=12.5, segments={"lang": "de"}
    )
    emitter.feedback(request, values={"spam": truth})


def main(brokers, prefix, api):
    emitter = Emitter(brokers, prefix=prefix, source="test")
    deadline = time.monotonic() + 60
    while phase(api) == "warming":
        assert time.monotonic() < deadline, "still warming up"
        for _ in range(20):
            predict(emitter, "stable", "1", 1)
        emitter.flush()
        time.sleep(0.1)
    assert phase(api) == "baking", phase(api)
    for number in range(PER_ARM):
        for arm, version in [("canary", "2"), ("control", "1")]:
            predict(emitter, arm, version, 0 if number < BAD[arm] else 1)
    emitter.flush()

    deadline = time.monotonic() + 60
    for verdict in verdicts(brokers, prefix=prefix, timeout=60):
        judged = {(m["metric"], m["segment"]["value"]): m for m in verdict["metrics"]}
        wrong = judged.get(("wrong_rate", ""))
        # With external traffic, all other answers are compared with the canary's, including the last ones of the warm-up.
        if wrong and wrong["canary"]["n"] == PER_ARM and bad(wrong["control"]) == BAD["control"]:
            json.dump(verdict, sys.stdout)
            return
        if time.monotonic() > deadline:
            break
    raise SystemExit("no verdict covers all answers")


main(*sys.argv[1:])
