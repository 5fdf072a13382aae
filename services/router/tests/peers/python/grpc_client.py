"""Calls `grpc_server.py` through the router, whose address is the first argument, and tells all that a gRPC client sees."""

import json
import sys

import grpc
from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages

channel = grpc.insecure_channel(sys.argv[1])
infer = channel.unary_unary(
    "/inference.GRPCInferenceService/ModelInfer",
    request_serializer=messages.ModelInferRequest.SerializeToString,
    response_deserializer=messages.ModelInferResponse.FromString,
)
stream = channel.stream_stream(
    "/inference.GRPCInferenceService/ModelStreamInfer",
    request_serializer=messages.ModelInferRequest.SerializeToString,
    response_deserializer=messages.ModelInferResponse.FromString,
)


def text(metadata):
    return {key: value.hex() if isinstance(value, bytes) else value for key, value in metadata}


def call(model, version="", metadata=()):
    request = messages.ModelInferRequest(model_name=model, model_version=version, id="7")
    request.inputs.add(name="origin", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"LGA")
    try:
        response, called = infer.with_call(request, metadata=[("x-tier", "gold"), *metadata], timeout=60)
        told = {"code": "OK", "version": response.model_version, "id": response.id}
    except grpc.RpcError as error:
        called, told = error, {"code": error.code().name, "message": error.details()}
    return told | {"initial": text(called.initial_metadata() or []), "trailing": text(called.trailing_metadata() or [])}


answers = [
    [answer.model_name, answer.id]
    for answer in stream(messages.ModelInferRequest(model_name="flights", id=str(number)) for number in range(3))
]
print(
    json.dumps(
        {
            "good": call("flights"),
            "pinned": call("flights", "v2"),
            "fails": call("fails"),
            "refuses": call("refuses"),
            "unknown": call("nobody"),
            "missing_version": call("flights", "v9"),
            "answers": answers,
        }
    )
)
