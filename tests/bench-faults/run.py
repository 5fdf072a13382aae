#!/usr/bin/env python3
"""Measures the time to a rollback while a writer is behind: `make bench-faults`.

Two routers, each its own process, on a real Apache Kafka. A canary turns bad (status 500), and at the same moment one router is
killed, stopped, cut off from Kafka, or its clock is off; or a foreign writer stalls. For each case this prints the seconds
until the rollback is in use at the healthy router, and the failed calls of its callers until then.

The times are wall-clock times of this machine. The simulation asserts, in the log's time, what must hold on any machine
(`cargo test -p serin --test simulation`).
"""

import argparse, http.client, http.server, json, os, pathlib, signal, socket, subprocess, sys, tempfile, threading, time

ROOT = pathlib.Path(__file__).resolve().parents[2]
WINDOW, GRACE = 2.0, 1.0
# Calls per second at each router.
RATE = 25
# Results from before event time stopped waiting for silent writers (seconds, failed calls).
BEFORE = {
    "no fault": (1.9, 58),
    "one router killed": (30.9, 383),
    "a foreign writer stalls": (75.0, 2266),
}
CASES = [
    "no fault",
    "one router killed",
    "one router stopped (SIGSTOP)",
    "one router cut off from Kafka",
    "a foreign writer stalls",
    "one router's clock 5 min behind",
    "one router's clock 5 min ahead",
]
# Milliseconds by which a router's clock is off.
CLOCKS = {"one router's clock 5 min behind": -300_000, "one router's clock 5 min ahead": 300_000}

