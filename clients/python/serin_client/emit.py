"""Writes predictions and feedback."""

import json
import math
import numbers
import threading
import time
import uuid
from collections.abc import Mapping
from datetime import datetime, timezone

from confluent_kafka import KafkaException, Producer

ARMS = ("stable", "control", "canary", "shadow", "pinned")
#: The limits of Serin's intake: entries of one map, and bytes of one id, name or text.
MOST = 64
LONGEST = 256


class Emitter:
    """A producer of prediction and feedback events that never blocks its caller.

    `brokers` is a bootstrap list; `prefix` is the cluster's topic prefix for Serin; `source` names this program in the
    events; `config` accepts any librdkafka property (TLS, SASL ...). `predictions` and `feedback` name the topics, for
    teams that have their own topics.

    Events wait in a bounded queue (`queue_events`, and 64 MiB). When it is full because the brokers are unreachable, an event
    is dropped and counted in `dropped`: a lost event never delays the answers of a model server. Events that
    waited in the queue and were not written within librdkafka's `message.timeout.ms` are counted in `failed`.

    The arguments of an event are checked when it is created: `TypeError` and `ValueError` name the argument.
    """

    def __init__(
        self,
        brokers,
        *,
        prefix="",
        source="python",
        predictions="predictions",
        feedback="feedback",
        queue_events=100_000,
        config=None,
    ):
        if not isinstance(brokers, str) or not brokers:
            raise TypeError(f"brokers: expected a string such as 'host:9092', not {brokers!r}")
        if not isinstance(queue_events, int) or queue_events < 1:
            raise ValueError(f"queue_events: expected at least 1, not {queue_events!r}")
        self._producer = Producer(
            {
                "bootstrap.servers": brokers,
                "enable.idempotence": True,
                "partitioner": "murmur2_random",
                "queue.buffering.max.messages": queue_events,
                "queue.buffering.max.kbytes": 65536,
                **(config or {}),
            }
        )
        self._topics = {"predictions": prefix + predictions, "feedback": prefix + feedback}
        self._source = f"/clients/{source}"
        self._lock = threading.Lock()
        self._reported = 0
        self._last_error = None
        #: Events dropped because the queue was full, since this emitter was created.
        self.dropped = 0
        #: Events that waited in the queue and could not be written.
        self.failed = 0

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
        """Reports one answer of a model. With the id of a call that passed through Serin's router, it adds outputs to that call.

        `unit` is the user, session or account that asked (text or number). Set it when your splitter keeps a unit on one
        version and the rollout file has `assignment.sticky`. Serin keeps a hash of it.

        Returns whether the event was queued; `False`: it was dropped.
        """
        body = {
            "prediction_id": _text("request_id", request_id),
            "model": _text("model", model),
            "version": _text("version", version),
            "arm": _arm(arm),
            "rollout": _optional(_text, "rollout", rollout),
            "generation": _optional(_whole, "generation", generation),
            "status": _optional(_status, "status", status),
            "error": _optional(_short, "error", error),
            "latency_ms": _optional(_latency, "latency_ms", latency_ms),
            "outputs": _map("outputs", outputs, _value),
            "classes": _map("classes", classes, _text),
            "segments": _map("segments", segments, _segment),
            "unit": _optional(_unit, "unit", unit),
            "completed_at": _time("completed_at_us", completed_at_us),
        }
        body = {name: value for name, value in body.items() if value is not None}
        return self._send("predictions", "dev.serin.prediction.v1", body)

    def feedback(self, request_id, *, values=None, classes=None, revision=0, observed_at_us=None):
        """Reports the outcome of a prediction. A later revision replaces an earlier one.

        Returns whether the event was queued; `False`: it was dropped.
        """
        body = {
            "prediction_id": _text("request_id", request_id),
            "values": _map("values", values, _value),
            "classes": _map("classes", classes, _text),
            "revision": _whole("revision", revision),
            "observed_at": _time("observed_at_us", observed_at_us),
        }
        count = len(body["values"]) + len(body["classes"])
        if all(value is None for value in body["values"].values()) and not body["classes"]:
            raise ValueError("values: no value or class is given; set values, classes or both")
        if count > MOST:
            raise ValueError(f"values: {count} values and classes; one feedback may carry {MOST}")
        if body["revision"] < 0:
            raise ValueError(f"revision: expected 0 or more, not {body['revision']}")
        return self._send("feedback", "dev.serin.feedback.v1", body)

    def flush(self, timeout=30.0):
        """Waits until all events are on the log; raises when an event since the last call was lost or not sent."""
        left = self._producer.flush(timeout)
        with self._lock:
            lost = self.dropped + self.failed - self._reported
            self._reported += lost
            error, self._last_error = self._last_error, None
        if left or lost:
            cause = f"; the last error: {error}" if error else ""
            raise RuntimeError(f"{left} events not sent in {timeout} s, {lost} lost (dropped or failed){cause}")

    def _send(self, topic, event_type, body):
        headers = {
            "ce_specversion": "1.0",
            "ce_id": str(uuid.uuid4()),
            "ce_source": self._source,
            "ce_type": event_type,
            "ce_time": datetime.now(timezone.utc).isoformat().replace("+00:00", "Z"),
            "content-type": "application/json",
        }
        value = json.dumps(body).encode()
        # Try twice: the first poll may free room by processing delivery reports. Neither poll blocks.
        for _ in range(2):
            try:
                self._producer.produce(
                    self._topics[topic],
                    key=body["prediction_id"].encode(),
                    value=value,
                    headers=headers,
                    on_delivery=self._delivered,
                )
                self._producer.poll(0)
                return True
            except BufferError:
                self._producer.poll(0)
            except KafkaException as error:
                raise RuntimeError(f"{self._topics[topic]}: {error}") from error
        with self._lock:
            self.dropped += 1
        return False

    def _delivered(self, error, _message):
        if error is not None:
            with self._lock:
                self.failed += 1
                self._last_error = str(error)


