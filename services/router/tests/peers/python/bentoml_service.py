"""A BentoML service. The request's `value` selects the behavior: a number is doubled, `refuse` and `fail` end in an HTTP error, `error`
is an error object with status 200, `nothing` is null."""

from typing import Any

import bentoml


@bentoml.service(traffic={"timeout": 30})
class Doubler:
    @bentoml.api(route="/score")
    def score(self, value: Any) -> dict:
        if value == "refuse":
            raise bentoml.exceptions.InvalidArgument("a number is needed")
        if value == "fail":
            raise RuntimeError("no memory left")
        if value == "error":
            return {"error": "no memory left"}
        if value == "nothing":
            return {"output": None}
        return {"output": value * 2}
