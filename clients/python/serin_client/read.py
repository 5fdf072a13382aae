"""Reads verdicts."""

import io
import json
import uuid
from pathlib import Path

import fastavro
from confluent_kafka import Consumer, KafkaException


#: The type of record that the schema next to this module reads.
TYPE = "dev.serin.verdict.v5"


class Verdicts:
    """Iterates over the verdicts of a cluster as dictionaries, oldest first.

    `schema` is the path of `verdict.avsc` (default: the copy next to this module). `timeout` ends the iteration after that
    number of seconds without a record (default: never).
    """

    def __init__(self, brokers, *, prefix="", schema=None, timeout=None, config=None):
        path = Path(schema) if schema else Path(__file__).with_name("verdict.avsc")
        self._schema = fastavro.parse_schema(json.loads(path.read_text()))
        self._timeout = timeout
        self._consumer = Consumer(
            {
                "bootstrap.servers": brokers,
                "group.id": f"serin-client-{uuid.uuid4()}",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                **(config or {}),
            }
        )
        self._consumer.subscribe([prefix + "verdicts"])

    def __iter__(self):
        return self

    def __next__(self):
        message = self._consumer.poll(self._timeout if self._timeout is not None else -1)
        if message is None:
            self.close()
            raise StopIteration
        if message.error():
            raise KafkaException(message.error())
        event_type = dict(message.headers() or []).get("ce_type", b"").decode()
        if event_type != TYPE:
            raise ValueError(f"{event_type or 'a record without a type'} where {TYPE} was expected; update serin-client")
        return fastavro.schemaless_reader(io.BytesIO(message.value()), self._schema)

    def close(self):
        """Closes the connection to the cluster."""
        self._consumer.close()


def verdicts(brokers, **options):
    """Returns an iterator over the verdicts of a cluster; see `Verdicts`."""
    return Verdicts(brokers, **options)
