"""A gRPC server of the Open Inference Protocol with its own metadata and trailers, on the port of the first argument. The model's
name selects the behavior: `fails` ends with INTERNAL, `refuses` with INVALID_ARGUMENT. In a stream, `fails` answers with an error
message, as Triton does, and `refuses` does not answer."""

import sys
import time
from concurrent import futures

import grpc
from tritonclient.grpc import service_pb2 as messages

SERVICE = "inference.GRPCInferenceService"


def answer(request, context):
    tier = dict(context.invocation_metadata()).get("x-tier", "none")
    context.send_initial_metadata([("x-server", "grpcio")])
    context.set_trailing_metadata([("x-cost", "7"), ("x-detail-bin", b"\x00\xff"), ("x-tier", tier)])
    if request.model_name == "fails":
        context.abort(grpc.StatusCode.INTERNAL, "the model broke: 50 %")
    if request.model_name == "refuses":
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the shape is wrong")
    response = messages.ModelInferResponse(
        model_name=request.model_name, model_version=request.model_version or "none", id=request.id
    )
    output = response.outputs.add(name="p", datatype="FP64", shape=[1])
    output.contents.fp64_contents.append(0.25)
    return response


def infer(request, context):
    return answer(request, context)


def stream_infer(requests, context):
    for request in requests:
        if request.model_name == "fails":
            yield messages.ModelStreamInferResponse(error_message="no memory left")
        elif request.model_name == "refuses":
            while context.is_active():
                time.sleep(0.01)
        else:
            infer_response = messages.ModelInferResponse(model_name=request.model_name, id=request.id)
            infer_response.outputs.add(name="p", datatype="FP64", shape=[1]).contents.fp64_contents.append(0.25)
            yield messages.ModelStreamInferResponse(infer_response=infer_response)


server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
methods = {
    "ModelInfer": grpc.unary_unary_rpc_method_handler(
        infer, messages.ModelInferRequest.FromString, messages.ModelInferResponse.SerializeToString
    ),
    "ModelStreamInfer": grpc.stream_stream_rpc_method_handler(
        stream_infer, messages.ModelInferRequest.FromString, messages.ModelStreamInferResponse.SerializeToString
    ),
}
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, methods)])
server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
server.start()
server.wait_for_termination()
