// A controller without a pipeline, for development and tests of the console: recorded JSON behind the routes of docs/api.md.
//
//     node mock/server.mjs [--port 8180] [--tokens] [--rollouts 1000] [--dist FOLDER] [--live MILLISECONDS]
//
// `--live` replays the verdicts of one rollout in a loop. Tests drive the server by POST /mock/...

import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { readFile } from "node:fs/promises";
import { dirname, extname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { gzipSync } from "node:zlib";
import { contrasts } from "./contrasts.mjs";

const here = dirname(fileURLToPath(import.meta.url));
const TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
};
const CSP =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/** A captured pair, as in the golden example of its schema. */
const example = {
    request_id: "0198f3c4-0000-7000-8000-000000000001",
    at: 1357056001000000,
    reason: "disagreement",
    differences: ["late: 0.18 against 0.93"],
    request: '{"inputs":[{"name":"origin","data":["LGA"]}]}',
    request_bytes: 44,
    live: {
        version: "v2",
        arm: "control",
        status: 200,
        error: null,
        latency_us: 4100,
        body: '{"outputs":[{"name":"probability","data":[0.18]}]}',
        bytes: 50,
    },
    shadow: { version: "v3", arm: "shadow", status: null, error: "timeout", latency_us: null, body: null, bytes: 0 },
};
const TOKENS = { "operator-token-of-the-mock": ["ada", "operator"], "viewer-token-of-the-mock": ["vic", "viewer"] };
const json = async (name) => JSON.parse(await readFile(join(here, name), "utf8"));
const micros = () => Date.now() * 1000;

