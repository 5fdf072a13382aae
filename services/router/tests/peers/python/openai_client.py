"""The `openai` client through the router. Arguments: the addresses of the router and of the server, to step the stream."""

import json
import sys
import urllib.request

import openai

router, server = sys.argv[1:]
client = openai.OpenAI(base_url=f"http://{router}/v1", api_key="none", max_retries=0)


def next_word():
    urllib.request.urlopen(urllib.request.Request(f"http://{server}/next", data=b"", method="POST"))


messages = [{"role": "user", "content": "What do canaries do?"}]
with client.chat.completions.with_streaming_response.create(
    model="chat", messages=messages, stream=True, stream_options={"include_usage": True}
) as raw:
    headers = {name: raw.headers.get(name) for name in ["x-model-version", "x-model-arm", "x-prediction-id", "x-request-id"]}
    words, usage = [], None
    for part in raw.parse():
        if part.choices and part.choices[0].delta.content == "":
            next_word()
        elif part.choices and part.choices[0].delta.content:
            # The server sends the next word only now, so this one did not wait for the end.
            words.append(part.choices[0].delta.content)
            next_word()
        if part.usage:
            usage = part.usage.completion_tokens
whole = client.chat.completions.create(model="chat", messages=messages)
embedding = client.embeddings.create(model="chat", input="canary")
models = [model.id for model in client.models.list()]
try:
    client.chat.completions.create(model="chat", messages=[{"role": "user", "content": "fail"}])
    failed = None
except openai.InternalServerError as error:
    failed = error.body["message"]
try:
    client.chat.completions.create(model="unknown", messages=messages)
    unknown = None
except openai.NotFoundError as error:
    unknown = [error.code, error.type]
print(
    json.dumps(
        {
            "headers": headers,
            "words": words,
            "usage": usage,
            "whole": whole.choices[0].message.content,
            "embedding": embedding.data[0].embedding,
            "models": models,
            "failed": failed,
            "unknown": unknown,
        }
    )
)
