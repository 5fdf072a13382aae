// Real processes for the tests: pipelines, model servers and load of the binary under test. All end with the test.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const BINARY = process.env.SERIN_BINARY;

/** A port that is free now. */
async function freePort() {
    const server = createServer();
    await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
    const { port } = server.address();
    await new Promise((closed) => server.close(closed));
    return port;
}

/** Starts the binary with arguments. `output()` is what it has printed. */
function run(args) {
    assert.ok(BINARY, "SERIN_BINARY must name the binary under test: run scripts/console.sh --test BINARY");
    const child = spawn(BINARY, args, { stdio: ["ignore", "pipe", "pipe"] });
    let text = "";
    for (const stream of [child.stdout, child.stderr])
        stream.on("data", (part) => {
            text += part;
        });
    const ended = once(child, "exit");
    return {
        ended,
        output: () => text,
        kill: async () => {
            child.kill("SIGKILL");
            await ended;
        },
    };
}

/** A `serin up` that can be killed and restarted on its directory. */
export class Pipeline {
    #others = [];

    /** Starts it with settings, and waits until it is ready. */
    static async start(settings = []) {
        const pipeline = new Pipeline();
        pipeline.folder = await mkdtemp(join(tmpdir(), "serin-console-"));
        const [router, admin, api, telemetry] = [
            await freePort(),
            await freePort(),
            await freePort(),
            await freePort(),
        ];
        Object.assign(pipeline, {
            router: `http://127.0.0.1:${router}`,
            admin: `http://127.0.0.1:${admin}`,
            url: `http://127.0.0.1:${api}`,
            telemetry: `http://127.0.0.1:${telemetry}`,
        });
        pipeline.settings = [
            `data_dir=${join(pipeline.folder, "data")}`,
            `router.listen=127.0.0.1:${router}`,
            `router.admin_listen=127.0.0.1:${admin}`,
            `controller.listen=127.0.0.1:${api}`,
            `telemetry.listen=127.0.0.1:${telemetry}`,
            "topology.partitions=2",
            ...settings,
        ];
        await pipeline.up();
        return pipeline;
    }

    async up() {
        this.process = run(["up", ...this.settings.flatMap((setting) => ["--set", setting])]);
        for (let left = 600; left > 0; left--) {
            const ready = await fetch(`${this.telemetry}/readyz`).then(
                (answer) => answer.ok,
                () => false,
            );
            if (ready) return;
            await new Promise((done) => setTimeout(done, 100));
        }
        throw new Error(`serin up is not ready: ${this.process.output()}`);
    }

    /** Starts another process that ends with the pipeline. */
    run(...args) {
        const other = run(args);
        this.#others.push(other);
        return other;
    }

    /** Starts a sample model server. Returns its URL. */
    async modelServer(...args) {
        const port = await freePort();
        this.run("model-server", "--listen", `127.0.0.1:${port}`, ...args);
        return `http://127.0.0.1:${port}`;
    }

    async stop() {
        for (const other of this.#others) await other.kill();
        await this.process.kill();
        await rm(this.folder, { recursive: true, force: true });
    }
}