/** Starts the server. Returns its URL and a function that ends it. */
export async function start({
    port = 0,
    tokens = false,
    rollouts = 0,
    dist = join(here, "..", "dist"),
    live = 0,
} = {}) {
    const [recorded, forecast] = [await json("recorded.json"), await json("forecast.json")];
    const known = fleet(recorded, rollouts);
    const streams = new Set();
    const sessions = new Map();
    const send = (stream, event, data) =>
        stream.response.write(`event: ${event}\nid: ${Date.now()}\ndata: ${JSON.stringify(data)}\n\n`);
    const changed = (one) => {
        for (const stream of streams) {
            send(stream, "rollout", summary(one));
            if (stream.id === one.state.id) {
                send(stream, "state", view(one));
                if (one.verdicts.length > 0) send(stream, "verdict", point(one.verdicts.at(-1), one));
            }
        }
    };
    const find = (id) => known.get(id) ?? [...known.values()].find((one) => one.state.spec.model === id);

    /** The next recorded verdict of the rollout that runs, with times that go on. */
    const advance = () => {
        const one = find("search");
        const source = one.source[one.at % one.source.length];
        one.at += 1;
        const verdict = structuredClone(source);
        Object.assign(verdict, {
            rollout: one.state.id,
            model: "search",
            id: `mock-${one.at}`,
            as_of: one.verdicts.at(-1).as_of + 21_600_000_000,
            decision: "continue",
            reasons: [],
        });
        verdict.step = one.state.step;
        for (const arm of verdict.arms)
            arm.predictions =
                (one.verdicts.at(-1).arms.find((old) => old.arm === arm.arm)?.predictions ?? 0) +
                (arm.arm === "canary" ? 55 : arm.arm === "control" ? 165 : 0);
        verdict.metrics.forEach((metric) => {
            metric.result = metric.result === "fail" ? "undecided" : metric.result;
            metric.failed_at = null;
        });
        one.verdicts.push(verdict);
        one.state.verdict = { id: verdict.id, asOf: verdict.as_of, decision: "continue" };
        one.state.answers += 55;
        changed(one);
    };

    const act = (one, verb, { reason, weight }, actor) => {
        const { state } = one;
        const done = ["completed", "rolled_back", "aborted", "superseded"].includes(state.phase);
        if (done && verb === "retry")
            return [201, { rollout: state.id, refused: false, sentence: `tried again by ${actor}: ${reason}` }];
        if (done)
            return [
                409,
                { refused: true, sentence: "the rollout has ended", error: "the rollout has ended", code: "refused" },
            ];
        if (verb === "pause") Object.assign(state, { phase: "paused", pause: { by: actor, since: micros() } });
        else if (verb === "resume") Object.assign(state, { phase: "baking", pause: null, hold: null });
        else if (verb === "abort")
            Object.assign(state, {
                phase: "aborted",
                canaryShare: 0,
                hold: null,
                ending: {
                    outcome: "aborted",
                    reasons: [],
                    sentence: `aborted by ${actor}: ${reason}`,
                    at: state.verdict.asOf,
                    actor,
                },
            });
        else if (verb === "promote")
            state.step < state.spec.steps.length - 1
                ? Object.assign(state, { phase: "baking", step: state.step + 1, canaryShare: 5000, hold: null })
                : Object.assign(state, { phase: "completed", canaryShare: 10000, promoted: true });
        else if (verb === "set-weight" && weight)
            Object.assign(state, { phase: "baking", canaryShare: 100 * Number.parseFloat(weight), hold: null });
        else if (verb === "freeze")
            state.freeze = { models: state.spec.model, by: actor, reason, since: micros(), until: null };
        else if (verb === "unfreeze") delete state.freeze;
        else return [404, { error: `there is no action ${verb}`, code: "not_found" }];
        state.sentence = `${verb} by ${actor}: ${reason}`;
        const kind = {
            pause: "paused",
            resume: "resumed",
            abort: "aborted",
            promote: "advanced",
            "set-weight": "advanced",
            freeze: "frozen",
            unfreeze: "unfrozen",
        }[verb];
        one.events.push({
            id: `mock-${one.events.length}`,
            kind,
            phase: state.phase,
            step: state.step,
            canary_share: state.canaryShare,
            at: state.verdict.asOf,
            recorded_at: micros(),
            actor,
            sentence: state.sentence,
            rollout: state.id,
        });
        changed(one);
        return [
            200,
            {
                rollout: state.id,
                refused: false,
                sentence: state.sentence,
                applied: {
                    generation: 1,
                    done: true,
                    routers: ["router-0"],
                    waits_for: "",
                    soon: false,
                    refused: false,
                },
            },
        ];
    };

    const server = createServer(async (request, response) => {
        const url = new URL(request.url, "http://mock");
        const parts = url.pathname.split("/").filter(Boolean).map(decodeURIComponent);
        const answer = (status, body, headers = {}) =>
            response
                .writeHead(status, {
                    "content-type": status < 400 ? "application/json" : "application/problem+json",
                    ...headers,
                })
                .end(JSON.stringify(body));
        const problem = (status, code, error) => answer(status, { status, code, error, detail: error });
        const body = async () => {
            let text = "";
            for await (const part of request) text += part;
            return text;
        };
        const cookie = /serin_session=([^;]+)/.exec(request.headers.cookie ?? "")?.[1];
        const who = tokens ? sessions.get(cookie) : ["local", "operator"];
        const session = () => ({
            signed_in: !!who,
            name: who?.[0] ?? null,
            role: who?.[1] ?? null,
            by: who ? (tokens ? "cookie" : "local") : null,
            ends_at: null,
            tokens,
            build: "mock",
        });

        if (parts[0] === "mock" && request.method === "POST") {
            if (parts[1] === "verdict")
                for (let left = Number(url.searchParams.get("n") ?? 1); left > 0; left--) advance();
            if (parts[1] === "drop") {
                for (const stream of streams) stream.response.destroy();
                streams.clear();
            }
            if (parts[1] === "touch")
                for (const one of [...known.values()].slice(0, Number(url.searchParams.get("n"))))
                    for (const stream of streams) send(stream, "rollout", summary(one));
            return answer(200, {});
        }
        if (parts[0] !== "v1") {
            const file = parts[0] === "console" ? parts[1] : "index.html";
            const content = await readFile(join(dist, file)).catch(() => null);
            if (content === null) return problem(404, "not_found", "there is no such file");
            return response
                .writeHead(200, {
                    "content-type": TYPES[extname(file)],
                    "content-encoding": "gzip",
                    "content-security-policy": CSP,
                    "cache-control": "no-cache",
                    "x-content-type-options": "nosniff",
                    "referrer-policy": "no-referrer",
                })
                .end(gzipSync(content));
        }
        if (parts[1] === "session") {
            if (request.method === "GET") return answer(200, session());
            if (request.method === "DELETE") {
                sessions.delete(cookie);
                return answer(
                    200,
                    { ...session(), signed_in: false, name: null, role: null },
                    { "set-cookie": "serin_session=; Max-Age=0; Path=/" },
                );
            }
            const user = TOKENS[JSON.parse(await body()).token];
            if (!user) return problem(401, "unknown_token", "the token is not known; use one of controller.tokens");
            const id = randomUUID();
            sessions.set(id, user);
            return answer(
                200,
                { signed_in: true, name: user[0], role: user[1], by: "cookie", ends_at: null, tokens, build: "mock" },
                { "set-cookie": `serin_session=${id}; HttpOnly; SameSite=Strict; Path=/` },
            );
        }
        if (!who) return problem(401, "unauthenticated", "sign in");
        if (request.method === "POST" && who[1] !== "operator" && parts[1] !== "plan")
            return problem(403, "forbidden", "the role viewer may not change anything");
        if (parts[1] === "stream") {
            const id = url.searchParams.get("rollout");
            const one = id && find(id);
            response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
            const stream = { response, id: one?.state.id };
            streams.add(stream);
            request.on("close", () => streams.delete(stream));
            response.write("retry: 500\n\n");
            send(stream, "snapshot", { now: micros(), rollouts: [...known.values()].map(summary) });
            send(stream, "time", { now: micros(), read: true });
            if (one) {
                send(stream, "state", view(one));
                if (one.verdicts.length > 0) send(stream, "verdict", point(one.verdicts.at(-1), one));
            }
            return;
        }
        if (parts[1] === "routing")
            return answer(
                200,
                [...known.values()].slice(0, 8).map(({ state }) => ({
                    model: state.spec.model,
                    generation: state.generation,
                    fallback: false,
                    reason: state.sentence,
                    decided_at: micros(),
                    routes: [
                        { arm: "stable", share: 10000 - state.canaryShare, version: state.spec.stable.version },
                        ...(state.canaryShare
                            ? [{ arm: "canary", share: state.canaryShare, version: state.spec.canary.version }]
                            : []),
                    ],
                })),
            );
        if (parts[1] === "plan") {
            const text = await body();
            const bad = !text.includes("apiVersion");
            if (bad)
                return answer(200, {
                    valid: false,
                    problems: [
                        {
                            severity: "error",
                            path: "apiVersion",
                            line: 1,
                            column: 1,
                            message: '"apiVersion" is missing',
                            wayOut: "add it: Always `serin.dev/v1`.",
                        },
                    ],
                    spec: null,
                    serving: null,
                    running: null,
                    forecast: null,
                    forecast_error: null,
                });
            return answer(200, {
                valid: true,
                problems: [],
                spec: recorded.segment.state.spec,
                serving: "v2",
                running: null,
                forecast: url.searchParams.has("per_second") ? forecast : null,
                forecast_error: null,
            });
        }
        if (parts[1] === "stop-all") {
            for (const one of known.values()) act(one, "abort", { reason: "stop all" }, who[0]);
            return answer(200, { refused: false, sentence: "all rollouts have stopped; all traffic is on stable" });
        }
        if (parts[1] === "freeze" || parts[1] === "unfreeze") {
            const { models, reason } = JSON.parse(await body());
            const [status, found] = act(find(models), parts[1], { reason }, who[0]);
            return answer(status, found);
        }
        if (parts[1] !== "rollouts") return problem(404, "not_found", "there is no such path");
        if (parts.length === 2)
            return request.method === "POST"
                ? answer(201, { rollout: [...known.keys()][0], refused: false, sentence: "the rollout has started" })
                : answer(
                      200,
                      [...known.values()].map((one) => one.state),
                  );
        const one = find(parts[2]);
        if (!one) return problem(404, "unknown_rollout", `there is no rollout ${JSON.stringify(parts[2])}`);
        if (request.method === "POST") {
            const [status, found] = act(one, parts[3], JSON.parse(await body()), who[0]);
            return answer(status, found);
        }
        const after = Number(url.searchParams.get("after") ?? 0);
        const found = {
            undefined: () => view(one),
            verdict: () => one.verdicts.at(-1),
            verdicts: () => ({
                format: "serin.verdicts/v1",
                seen: one.verdicts.length,
                every: 1,
                complete: true,
                note: null,
                points: one.verdicts.slice(-200).map((verdict) => point(verdict, one)),
            }),
            segments: () => matrix(one.verdicts.at(-1)),
            events: () => ({ events: one.events.slice(after), next: one.events.length }),
            profile: () => one.profile,
            contrasts: () => contrasts(one),
            examples: () => (one.state.phase === "held" ? [example] : []),
        }[parts[3]]?.();
        return found ? answer(200, found) : problem(404, "no_verdict", "there is no verdict yet");
    });
    await new Promise((ready) => server.listen(port, "127.0.0.1", ready));
    const timers = [
        setInterval(() => {
            for (const stream of streams) send(stream, "time", { now: micros(), read: true });
        }, 2000),
    ];
    if (live > 0) timers.push(setInterval(advance, live));
    const stop = () => {
        timers.forEach(clearInterval);
        server.closeAllConnections();
        return new Promise((ended) => server.close(ended));
    };
    return { url: `http://127.0.0.1:${server.address().port}`, stop };
}

