// The pure parts of the console, without a browser.

import assert from "node:assert/strict";
import { test } from "node:test";
import { build } from "esbuild";

/** Bundles modules of `src` and loads them. */
async function load(...names) {
    const contents = names.map((name) => `export * as ${name.split("/").at(-1)} from "./src/${name}";`).join("\n");
    const { outputFiles } = await build({
        stdin: { contents, resolveDir: new URL("..", import.meta.url).pathname, loader: "ts" },
        bundle: true,
        write: false,
        format: "esm",
        jsx: "automatic",
        jsxImportSource: "preact",
        logLevel: "error",
    });
    return import(`data:text/javascript;base64,${Buffer.from(outputFiles[0].text).toString("base64")}`);
}

// The modules with state look at the address of the page.
globalThis.location = { pathname: "/", search: "" };
globalThis.devicePixelRatio = 1;
globalThis.matchMedia = () => ({ addEventListener() {}, addListener() {} });
globalThis.window = globalThis;
globalThis.navigator ??= { language: "en-US" };
globalThis.document = { createElement: () => ({ style: {} }) };
globalThis.dispatchEvent ??= () => true;
globalThis.addEventListener ??= () => undefined;
const { format, words, route, store, distribution, chart, contrasts, matrix, fleet, plan, rollout } = await load(
    "format",
    "words",
    "route",
    "store",
    "parts/distribution",
    "parts/chart",
    "parts/contrasts",
    "parts/matrix",
    "views/fleet",
    "views/plan",
    "views/rollout",
);

test("numbers have units, and differences have a sign", () => {
    assert.equal(format.value(0.4794, "percent"), "47.9 %");
    assert.equal(format.value(0.079, "percent"), "7.9 %");
    assert.equal(format.value(1023.4, "ms"), "1,023 ms");
    assert.equal(format.value(null, "ms"), "no data");
    assert.equal(format.value(Infinity, "plain"), "no data");
    assert.equal(format.difference(0.05, "percent"), "+5 points");
    assert.equal(format.difference(0.01, "percent"), "+1 point");
    assert.equal(format.difference(-12, "ms"), "−12 ms");
    assert.equal(format.difference(0, "percent"), "0 points");
    assert.equal(format.share(2550), "25.5 %");
    assert.equal(format.rate(880 / 86400), "36.7 calls an hour");
    assert.equal(format.rate(1 / 7200), "12 calls a day");
});

test("durations have their two largest units", () => {
    assert.equal(format.duration(0), "0s");
    assert.equal(format.duration(61), "1m 1s");
    assert.equal(format.duration(86400), "1d");
    assert.equal(format.duration(86400 + 3661), "1d 1h");
});

test("the units of values and of differences follow from kind and source", () => {
    assert.equal(format.valueUnit("rate", "failed"), "percent");
    assert.equal(format.valueUnit({ quantile: { level: 0.99 } }, "latency"), "ms");
    assert.equal(format.valueUnit("distribution", { label_delay: "late" }), "s");
    assert.equal(format.effectUnit({ kind: "distribution", source: "latency" }), "percent");
    assert.equal(format.statistic({ quantile: { level: 0.999 } }), "p99.9");
});

test("every address leads to its view", () => {
    assert.deepEqual(route.parse("/"), { view: "fleet" });
    assert.deepEqual(route.parse("/rollouts/01a2/evidence"), { view: "rollout", id: "01a2", tab: "evidence" });
    assert.deepEqual(route.parse("/models/org%2Fmodel"), { view: "model", model: "org/model" });
    assert.deepEqual(route.parse("/nothing/here"), { view: "unknown" });
    assert.deepEqual(route.parse("/models/%E0%A4"), { view: "model", model: "%E0%A4" });
    assert.equal(route.toModel("org/model"), "/models/org%2Fmodel");
});

test("messages of the stream are folded by id", () => {
    const one = { id: "a", phase: "baking" };
    const known = store.fold(new Map(), { event: "snapshot", data: { rollouts: [one] } });
    const changed = store.fold(known, { event: "rollout", data: { id: "a", phase: "held" } });
    assert.equal(changed.get("a").phase, "held");
    const added = store.fold(changed, { event: "rollout", data: { id: "b", phase: "warming" } });
    assert.deepEqual([...added.keys()], ["b", "a"], "a new rollout comes first");
    assert.deepEqual(
        [...store.fold(added, { event: "snapshot", data: { rollouts: [one] } }).keys()],
        ["a"],
        "a snapshot replaces everything",
    );
    assert.equal(store.fold(added, { event: "time", data: {} }), added);
});

