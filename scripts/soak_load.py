"""The load of scripts/soak.sh: a model server, callers at a fixed rate, and a label for every answer.

Usage: soak_load.py FIRST_PORT REQUESTS_PER_SECOND. The model server listens on FIRST_PORT + 3. Prints the number of calls.
"""

import http.client
import http.server
import json
import random
import sys
import threading
import time

port, rate = int(sys.argv[1]), float(sys.argv[2])
CALLERS = 8
COUNTRIES = ["ch", "de", "fr", "it", "at", "us", "jp", "br", "in", "za"]


class Model(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        score = random.random()
        body = {"model_name": "soak", "outputs": [{"name": "score", "datatype": "FP32", "shape": [1], "data": [score]}]}
        body = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 512


calls = [0] * CALLERS


def caller(number):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    request = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1]}]})
    labels, due = [], time.monotonic()
    while True:
        due += CALLERS / rate
        time.sleep(max(0.0, due - time.monotonic()))
        try:
            headers = {"content-type": "application/json", "x-country": random.choice(COUNTRIES)}
            connection.request("POST", "/v2/models/soak/infer", request, headers)
            answer = connection.getresponse()
            answer.read()
            calls[number] += 1
            if answer.status == 200:
                labels.append({"prediction_id": answer.headers["x-prediction-id"], "label": random.randint(0, 1)})
            # Labels come in lists, some seconds after their answers.
            if len(labels) >= 100:
                connection.request("POST", "/v1/feedback", json.dumps(labels), {"content-type": "application/json"})
                connection.getresponse().read()
                labels = []
        except OSError:
            connection.close()
            time.sleep(0.5)
        except http.client.HTTPException:
            connection.close()


threading.Thread(target=Server(("127.0.0.1", port + 3), Model).serve_forever, daemon=True).start()
for number in range(CALLERS):
    threading.Thread(target=caller, args=(number,), daemon=True).start()
while True:
    print(sum(calls), flush=True)
    time.sleep(5)
