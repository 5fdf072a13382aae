"""Writes predictions and feedback."""

import json
import time
import uuid
from datetime import datetime, timezone

from confluent_kafka import KafkaException, Producer


class Emitter:
    """A producer of prediction and feedback events.

    `brokers` is a bootstrap list; `prefix` is the cluster's topic prefix for Serin; `source` names this program in the
    events; `config` takes any librdkafka property (TLS, SASL ...).
    """

    def __init__(self, brokers, *, prefix="", source="python", config=None):
        self._producer = Producer(
            {"bootstrap.servers": brokers, "enable.idempotence": True, "partitioner": "murmur2_random", **(config or {})}
        )
        self._prefix = prefix
        self._source = f"/clients/{source}"
        self._failures = []

    def prediction(
        self,
        request_id,
        *,
        model,
        version,
        arm=None,
        rollout=None,
        generation=None,
        status=200,
        error=None,
        latency_ms=None,
        outputs=None,
        classes=None,
        segments=None,
        unit=None,
        completed_at_us=None,
    ):
        """One answer of a model. With the id of a call that Serin's router saw it adds outputs to that call.

        `unit` is who asked (user, session, account; text or number). Name it when your splitter keeps a unit on one
        version and the rollout file has `assignment.sticky`. Serin keeps a hash of it.
        """
        body = {
            "prediction_id": request_id,
            "model": model,
            "version": version,
            "arm": arm,
            "rollout": rollout,
            "generation": generation,
            "status": status,
            "error": error,
            "latency_ms": latency_ms,
            "outputs": outputs or {},
            "classes": classes or {},
            "segments": segments or {},
            "unit": unit,
            "completed_at": completed_at_us if completed_at_us is not None else int(time.time() * 1e6),
        }
        self._send("predictions", "dev.serin.prediction.v1", request_id, {k: v for k, v in body.items() if v is not None})

    def feedback(self, request_id, *, values=None, classes=None, revision=0, observed_at_us=None):
        """What became known about a prediction. A later revision replaces an earlier one."""
        body = {
            "prediction_id": request_id,
            "values": values or {},
            "classes": classes or {},
            "revision": revision,
            "observed_at": observed_at_us if observed_at_us is not None else int(time.time() * 1e6),
        }
        self._send("feedback", "dev.serin.feedback.v1", request_id, body)

    def flush(self, timeout=30.0):
        """Waits until everything is on the log; raises when something could not be written."""
        left = self._producer.flush(timeout)
        if left or self._failures:
            failures, self._failures = self._failures, []
            raise RuntimeError(f"{left} events not sent in {timeout} s; failures: {failures}")

    def _send(self, topic, event_type, key, body):
        headers = {
            "ce_specversion": "1.0",
            "ce_id": str(uuid.uuid4()),
            "ce_source": self._source,
            "ce_type": event_type,
            "ce_time": datetime.now(timezone.utc).isoformat().replace("+00:00", "Z"),
            "content-type": "application/json",
        }
        while True:
            try:
                self._producer.produce(
                    self._prefix + topic,
                    key=key.encode(),
                    value=json.dumps(body).encode(),
                    headers=headers,
                    on_delivery=self._delivered,
                )
                self._producer.poll(0)
                return
            except BufferError:  # the local queue is full: let it drain
                self._producer.poll(0.1)
            except KafkaException as error:
                raise RuntimeError(f"{self._prefix}{topic}: {error}") from error

    def _delivered(self, error, _message):
        if error is not None:
            self._failures.append(str(error))