/** The recorded rollouts, others that are made from them, and as many copies as wanted. */
function fleet(recorded, copies) {
    const { promoted, segment, latency } = recorded;
    const all = [];
    const derive = (base, model, id, verdicts, change) => {
        const one = structuredClone(base);
        one.verdicts = one.verdicts.slice(0, verdicts);
        const last = one.verdicts.at(-1);
        Object.assign(
            one.state,
            {
                id,
                ending: null,
                step: last?.step ?? -1,
                generation: last?.generation ?? 1,
                applied: { ...one.state.applied },
                verdict: last ? { id: last.id, asOf: last.as_of, decision: last.decision } : null,
            },
            change,
        );
        one.state.spec.model = model;
        one.events = one.events
            .filter((event) => !last || event.at <= last.as_of)
            .map((event) => ({ ...event, model, rollout: id }));
        all.push(one);
        return one;
    };
    const clock = (one, spent) => ({ clock: { spent: spent * 1e6, since: null }, answers: 380 });
    const lastOf = (base, count) => base.verdicts[count - 1].as_of;
    derive(latency, "churn", "01a22fb1-0000-7000-8000-000000000001", 17, {
        phase: "held",
        canaryShare: 2500,
        ...clock(latency, 172800),
        hold: { cause: "marginal", since: lastOf(latency, 15) },
        sentence:
            "marginal after 20d: the canary's rate of wrong answers is 9.2 % against 8.6 %, not yet known to be within or beyond 5 points",
    });
    const hurt = derive(segment, "fraud", "01a22fb1-0000-7000-8000-000000000002", 18, {
        phase: "held",
        canaryShare: 5000,
        ...clock(segment, 172800),
        hold: { cause: "health", since: lastOf(segment, 16) },
        sentence:
            "the canary has 31.4 % of the compared answers (98 against 214), not the configured 50 %; certain since 2013-05-09T12:00:00Z",
    });
    Object.assign(hurt.verdicts.at(-1), {
        decision: "hold",
        reasons: [],
        metrics: hurt.verdicts.at(-1).metrics.map((one) =>
            one.result === "fail"
                ? {
                      ...one,
                      result: "undecided",
                      failed_at: null,
                      sentence: one.sentence.replace(
                          /at least 5 points worse.*/,
                          "not yet known to be within or beyond 5 points",
                      ),
                  }
                : one,
        ),
    });
    hurt.verdicts.at(-1).health = [
        { reason: "sample_ratio", policy: "hold", sentence: hurt.state.sentence },
        {
            reason: "events_lost",
            policy: "warn",
            sentence: "120 events of the canary were lost by their writers since the last verdict",
        },
    ];
    derive(promoted, "pricing", "01a22fb1-0000-7000-8000-000000000003", 20, {
        phase: "paused",
        canaryShare: 2500,
        pause: { by: "ada", since: lastOf(promoted, 20) },
        ...clock(promoted, 86400),
        sentence: "paused by ada: waits for the release notes",
    });
    const live = derive(latency, "search", "01a22fb1-0000-7000-8000-000000000004", 16, {
        phase: "baking",
        canaryShare: 2500,
        ...clock(latency, 43200),
        sentence: "step 2 of 3: 25% to v4: nothing has failed in 9 checks; this step requires no more",
    });
    Object.assign(live, { source: latency.verdicts.slice(14), at: 0 });
    derive(promoted, "ranking", "01a22fb1-0000-7000-8000-000000000005", 6, {
        phase: "warming",
        canaryShare: 0,
        step: -1,
        sentence: "v1 -> v2: learning from at least 2000 answers of v1 before the first canary request",
    });
    all.push(...[latency, segment, promoted].map((one) => structuredClone(one)));
    all.push(large(segment));
    const bases = [promoted, segment, latency];
    for (let index = 0; index < copies; index++) {
        const base = bases[index % 3];
        const state = {
            ...base.state,
            id: `01a22fc0-0000-7000-8000-${String(index).padStart(12, "0")}`,
            spec: { ...base.state.spec, model: `model-${index % 200}` },
        };
        all.push({
            ...base,
            state: index % 5 === 0 ? { ...state, phase: "baking", ending: null, canaryShare: 2500 } : state,
        });
    }
    return new Map(all.map((one) => [one.state.id, one]));
}