ROLLOUT = """
apiVersion: serin.dev/v1
kind: Rollout
model: flights
stable: {{version: v1, url: "{stable}"}}
canary: {{version: v2, url: "{canary}"}}
window: 2s
grace: 1s
warmup: {{minEvents: 100}}
steps:
  - {{weight: 50%, bake: {{min: 5m, max: 1h}}, require: pass}}
metrics:
  - {{name: error_rate, kind: rate, source: error, margin: {{absolute: 0.05}}}}
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait(what, until, seconds=180):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = until()
        if found:
            return found
        time.sleep(0.05)
    raise SystemExit(f"error: waited {seconds} s for {what}")


class Model:
    """A model server of one version that can turn bad."""

    def __init__(self):
        model = self
        self.bad = False

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                self.rfile.read(int(self.headers.get("content-length", 0)))
                body = b'{"model_name":"flights","outputs":[{"name":"p","shape":[1],"datatype":"FP64","data":[0.1]}]}'
                self.send_response(500 if model.bad else 200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, *_):
                """Ignores errors: a killed router resets its connections."""

        server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_address[1]}"


class Link:
    """A connection to Kafka that can be cut: bytes wait, and neither side is notified."""

    def __init__(self, port, to):
        self.to, self.open = to, threading.Event()
        self.open.set()
        listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self.serve, args=(listener,), daemon=True).start()

    def serve(self, listener):
        while True:
            one, _ = listener.accept()
            try:
                other = socket.create_connection(("127.0.0.1", self.to))
            except OSError:
                one.close()
                continue
            for source, sink in ((one, other), (other, one)):
                threading.Thread(target=self.pump, args=(source, sink), daemon=True).start()

    def pump(self, source, sink):
        try:
            while data := source.recv(65536):
                self.open.wait()
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Caller:
    """Calls one router at a steady rate and counts the failed calls since the canary turned bad."""

    def __init__(self, port, model):
        self.port, self.model, self.failed, self.last_bad, self.ended = port, model, 0, None, False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        connection, due = None, time.monotonic()
        while not self.ended:
            due = max(due + 1 / RATE, time.monotonic() - 1)
            time.sleep(max(0, due - time.monotonic()))
            try:
                connection = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
                connection.request("POST", "/v2/models/flights/infer", b'{"inputs":[]}', {"content-type": "application/json"})
                answer = connection.getresponse()
                answer.read()
                if answer.status >= 500 and self.model.bad:
                    self.failed += 1
                    self.last_bad = time.monotonic()
            except (OSError, http.client.HTTPException):
                connection = None


class Bench:
    def __init__(self, serin, folder):
        self.serin, self.folder, self.children = serin, folder, []

    def spawn(self, name, command, environment=None, **more):
        log = open(self.folder / f"{name}.log", "ab")
        child = subprocess.Popen(command, stdout=more.get("stdout", log), stderr=log, stdin=subprocess.DEVNULL,
                                 env={**os.environ, "RUST_LOG": "info", **(environment or {})})
        self.children.append(child)
        return child

    def build_clock(self):
        self.clock = self.folder / "clock.so"
        command = ["cc", "-O2", "-shared", "-fPIC", "-o", self.clock, ROOT / "tests/clock/clock.c"]
        subprocess.run(command, check=True)

    def kafka(self):
        port, controller, inner, outer = (free_port() for _ in range(4))
        self.link = Link(outer, inner)
        settings = {
            "listeners": f"PLAINTEXT://127.0.0.1:@PORT@,CONTROLLER://127.0.0.1:@CONTROLLER_PORT@,CUT://127.0.0.1:{inner}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:@PORT@,CUT://127.0.0.1:{outer}",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,CUT:PLAINTEXT",
        }
        command = [str(ROOT / "tests/kafka/run.sh"), "--port", str(port), "--controller-port", str(controller)]
        for name, value in settings.items():
            command += ["--set", f"{name}={value}"]
        self.spawn("kafka", command)
        def serves():
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0
        wait("Kafka", serves, 240)
        self.brokers, self.brokers_of_b = f"127.0.0.1:{port}", f"127.0.0.1:{outer}"

    def settings(self, prefix, name, **own):
        settings = {
            "log.kind": "kafka", "log.kafka.brokers": self.brokers, "topology.prefix": prefix, "topology.partitions": 2,
            "data_dir": self.folder / f"{prefix}{name}", "telemetry.listen": f"127.0.0.1:{free_port()}", **own,
        }
        return [text for key, value in settings.items() for text in ("--set", f"{key}={value}")]

    def play(self, number, case):
        prefix = f"faults{number}."
        stable, canary = Model(), Model()
        api, ports, admins = free_port(), [free_port(), free_port()], [free_port(), free_port()]
        subprocess.run([self.serin, "topology", "ensure", *self.settings(prefix, "ensure")], check=True, stdout=subprocess.DEVNULL)
        clock = CLOCKS.get(case)
        fake = {"LD_PRELOAD": str(self.clock), "CLOCK_OFF_MS": str(clock)}
        run = []
        own = [{}, {"log.kafka.brokers": self.brokers_of_b}]
        for role in ("controller", "analyzer", "aggregator"):
            more = {"controller.listen": f"127.0.0.1:{api}"} if role == "controller" else {}
            run.append(self.spawn(role, [self.serin, role, *self.settings(prefix, role, **more)]))
        routers = []
        for index in range(2):
            name = f"router-{'ab'[index]}"
            settings = self.settings(prefix, name, **{
                "router.listen": f"127.0.0.1:{ports[index]}", "router.admin_listen": f"127.0.0.1:{admins[index]}",
                "router.name": name, "router.models.flights.stable": "v1",
                "router.models.flights.versions.v1": stable.url, **own[index]})
            routers.append(self.spawn(name, [self.serin, "router", *settings], fake if clock and index == 1 else None))
        run += routers
        server = f"http://127.0.0.1:{api}"

        def ask(path):
            try:
                connection = http.client.HTTPConnection("127.0.0.1", api, timeout=2)
                connection.request("GET", path)
                answer = connection.getresponse()
                return json.loads(answer.read()) if answer.status == 200 else None
            except (OSError, http.client.HTTPException, ValueError):
                return None

        wait("both routers", lambda: len(ask("/v1/routers") or []) == 2)
        file = self.folder / f"{prefix}rollout.yaml"
        file.write_text(ROLLOUT.format(stable=stable.url, canary=canary.url))
        subprocess.run([self.serin, "apply", "-f", file, "--api", server], check=True, stdout=subprocess.DEVNULL)
        callers = [Caller(port, canary) for port in ports]
        wait("the canary", lambda: (ask("/v1/rollouts/flights") or {}).get("phase") == "baking")
        wait("verdicts on it", lambda: ((ask("/v1/rollouts/flights/verdict") or {}).get("step") or -1) >= 0
             or (ask("/v1/rollouts/flights/verdict") or {}).get("step") == 0)
        time.sleep(6)
        other = routers[1]
        started = time.monotonic()
        canary.bad = True
        stalling = None
        if case == "one router killed":
            other.kill()
        elif case == "one router stopped (SIGSTOP)":
            other.send_signal(signal.SIGSTOP)
        elif case == "one router cut off from Kafka":
            self.link.open.clear()
        elif case == "a foreign writer stalls":
            stalling = threading.Thread(target=self.stall, args=(ports[0], canary), daemon=True)
            stalling.start()

        def over():
            state = ask("/v1/rollouts/flights") or {}
            return state.get("phase") == "rolled_back"

        wait(f"the rollback ({case})", over, 120)
        decided = time.monotonic() - started
        time.sleep(1)
        well = callers if case in ("no fault", "a foreign writer stalls") or clock else callers[:1]
        failed = sum(caller.failed for caller in well)
        canary.bad = False
        self.link.open.set()
        for caller in callers:
            caller.ended = True
        verdict = ask("/v1/rollouts/flights/verdict") or {}
        named = [issue["sentence"] for issue in verdict.get("health", [])]
        for child in run:
            if child.poll() is None:
                child.send_signal(signal.SIGCONT)
                child.terminate()
        for child in run:
            child.wait(30)
        return decided, failed, named

    def stall(self, port, model):
        """Sends one current event, and then old ones."""
        number = 0
        while model.bad:
            at = int(time.time() * 1e6) - (0 if number == 0 else 3_600_000_000)
            body = json.dumps({"prediction_id": f"foreign-{number}", "model": "elsewhere", "version": "v1", "completed_at": at})
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
                connection.request("POST", "/v1/events", body, {"content-type": "application/json"})
                connection.getresponse().read()
            except (OSError, http.client.HTTPException):
                pass
            number += 1
            time.sleep(1)

    def stop(self):
        for child in self.children:
            if child.poll() is None:
                child.send_signal(signal.SIGCONT)
                child.terminate()
        for child in self.children:
            try:
                child.wait(30)
            except subprocess.TimeoutExpired:
                child.kill()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    target = os.environ.get("CARGO_TARGET_DIR") or str(ROOT / "target")
    parser.add_argument("--serin", default=f"{target}/release/serin", help="the binary (default: the release build)")
    parser.add_argument("--case", action="append", choices=CASES, help="only this case; may be given several times")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="serin-faults-") as folder:
        bench = Bench(options.serin, pathlib.Path(folder))
        try:
            bench.build_clock()
            bench.kafka()
            print(f"two routers, {RATE} calls/s each; windows of {WINDOW:.0f} s, grace {GRACE:.0f} s; canary at 50 %, all its calls fail\n")
            print("| case | rollback after | failed calls | before this rule |\n|---|---|---|---|", flush=True)
            for number, case in enumerate(options.case or CASES):
                seconds, failed, named = bench.play(number, case)
                before = "{} s, {}".format(*BEFORE[case]) if case in BEFORE else ""
                print(f"| {case} | {seconds:.1f} s | {failed} | {before} |", flush=True)
                for sentence in named:
                    print(f"    {sentence}", file=sys.stderr)
        except BaseException:
            for log in sorted(bench.folder.glob("*.log")):
                print(f"--- {log.name}", *log.read_text(errors="replace").splitlines()[-15:], sep="\n", file=sys.stderr)
            raise
        finally:
            bench.stop()


if __name__ == "__main__":
    main()
