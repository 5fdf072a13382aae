"""A LitServe server on the port of the first argument. The request's `input` selects the behavior: a number is doubled, `refuse` and
`fail` end in an HTTP error, `error` is an error object with status 200, `nothing` is null."""

import sys

import litserve as ls
from fastapi import HTTPException


class Doubler(ls.LitAPI):
    def setup(self, device):
        pass

    def decode_request(self, request):
        return request["input"]

    def predict(self, value):
        if value == "refuse":
            raise HTTPException(422, "a number is needed")
        if value == "fail":
            raise RuntimeError("no memory left")
        if value == "error":
            return {"error": "no memory left"}
        if value == "nothing":
            return {"output": None}
        return {"output": value * 2}

    def encode_response(self, answer):
        return answer


if __name__ == "__main__":
    server = ls.LitServer(Doubler(), accelerator="cpu", track_requests=False)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")