/** A rollout with everything large: its name, 60 metrics of all kinds, 500 segments. */
function large(base) {
    const one = structuredClone(base);
    const last = one.verdicts.at(-1);
    const { state } = one;
    Object.assign(state, { id: "01a22fb1-0000-7000-8000-000000000009", phase: "rolled_back" });
    Object.assign(state.spec, {
        model: "an-organization/a-model-with-a-very-long-name-that-is-longer-than-any-column-of-the-page",
        canary: { version: "2026-12-01T03-26-14Z-candidate-with-a-long-tag" },
    });
    const kinds = [
        "rate",
        "distribution",
        "classes",
        "count",
        "disagreement",
        { mean: { min: 0, max: 1 } },
        { capped_mean: { cap: 10 } },
        { quantile: { level: 0.999 } },
    ];
    const [gate, ...others] = state.spec.metrics;
    const many = Array.from({ length: 52 }, (_, index) => ({
        ...gate,
        name: `a_metric_with_a_long_name_number_${index}`,
        kind: kinds[index % 8],
        direction: index % 2 ? "higher_is_better" : "lower_is_better",
    }));
    state.spec.metrics = [gate, ...others, ...many];
    const found = last.metrics.filter((metric) => metric.segment.dimension === "");
    last.metrics.push(
        ...many.map((metric, index) => ({
            ...found[index % found.length],
            metric: metric.name,
            ...(index % 5 === 0 ? { limit_pass: 0.1, limit_fail: 0.2 } : {}),
        })),
    );
    const judged = last.metrics.find((metric) => metric.segment.value === "JFK");
    for (let value = 0; value < 500; value++) {
        for (const metric of ["wrong_rate", ...many.slice(0, 3).map(({ name }) => name)]) {
            last.metrics.push({
                ...judged,
                metric,
                segment: { dimension: "postal_code", value: String(10_000 + value) },
                effect: ((value * 7919) % 500) / 5000,
                result: value === 77 ? "fail" : "undecided",
            });
        }
    }
    const values = {
        rate: { type: "share", events: 3, share: 0.1 },
        classes: { type: "classes", classes: { cat: 50, dog: 30, "a class with a long name": 5 }, other: 3 },
        disagreement: { type: "pairs", differ: 4, share: 0.02 },
        count: { type: "events", events: 12, per_answer: 0.4 },
    };
    // Mirrored answers only, and an answer that was read in part.
    one.profile.profiles.find((arm) => arm.arm === "canary").arm = "shadow";
    Object.assign(one.profile, {
        left_out: 1200,
        read: { note: "windows: only the newest 100,000 records were read" },
    });
    one.profile.profiles.forEach((arm) =>
        arm.metrics.push(
            ...many.slice(0, 8).map((metric) => ({
                metric: metric.name,
                unit: null,
                segment: null,
                count: 88,
                distribution: values[metric.kind] ?? { type: "moments", mean: 1, variance: 2 },
            })),
        ),
    );
    return one;
}

