"""Checks `serin_client.Emitter` without a broker: it never blocks, counts dropped events, and converts and checks its arguments.

Run by `services/serin/tests/python.rs`. If a call blocks, the program ends with a traceback after a minute.
"""

import decimal
import faulthandler
import json
import sys
import time
import uuid

import numpy

from serin_client import Emitter

faulthandler.dump_traceback_later(60, exit=True)


class Recorder:
    """Replaces the producer and records what would be sent."""

    def __init__(self):
        self.sent = []

    def produce(self, topic, key, value, headers, on_delivery):
        self.sent.append((topic, key, json.loads(value)))

    def poll(self, timeout):
        return 0


def bounded():
    # A port without a listener.
    emitter = Emitter("127.0.0.1:1", queue_events=1000, config={"log_level": 0, "message.timeout.ms": 600_000})
    taken = [emitter.prediction(str(n), model="m", version="1", outputs={"p": 0.5}) for n in range(5000)]
    assert sum(taken) == 1000 and emitter.dropped == 4000, (sum(taken), emitter.dropped)
    assert emitter.feedback("1", values={"late": 1}) is False and emitter.dropped == 4001
    try:
        emitter.flush(0.1)
    except RuntimeError as error:
        assert "1000 events not sent" in str(error) and "4001 lost" in str(error), error
    else:
        raise AssertionError("a flush without a broker must raise")
    emitter._producer.purge()


def lost_in_the_queue():
    emitter = Emitter("127.0.0.1:1", config={"log_level": 0, "message.timeout.ms": 100})
    assert emitter.feedback("1", values={"late": 1})
    while not emitter.failed:
        emitter._producer.poll(0.1)
    try:
        emitter.flush(1)
    except RuntimeError as error:
        assert "1 lost" in str(error), error
    else:
        raise AssertionError("a failed delivery must show")


def recorded():
    emitter = Emitter("127.0.0.1:1", config={"log_level": 0})
    emitter._producer = Recorder()
    return emitter, emitter._producer.sent


def coerces():
    emitter, sent = recorded()
    one = uuid.uuid4()
    emitter.prediction(
        one,
        model="m",
        version=numpy.int64(2),
        status=numpy.int32(200),
        latency_ms=numpy.float32(1.5),
        outputs={
            "f32": numpy.float32(0.5),
            "f64": numpy.float64(0.25),
            "i": numpy.int8(3),
            "yes": numpy.bool_(True),
            "array": numpy.array([7.0]),
            "scalar": numpy.array(8),
            "decimal": decimal.Decimal("1.5"),
            "huge": 10**30,
            "nan": float("nan"),
            "none": None,
            "class": numpy.str_("x"),
        },
        classes={"k": "v"},
        segments={"tier": numpy.int64(3), "lang": "de", "new": True},
        unit=numpy.int64(42),
    )
    topic, key, body = sent[0]
    assert (topic, key) == ("predictions", str(one).encode())
    assert (body["version"], body["status"], body["latency_ms"]) == ("2", 200, 1.5), body
    outputs = body["outputs"]
    assert outputs.pop("nan") != outputs.get("nan", 0), body
    assert outputs == {
        "f32": 0.5, "f64": 0.25, "i": 3, "yes": True, "array": 7.0, "scalar": 8, "decimal": 1.5, "huge": 1e30,
        "none": None, "class": "x",
    }, outputs  # fmt: skip
    assert body["unit"] == "42", body
    assert body["segments"] == {"tier": "3", "lang": "de", "new": "true"}, body
    emitter.feedback(numpy.int64(17), values={"late": numpy.float32(1)}, revision=numpy.int64(2))
    assert sent[1][1:] == (b"17", sent[1][2]) and sent[1][2]["values"] == {"late": 1.0} and sent[1][2]["revision"] == 2


def checks():
    emitter, sent = recorded()
    good = {"model": "m", "version": "1"}
    now = int(time.time())
    cases = [
        (TypeError, "request_id", lambda: emitter.prediction(None, **good)),
        (TypeError, "request_id", lambda: emitter.prediction(True, **good)),
        (TypeError, "request_id", lambda: emitter.prediction(1.5, **good)),
        (ValueError, "request_id", lambda: emitter.prediction("", **good)),
        (ValueError, "request_id", lambda: emitter.prediction("x" * 300, **good)),
        (TypeError, "model", lambda: emitter.prediction("a", model=None, version="1")),
        (TypeError, "unit", lambda: emitter.prediction("a", unit=True, **good)),
        (ValueError, "unit", lambda: emitter.prediction("a", unit="", **good)),
        (ValueError, "arm", lambda: emitter.prediction("a", arm="blue", **good)),
        (ValueError, "latency_ms", lambda: emitter.prediction("a", latency_ms=-1, **good)),
        (ValueError, "latency_ms", lambda: emitter.prediction("a", latency_ms=float("nan"), **good)),
        (ValueError, "status", lambda: emitter.prediction("a", status=1000, **good)),
        (TypeError, "outputs['p']", lambda: emitter.prediction("a", outputs={"p": [1]}, **good)),
        (TypeError, "outputs['p']", lambda: emitter.prediction("a", outputs={"p": numpy.array([1, 2])}, **good)),
        (TypeError, "outputs", lambda: emitter.prediction("a", outputs=[1], **good)),
        (TypeError, "outputs: a name", lambda: emitter.prediction("a", outputs={1: 1}, **good)),
        (ValueError, "outputs", lambda: emitter.prediction("a", outputs={str(n): n for n in range(65)}, **good)),
        (ValueError, "seconds", lambda: emitter.prediction("a", completed_at_us=now, **good)),
        (ValueError, "milliseconds", lambda: emitter.prediction("a", completed_at_us=now * 1000, **good)),
        (ValueError, "nanoseconds", lambda: emitter.feedback("a", values={"x": 1}, observed_at_us=now * 10**9)),
        (TypeError, "observed_at_us", lambda: emitter.feedback("a", values={"x": 1}, observed_at_us=time.time() * 1e6)),
        (ValueError, "values", lambda: emitter.feedback("a")),
        (ValueError, "values", lambda: emitter.feedback("a", values={"x": None})),
        (ValueError, "revision", lambda: emitter.feedback("a", values={"x": 1}, revision=-1)),
        (TypeError, "revision", lambda: emitter.feedback("a", values={"x": 1}, revision=0.5)),
        (TypeError, "request_id", lambda: emitter.feedback(None, values={"x": 1})),
        (TypeError, "brokers", lambda: Emitter(None)),
    ]
    for kind, part, act in cases:
        try:
            act()
        except kind as error:
            assert part in str(error), (part, error)
        else:
            raise AssertionError(f"{part}: nothing was raised")
    assert not sent, sent


for check in (bounded, lost_in_the_queue, coerces, checks):
    check()
print("ok")
sys.stdout.flush()