const state = (change) => ({
    spec: {
        model: "m",
        stable: { version: "1" },
        canary: { version: "2" },
        steps: [
            { weight: "5%", bake: {} },
            { weight: "50%", bake: {} },
        ],
        metrics: [{ name: "wrong", kind: "rate", source: {} }],
    },
    phase: "baking",
    step: 0,
    canaryShare: 500,
    mirrorShare: 0,
    ending: null,
    answers: 0,
    ...change,
});
const segment = { dimension: "origin", value: "LGA" };
const failed = {
    metric: "wrong",
    segment,
    role: "gate",
    result: "fail",
    canary: { n: 100, value: 0.5 },
    control: { n: 200, value: 0.1 },
};

test("the finding decides which action comes first, and an ended rollout has none", () => {
    const first = (phase, metrics = []) => words.actions(state({ phase }), { metrics })[0]?.label;
    assert.equal(first("baking"), "Pause");
    assert.equal(first("held"), "Resume");
    assert.equal(first("held", [failed]), "Roll back now");
    assert.equal(first("paused", [failed]), "Roll back now");
    assert.equal(first("held", [{ ...failed, role: "watch" }]), "Resume");
    assert.equal(first("promoted"), "Roll back");
    assert.deepEqual(
        words.actions(state({ phase: "held", hold: { cause: "approval" } }), null).map((one) => one.verb),
        ["approve", "reject"],
    );
    assert.equal(words.actions(state({ phase: "completed", undoUntil: Date.now() + 60_000 }), null)[0].verb, "undo");
    for (const phase of ["completed", "superseded"]) assert.equal(first(phase), undefined);
    for (const phase of ["rolled_back", "aborted"]) assert.equal(first(phase), "Try again");
});

test("a frozen rollout is not moved by hand", () => {
    const verbs = (change) => words.actions(state(change), null).map((one) => one.verb);
    assert.deepEqual(verbs({}), ["pause", "promote", "abort", "set-weight", "freeze"]);
    const freeze = { models: "m*", by: "ann", reason: "incident", until: null };
    assert.deepEqual(verbs({ freeze }), ["pause", "abort", "unfreeze"]);
    assert.equal(words.actions(state({ freeze }), null).at(-1).models, "m*");
    assert.deepEqual(verbs({ phase: "warming" }), ["pause", "abort", "freeze"]);
});

test("a difference outside of its interval is not shown", () => {
    const one = (effect, low, high) =>
        words.shownEffect({
            effect,
            effect_low: low,
            effect_high: high,
            canary: { n: 9, value: 0.3 },
            control: { n: 9, value: 0.1 },
        });
    assert.equal(one(0.1, 0, 0.5), 0.1);
    assert.equal(one(0.6, 0, 0.5).toFixed(2), "0.20", "the difference of the two values, if it is inside");
    assert.equal(one(0.6, 0.3, 0.5), 0.5, "else the end of the interval");
    assert.equal(one(0.6, null, null), 0.6);
    assert.equal(one(null, 0, 1), null);
});

test("every action has a consequence that names the version", () => {
    for (const phase of ["warming", "shadowing", "baking", "held", "promoted", "rolled_back"]) {
        for (const action of words.actions(state({ phase }), null))
            assert.ok(action.consequence.length > 20, `${phase} ${action.verb}`);
    }
});

test("the harm names the segment and the number of answers", () => {
    const verdict = {
        arms: [
            { arm: "canary", predictions: 300 },
            { arm: "control", predictions: 700 },
        ],
        reasons: [failed],
        metrics: [failed],
    };
    assert.equal(
        words.harm(state({}), verdict),
        "version 2 answered 300 of 1,000 compared calls (30 %). About 40 of its 100 answers in origin=LGA would have been better from version 1.",
    );
    assert.equal(
        words.harm(state({}), { ...verdict, reasons: [], metrics: [] }),
        "version 2 answered 300 of 1,000 compared calls (30 %).",
    );
    assert.equal(words.harm(state({}), null), null);
});