const percent = (share) => `${share / 100}%`;

function headline({ spec, phase, step, canaryShare, pause }) {
    const [stable, canary, at] = [spec.stable.version, spec.canary.version, `step ${step + 1} of ${spec.steps.length}`];
    return {
        warming: ["plain", `warming up: ${canary} gets no calls yet`],
        baking: ["plain", `${canary} gets ${percent(canaryShare)} of the calls, ${at}`],
        held: ["open", `HELD with ${canary} at ${percent(canaryShare)}, ${at}`],
        paused: ["open", `PAUSED by ${pause?.by} with ${canary} at ${percent(canaryShare)}, ${at}`],
        completed: ["good", `PROMOTED: ${canary} serves all calls`],
        rolled_back: ["bad", `ROLLED BACK: ${canary}; all calls go to ${stable}`],
        aborted: ["bad", `ABORTED: ${canary}; all calls go to ${stable}`],
    }[phase];
}

function progress(state) {
    const baked = { name: "Baked", text: "12h, at least 1d, at most 20d (then it is held)" };
    return (
        {
            warming: [
                { name: "Warm-up", text: "1320 of 2000 good answers of v1 in 1d 6h" },
                {
                    name: "Next",
                    text: "the first step, 10%, starts in 18h at the earliest, at 2013-01-03 18:00:00 UTC",
                },
            ],
            baking: [
                baked,
                { name: "Next", text: "50% to v4, in 12h at the earliest, at 2013-05-09 18:00:00 UTC" },
                { name: "Missing", text: "12h of bake.min; 1 check" },
                { name: "", text: "latency_p99: not yet known to be within or beyond 27 ms" },
            ],
            held: [
                {
                    name: "Held",
                    text: `for 12h; it continues by itself when ${state.hold?.cause === "health" ? "the evidence is sound again" : "there is enough evidence"}; in 12h it is rolled back as inconclusive (decision.holdMax)`,
                },
                baked,
            ],
            paused: [
                {
                    name: "Paused",
                    text: "the step's clock is stopped; evidence against the canary still rolls it back",
                },
                baked,
            ],
        }[state.phase] ?? []
    );
}

