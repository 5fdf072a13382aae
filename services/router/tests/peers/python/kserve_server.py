"""KServe's Python server with the model in the folder of the first argument, named `iris`."""

import sys
from pathlib import Path

import grpc
import joblib
import uvicorn
from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer
from kserve.utils.utils import generate_uuid, get_predict_input

# KServe listens on all addresses; tests need only one.
configure, add_port = uvicorn.Config.__init__, grpc.aio._server.Server.add_insecure_port
uvicorn.Config.__init__ = lambda self, *args, **named: configure(self, *args, **(named | {"host": "127.0.0.1"}))
grpc.aio._server.Server.add_insecure_port = lambda self, address: add_port(self, address.replace("[::]", "127.0.0.1"))


class Iris(Model):
    def load(self):
        self.model = joblib.load(Path(sys.argv.pop(1)) / "model.joblib")
        self.ready = True
        return self.ready

    def predict(self, payload, headers=None):
        result = self.model.predict(get_predict_input(payload))
        if not isinstance(payload, InferRequest):
            return {"predictions": result.tolist()}
        output = InferOutput(name="predict", shape=list(result.shape), datatype="INT64", data=result.tolist())
        request_id = payload.id or generate_uuid()
        return InferResponse(model_name=self.name, infer_outputs=[output], response_id=request_id)


if __name__ == "__main__":
    model = Iris("iris")
    model.load()
    ModelServer(workers=1).start([model])
