"""The `openai` client, in any version, with error answers and when it disconnects. Argument: the router's address."""

import json
import sys

import openai

client = openai.OpenAI(base_url=f"http://{sys.argv[1]}/v1", api_key="none", max_retries=0)


def call(id, content, **more):
    return client.chat.completions.create(
        model="chat", messages=[{"role": "user", "content": content}], extra_headers={"x-prediction-id": id}, **more
    )


report = {"version": openai.__version__}
report["lie"] = call("lie", "lie").choices is None
report["nothing"] = len(call("nothing", "say nothing").choices)
try:
    for _ in call("break", "break", stream=True):
        pass
    report["break"] = None
except openai.APIError as error:
    report["break"] = error.message
# The client stops: the server sends no further word.
stream = call("stop", "go on", stream=True)
next(iter(stream))
stream.close()
try:
    # The client's timeout expires.
    for _ in call("timeout", "go on", stream=True, timeout=0.5):
        pass
    report["timeout"] = False
except (openai.APITimeoutError, openai.APIConnectionError, Exception) as error:
    report["timeout"] = "timed out" in str(error).lower() or "timeout" in type(error).__name__.lower()
print(json.dumps(report))