function view(one) {
    const [tone, text] = headline(one.state);
    return {
        ...one.state,
        headline: { tone, text: `${one.state.spec.model}: ${text}` },
        progress: progress(one.state),
    };
}

function summary(one) {
    const { state, verdicts, events } = one;
    const [tone, text] = headline(state);
    const last = verdicts.at(-1);
    return {
        id: state.id,
        model: state.spec.model,
        stable: state.spec.stable.version,
        canary: state.spec.canary.version,
        mode: "act",
        phase: state.phase,
        step: state.step,
        steps: state.spec.steps.length,
        canary_share: state.canaryShare,
        mirror_share: 0,
        control_share: state.controlShare,
        promoted: state.promoted,
        started_at: state.startedAt,
        recorded_at: events.at(-1)?.recorded_at ?? 0,
        started_by: "operator",
        hold: state.hold,
        paused_by: state.pause?.by ?? null,
        headline: { tone, text: `${state.spec.model}: ${text}` },
        sentence: state.sentence,
        outcome: state.ending?.outcome ?? null,
        events: events.length,
        verdict: last
            ? {
                  id: last.id,
                  as_of: last.as_of,
                  recorded_at: 0,
                  decision: last.decision,
                  failed: last.metrics.filter((one) => one.result === "fail").map((one) => one.metric),
                  issues: last.health.length,
              }
            : null,
        needs:
            state.phase === "paused"
                ? "resume"
                : state.phase === "held"
                  ? state.hold.cause === "marginal"
                      ? "decision"
                      : "evidence"
                  : null,
    };
}

function point(verdict, one) {
    const shares = [0, 1000, 2500, 5000];
    return {
        id: verdict.id,
        as_of: verdict.as_of,
        recorded_at: verdict.as_of,
        step: verdict.step,
        generation: verdict.generation,
        canary_share: shares[verdict.step + 1] ?? one.state.canaryShare,
        decision: verdict.decision,
        sentence: verdict.sentence,
        arms: verdict.arms.map(({ arm, predictions }) => ({ arm, predictions })),
        score_low: verdict.score_low,
        score_high: verdict.score_high,
        metrics: verdict.step < 0 ? [] : verdict.metrics.filter((metric) => metric.segment.dimension === ""),
    };
}

function matrix(verdict) {
    if (!verdict) return null;
    const metrics = [...new Set(verdict.metrics.map((metric) => metric.metric))];
    const segments = [
        ...new Map(verdict.metrics.map(({ segment }) => [`${segment.dimension}=${segment.value}`, segment])).values(),
    ];
    const rows = segments.map((segment) => ({
        segment,
        cells: metrics.map(
            (name) =>
                verdict.metrics.find(
                    (one) =>
                        one.metric === name &&
                        one.segment.dimension === segment.dimension &&
                        one.segment.value === segment.value,
                ) ?? null,
        ),
    }));
    return {
        rollout: verdict.rollout,
        as_of: verdict.as_of,
        metrics,
        rows: rows.sort((a, b) => a.segment.dimension.length - b.segment.dimension.length),
    };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
    const { values } = parseArgs({
        options: {
            port: { type: "string", default: "8180" },
            tokens: { type: "boolean", default: false },
            rollouts: { type: "string", default: "0" },
            dist: { type: "string" },
            live: { type: "string", default: "0" },
        },
    });
    const { url } = await start({
        port: Number(values.port),
        tokens: values.tokens,
        rollouts: Number(values.rollouts),
        live: Number(values.live),
        ...(values.dist ? { dist: values.dist } : {}),
    });
    console.log(`mock controller: ${url}`);
}
