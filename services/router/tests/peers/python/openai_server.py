"""An OpenAI-compatible server without a model, on the port of the first argument. Its answers are built from the types of the
`openai` package, one word at a time; the next word is sent after the client has requested it with `POST /next`, so that a client
can verify that each word arrived before the next one was sent."""

import asyncio
import sys
import time

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from openai.types import CompletionUsage, CreateEmbeddingResponse, Embedding
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessage
from openai.types.chat.chat_completion import Choice as Whole
from openai.types.chat.chat_completion_chunk import Choice, ChoiceDelta
from openai.types.create_embedding_response import Usage

WORDS = ["Canaries ", "sing ", "early."]
app = FastAPI()
step = asyncio.Semaphore(0)


@app.get("/health")
def health():
    return {}


@app.post("/next")
def next_word():
    step.release()
    return {}


def chunk(model, delta, finish=None):
    choice = Choice(index=0, delta=delta, finish_reason=finish)
    return ChatCompletionChunk(
        id="c1", object="chat.completion.chunk", created=int(time.time()), model=model, choices=[choice]
    )


async def words(body):
    model = body["model"]
    yield chunk(model, ChoiceDelta(role="assistant", content=""))
    for word in WORDS:
        await step.acquire()
        yield chunk(model, ChoiceDelta(content=word))
    yield chunk(model, ChoiceDelta(), "stop")
    if body.get("stream_options", {}).get("include_usage"):
        last = chunk(model, ChoiceDelta())
        last.choices = []
        last.usage = CompletionUsage(prompt_tokens=4, completion_tokens=3, total_tokens=7)
        yield last


async def events(body):
    content = body["messages"][-1]["content"]
    async for part in words(body):
        yield f"data: {part.model_dump_json(exclude_none=True)}\n\n"
        if content == "break":
            yield 'data: {"error": {"message": "no memory left", "type": "server_error"}}\n\n'
    yield "data: [DONE]\n\n"


@app.post("/v1/chat/completions")
async def chat(request: Request):
    body = await request.json()
    if body["messages"][-1]["content"] == "fail":
        error = {"message": "no memory left", "type": "server_error", "param": None, "code": None}
        return JSONResponse({"error": error}, status_code=500)
    if body["messages"][-1]["content"] == "lie":
        return JSONResponse({"error": {"message": "no memory left", "type": "server_error"}})
    if body["messages"][-1]["content"] == "say nothing":
        return JSONResponse({"object": "chat.completion", "model": body["model"], "choices": []})
    if body.get("stream"):
        return StreamingResponse(events(body), media_type="text/event-stream")
    message = ChatCompletionMessage(role="assistant", content="".join(WORDS))
    usage = CompletionUsage(prompt_tokens=4, completion_tokens=3, total_tokens=7)
    return ChatCompletion(
        id="c1",
        object="chat.completion",
        created=int(time.time()),
        model=body["model"],
        choices=[Whole(index=0, finish_reason="stop", message=message)],
        usage=usage,
    )


@app.post("/v1/embeddings")
async def embeddings(request: Request):
    body = await request.json()
    vector = Embedding(embedding=[0.5, 0.25], index=0, object="embedding")
    usage = Usage(prompt_tokens=2, total_tokens=2)
    return CreateEmbeddingResponse(data=[vector], model=body["model"], object="list", usage=usage)


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