def _plain(value):
    """Converts numbers of numpy, pandas and torch to Python's own."""
    item = getattr(value, "item", None)
    if callable(item) and not isinstance(value, (Mapping, str, bytes)):
        try:
            return item()
        except (TypeError, ValueError, RuntimeError):
            return value
    return value


def _optional(check, name, value):
    return None if value is None else check(name, value)


def _short(name, value):
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a string, not {value!r}")
    if not value or len(value.encode()) > LONGEST:
        raise ValueError(f"{name}: expected 1 to {LONGEST} bytes, not {len(value.encode())}")
    return value


def _text(name, value):
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, (str, int, uuid.UUID)):
        raise TypeError(f"{name}: expected a string, not {value!r}")
    return _short(name, str(value))


def _segment(name, value):
    value = _plain(value)
    if isinstance(value, bool):
        return str(value).lower()
    return _short(name, str(value) if isinstance(value, numbers.Real) else value)


def _unit(name, value):
    """Returns the unit as a string. A whole number is the same unit in every notation: 7, 7.0, "7"."""
    value = _plain(value)
    if isinstance(value, float) and math.isfinite(value):
        return _short(name, str(int(value)) if value.is_integer() and abs(value) < 1e15 else str(value))
    return _text(name, value)


def _number(name, value):
    value = _plain(value)
    try:
        if isinstance(value, bool):
            return value
        if isinstance(value, int):
            # Python's integers are unbounded, but readers of JSON have limits.
            return value if abs(value) < 1 << 63 else float(value)
        if isinstance(value, (str, bytes)) or value is None:
            raise TypeError
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise TypeError(f"{name}: expected a number, not {value!r}") from None


def _whole(name, value):
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name}: expected a whole number, not {value!r}")
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"{name}: {value} does not fit into 64 bits")
    return int(value)


def _value(name, value):
    value = _plain(value)
    if value is None or isinstance(value, str):
        return value if value is None else _short(name, value)
    return _number(name, value)


def _latency(name, value):
    value = _number(name, value)
    if not (math.isfinite(value) and 0 <= value <= 1e9):
        raise ValueError(f"{name}: expected milliseconds from 0 to 1e9, not {value!r}")
    return value


def _status(name, value):
    value = _whole(name, value)
    if not 0 <= value <= 999:
        raise ValueError(f"{name}: expected 0 to 999, not {value}")
    return value


def _arm(value):
    if value is not None and value not in ARMS:
        raise ValueError(f"arm: expected one of {', '.join(ARMS)}, not {value!r}")
    return value


def _map(name, value, check):
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}: expected a dict, not {value!r}")
    if len(value) > MOST:
        raise ValueError(f"{name}: has {len(value)} entries; at most {MOST} are accepted")
    return {_short(f"{name}: a name", key): check(f"{name}[{key!r}]", inner) for key, inner in value.items()}


def _time(name, value):
    """Checks microseconds since 1970. A time in another unit would be before 1973 or after 5138."""
    if value is None:
        return int(time.time() * 1e6)
    value = _whole(name, value)
    if not 10**14 <= value < 10**17:
        units = ((10**8, 10**11, "seconds"), (10**11, 10**14, "milliseconds"), (10**17, 1 << 63, "nanoseconds"))
        looks = next((f"; it looks like {unit}" for low, high, unit in units if low <= value < high), "")
        raise ValueError(f"{name}: {value} is not in microseconds since 1970{looks}")
    return value
