"""Serin from Python: report the predictions of a model and their outcomes, and read the verdicts.

    from serin_client import Emitter, verdicts

    emitter = Emitter("localhost:9092")
    emitter.prediction(request_id, model="fraud", version="2", arm="canary", outputs={"score": 0.83}, latency_ms=12.4)
    emitter.feedback(request_id, values={"fraud": 1.0})
    emitter.flush()

    for verdict in verdicts("localhost:9092"):
        print(verdict["decision"], verdict["sentence"])

Events go to the public topics `predictions` and `feedback` as CloudEvents 1.0 (binary mode) with a JSON body; any
producer can write the same. Verdicts are Avro; their schema is in `schemas/avro/` of the repository.
"""

from .emit import Emitter
from .read import Verdicts, verdicts

__all__ = ["Emitter", "Verdicts", "verdicts"]
