"""Calls `grpc_server.py` through the router, whose address is the first argument, and prints everything that a gRPC client sees."""

import json
import queue
import sys
import threading
import time

import grpc
import numpy
import tritonclient.grpc
from tritonclient.grpc import service_pb2 as messages

channel = grpc.insecure_channel(sys.argv[1])
infer = channel.unary_unary(
    "/inference.GRPCInferenceService/ModelInfer",
    request_serializer=messages.ModelInferRequest.SerializeToString,
    response_deserializer=messages.ModelInferResponse.FromString,
)
stream = channel.stream_stream(
    "/inference.GRPCInferenceService/ModelStreamInfer",
    request_serializer=messages.ModelInferRequest.SerializeToString,
    response_deserializer=messages.ModelStreamInferResponse.FromString,
)


def text(metadata):
    return {key: value.hex() if isinstance(value, bytes) else value for key, value in metadata}


def call(model, version="", metadata=()):
    request = messages.ModelInferRequest(model_name=model, model_version=version, id="7")
    request.inputs.add(name="origin", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"LGA")
    try:
        response, called = infer.with_call(request, metadata=[("x-tier", "gold"), *metadata], timeout=60)
        report = {"code": "OK", "version": response.model_version, "id": response.id}
    except grpc.RpcError as error:
        called, report = error, {"code": error.code().name, "message": error.details()}
    return report | {"initial": text(called.initial_metadata() or []), "trailing": text(called.trailing_metadata() or [])}


answers = [
    [answer.infer_response.model_name, answer.infer_response.id]
    for answer in stream(messages.ModelInferRequest(model_name="flights", id=str(number)) for number in range(3))
]


def triton_stream(model):
    """The answer to one request in a stream, as Triton's client sees it."""
    heard = queue.Queue()
    client = tritonclient.grpc.InferenceServerClient(sys.argv[1])
    client.start_stream(lambda result, error: heard.put((result, error)), headers={"x-prediction-id": f"stream-{model}"})
    flight = tritonclient.grpc.InferInput("origin", [1], "BYTES")
    flight.set_data_from_numpy(numpy.array([b"LGA"], dtype=object))
    client.async_stream_infer(model, [flight])
    try:
        result, error = heard.get(timeout=2 if model == "refuses" else 60)
        report = error.message() if error else result.get_response().outputs[0].name
    except queue.Empty:
        report = None
    # The client disconnects while an answer is pending.
    client.stop_stream(cancel_requests=report is None)
    return report


def leave(how):
    """A call that is cancelled, or whose deadline expires, before its answer."""
    metadata = [("x-prediction-id", how)]
    asked = threading.Event()

    def requests():
        yield messages.ModelInferRequest(model_name="refuses", id="1")
        asked.wait(60)

    call = stream(requests(), metadata=metadata, timeout=0.3 if how == "deadline" else None)
    if how == "cancel":
        time.sleep(0.3)
        call.cancel()
    try:
        next(call)
        return None
    except grpc.RpcError as error:
        return error.code().name
    finally:
        asked.set()


print(
    json.dumps(
        {
            "streams": {model: triton_stream(model) for model in ["flights", "fails", "refuses"]},
            "cancel": leave("cancel"),
            "deadline": leave("deadline"),
            "good": call("flights"),
            "pinned": call("flights", "v2"),
            "fails": call("fails"),
            "refuses": call("refuses"),
            "unknown": call("missing"),
            "missing_version": call("flights", "v9"),
            "answers": answers,
        }
    )
)
