"""Requests of other client libraries through the router: `model` after a long prompt, names with a slash, forms, compressed bodies.
Argument: the router's address. Prints the version that answered each call."""

import gzip
import io
import json
import sys

import httpx
import openai

router = sys.argv[1]
report = {"openai": openai.VERSION.split(".")[0]}


def version(make):
    try:
        return make().headers.get("x-model-version")
    except openai.APIStatusError as error:
        return f"{error.status_code} {error.body}"


client = openai.OpenAI(base_url=f"http://{router}/v1", api_key="none", max_retries=0)
chat = client.chat.completions.with_raw_response
prompt = [{"role": "user", "content": "x" * 300_000}]
picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400_000}}]}]
report["long prompt"] = version(lambda: chat.create(model="chat", messages=prompt))
report["picture"] = version(lambda: chat.create(model="chat", messages=picture))
report["slash"] = version(lambda: chat.create(model="org/model", messages=prompt[:0]))
report["embeddings"] = version(
    lambda: client.embeddings.with_raw_response.create(model="chat", input=["y" * 1000] * 300, encoding_format="float")
)
report["retrieve"] = version(lambda: client.models.with_raw_response.retrieve("org/model"))
sound = ("a.wav", io.BytesIO(b"RIFF" + bytes(200_000)))
report["audio"] = version(lambda: client.audio.transcriptions.with_raw_response.create(model="org/model", file=sound))
azure = openai.AzureOpenAI(azure_endpoint=f"http://{router}", api_key="none", api_version="2024-10-21", max_retries=0)
report["azure"] = version(lambda: azure.chat.completions.with_raw_response.create(model="chat", messages=prompt))
if hasattr(client, "responses"):
    report["responses"] = version(lambda: client.responses.with_raw_response.create(model="chat", input="z" * 300_000))
packed = httpx.post(
    f"http://{router}/v1/chat/completions",
    content=gzip.compress(json.dumps({"messages": prompt, "model": "chat"}).encode()),
    headers={"content-type": "application/json", "content-encoding": "gzip"},
)
report["gzip"] = packed.headers.get("x-model-version")

try:
    import numpy
    import tritonclient.grpc
    import tritonclient.http
except ImportError:
    print(json.dumps(report))
    sys.exit()

values = numpy.zeros((1, 20_000))
for packing in [None, "gzip", "deflate"]:
    for binary in [False, True]:
        triton = tritonclient.http.InferenceServerClient(router)
        tensor = tritonclient.http.InferInput("x", values.shape, "FP64")
        tensor.set_data_from_numpy(values, binary_data=binary)
        result = triton.infer("org/model", [tensor], request_compression_algorithm=packing, headers={"x-request-id": "t"})
        report[f"triton {packing} {binary}"] = result.get_response()["model_name"]
print(json.dumps(report))