test("bins are merged into shares that add up to one, on a logarithmic axis too", () => {
    const bins = [
        { from: 1, to: 1.02, count: 3 },
        { from: 10, to: 10.2, count: 5 },
        { from: 1000, to: 1020, count: 2 },
    ];
    for (const log of [true, false]) {
        const bars = distribution.merged({ type: "histogram", bins }, 1, 1020, log);
        assert.ok(Math.abs(bars.reduce((sum, bar) => sum + bar, 0) - 1) < 1e-9);
    }
    assert.deepEqual(
        distribution.ticks(1, 1000, true).filter((tick) => tick < 1 || tick > 1000),
        [],
    );
    assert.deepEqual(distribution.ticks(0, 1, false), [0, 0.2, 0.4, 0.6000000000000001, 0.8, 1]);
});

test("the chart of the difference shows the margin, and early intervals do not make it flat", () => {
    const [from, to] = chart.effectRange([-900, -1, -1], [900, 1, 1], [0, 0, 0], [2]);
    assert.ok(from < -1 && from > -2 && to > 2 && to < 4);
    assert.deepEqual(chart.flat(0, 0), [0, 1]);
});

test("segments are in the order of names with failures first, or of a metric with the worst first", () => {
    const row = (value, cell) => ({ segment: { dimension: "zip", value }, cells: [cell] });
    const cell = (result, effect) => ({ result, effect, margin: 0.05 });
    const rows = [
        row("10", null),
        row("9", cell("no_data", null)),
        row("2", cell("pass", -0.1)),
        row("1", cell("undecided", 0.04)),
        row("77", cell("fail", 0.2)),
    ];
    const order = (by, worse) => matrix.sorted(rows, by, [worse]).map(({ segment }) => segment.value);
    assert.deepEqual(order(-1, true), ["77", "1", "2", "9", "10"]);
    assert.deepEqual(order(0, true), ["77", "1", "2", "9", "10"]);
    assert.deepEqual(order(0, false), ["77", "2", "1", "9", "10"], "with higher is better");
});

test("a search has words that must and words that must not be there", () => {
    const summary = {
        model: "fraud",
        stable: "1",
        canary: "2",
        phase: "rolled_back",
        headline: { text: "fraud: ROLLED BACK" },
        started_by: "ada",
        id: "01",
    };
    assert.ok(fleet.matches(summary, "FRAUD rolled"));
    assert.ok(!fleet.matches(summary, "fraud -rolled"));
    assert.ok(fleet.matches(summary, ""));
});

test("traffic is read in all units", () => {
    assert.equal(plan.perSecond("600/min"), 10);
    assert.equal(plan.perSecond("10"), 10);
    assert.equal(plan.perSecond("3600/h"), 1);
    for (const wrong of ["", "0/s", "ten", "5/fortnight"]) assert.equal(plan.perSecond(wrong), null);
});

test("a series stays bounded and keeps the starts of steps", () => {
    let points = [];
    for (let at = 0; at < 5000; at++) points = rollout.append(points, { as_of: at, step: at < 10 ? 0 : 1 });
    assert.ok(points.length <= 600);
    assert.equal(points.at(-1).as_of, 4999);
    assert.ok(points.some((point) => point.as_of === 10));
    assert.equal(rollout.append(points, { as_of: 4999, step: 1 }), points, "an older point changes nothing");
});

test("a search for contrasts is offered where there is something to find", () => {
    const state = (change) => ({ hold: null, ending: null, ...change });
    const verdict = (result) => ({ metrics: [{ result }] });
    assert.ok(contrasts.inDoubt(state({ hold: { cause: "marginal" } }), null));
    assert.ok(contrasts.inDoubt(state({ ending: { outcome: "inconclusive" } }), null));
    assert.ok(contrasts.inDoubt(state({}), verdict("fail")));
    assert.ok(!contrasts.inDoubt(state({}), null));
    assert.ok(!contrasts.inDoubt(state({}), verdict("undecided")));
    assert.ok(!contrasts.inDoubt(state({ ending: { outcome: "promoted" } }), verdict("pass")));
});

test("the multiplicity of a search is in words, also when nothing could be looked at", () => {
    const found = (looked, too_few) => contrasts.looked({ looked, too_few, level: 0.05 });
    assert.match(found(40, 3), /^Looked at 40 contrasts, once. 3 more had too few answers. .* at most 0.00125.$/);
    assert.match(found(1, 0), /^Looked at 1 contrast, once. A lead/);
    assert.match(found(1_000_000, 0), /1,000,000 \(Bonferroni\), so p alone is at most 5e-8.$/);
    assert.equal(found(0, 3), "No contrast had enough answers; 3 had too few.");
    assert.deepEqual([1, 0.02, 5.4e-10, 0].map(contrasts.probability), ["1.000", "0.020", "5e-10", "< 1e-300"]);
});
