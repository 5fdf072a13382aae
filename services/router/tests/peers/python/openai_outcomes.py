"""The `openai` client, of whatever version, when answers are no good and when it leaves. Argument: the router's address."""

import json
import sys

import openai

client = openai.OpenAI(base_url=f"http://{sys.argv[1]}/v1", api_key="none", max_retries=0)


def call(id, says, **more):
    return client.chat.completions.create(
        model="chat", messages=[{"role": "user", "content": says}], extra_headers={"x-prediction-id": id}, **more
    )


told = {"version": openai.__version__}
told["lie"] = call("lie", "lie").choices is None
told["nothing"] = len(call("nothing", "say nothing").choices)
try:
    for _ in call("break", "break", stream=True):
        pass
    told["break"] = None
except openai.APIError as error:
    told["break"] = error.message
# Stopped by hand: the server sends no further word.
stream = call("stop", "go on", stream=True)
next(iter(stream))
stream.close()
try:
    # Out of patience.
    for _ in call("timeout", "go on", stream=True, timeout=0.5):
        pass
    told["timeout"] = False
except (openai.APITimeoutError, openai.APIConnectionError, Exception) as error:
    told["timeout"] = "timed out" in str(error).lower() or "timeout" in type(error).__name__.lower()
print(json.dumps(told))
