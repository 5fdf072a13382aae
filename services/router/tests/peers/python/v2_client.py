"""Triton's client libraries through the router. Arguments: what to do (`json`, `binary` or `grpc`), the router's address, the
version to ask for, and for gRPC over TLS a file with the certificates to trust."""

import json
import sys

import numpy

what, router, version = sys.argv[1:4]
headers = {"x-model-version": version, "x-request-id": f"r-{version}", "x-prediction-id": f"p-{what}-{version}"}
flowers = numpy.array([[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]])
if what == "grpc":
    import tritonclient.grpc as triton

    tls = {"ssl": True, "root_certificates": sys.argv[4]} if len(sys.argv) > 4 else {}
    client = triton.InferenceServerClient(router, **tls)
else:
    import tritonclient.http as triton

    client = triton.InferenceServerClient(router)
flower = triton.InferInput("predict", [2, 4], "FP64")
report = {"ready": client.is_server_ready(), "model_ready": client.is_model_ready("iris", headers=headers)}
if what == "grpc":
    flower.set_data_from_numpy(flowers)
    result = client.infer("iris", [flower], request_id="id-1", headers=headers)
    output = result.get_response().outputs[0]
    raw = result.get_response().raw_output_contents
    # KServe answers with typed lists, MLServer with raw bytes if the request had raw bytes.
    report["answer"] = result.as_numpy("predict").flatten().tolist() if raw else list(output.contents.int64_contents)
    report["id"] = result.get_response().id
else:
    flower.set_data_from_numpy(flowers, binary_data=what == "binary")
    wanted = triton.InferRequestedOutput("predict", binary_data=what == "binary")
    result = client.infer("iris", [flower], outputs=[wanted], request_id="id-1", headers=headers)
    report["answer"] = result.as_numpy("predict").flatten().tolist()
    report["id"] = result.get_response()["id"]
print(json.dumps(report))
