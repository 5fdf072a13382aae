// Check a rollout file before anything starts: its problems, how long it takes, what it can detect and what it may harm. Start it from here.

import { signal } from "@preact/signals";
import { useState } from "preact/hooks";
import * as api from "../api";
import * as format from "../format";
import { ask, ReadOnly } from "../parts/act";
import { explain, Failure, Scroll, Section } from "../parts/ui";
import { go, toRollout } from "../route";
import { mayAct } from "../store";
import type { Answer, Course, Forecast, Plan, Spec } from "../types";

// Kept while other views are open.
const text = signal("");
const traffic = signal("");
const plan = signal<Plan | null>(null);

/** Requests per second of `600/min`, `10/s`, `3600/h` or a number; null if it cannot be read. */
export function perSecond(text: string): number | null {
    const found = /^\s*(\d+(?:\.\d+)?)\s*(?:\/\s*(s|sec|second|min|m|minute|h|hour|d|day))?\s*$/.exec(text);
    if (!found) return null;
    const unit = (found[2] ?? "s")[0]!;
    const rate = Number(found[1]) / { s: 1, m: 60, h: 3600, d: 86400 }[unit]!;
    return rate > 0 ? rate : null;
}

export function PlanView() {
    const [busy, setBusy] = useState(false);
    const [error, setError] = useState<string | null>(null);
    const rate = perSecond(traffic.value);
    const check = async (event?: Event) => {
        event?.preventDefault();
        if (text.value.trim() === "") return setError("Paste a rollout file, or open one.");
        if (traffic.value.trim() !== "" && rate === null)
            return setError("Write the traffic as 600/min, 10/s or 3600/h.");
        setBusy(true);
        setError(null);
        try {
            plan.value = await api.postText<Plan>(`/v1/plan${rate === null ? "" : `?per_second=${rate}`}`, text.value);
        } catch (error) {
            plan.value = null;
            setError(explain(error));
        }
        setBusy(false);
    };
    const read = async (event: Event) => {
        const file = (event.currentTarget as HTMLInputElement).files?.[0];
        if (file) {
            text.value = await file.text();
            plan.value = null;
        }
    };
    const edit = (value: string) => {
        text.value = value;
        plan.value = null;
    };
    const found = plan.value;
    return (
        <>
            <h1>Plan a rollout</h1>
            <form class="panel" onSubmit={check}>
                <label>
                    Rollout file (YAML or JSON)
                    <textarea
                        id="file"
                        rows={16}
                        spellcheck={false}
                        value={text.value}
                        onInput={(event) => edit(event.currentTarget.value)}
                        placeholder={"apiVersion: serin.dev/v1\nkind: Rollout\nmodel: fraud\n…"}
                    />
                </label>
                <div class="filters">
                    <label>
                        Open a file
                        <input type="file" accept=".yaml,.yml,.json" onChange={read} />
                    </label>
                    <label>
                        Calls of the model
                        <input
                            value={traffic.value}
                            placeholder="600/min"
                            onInput={(event) => (traffic.value = event.currentTarget.value)}
                        />
                    </label>
                    <button type="submit" class="primary" disabled={busy}>
                        {busy ? "Checking …" : "Check"}
                    </button>
                </div>
                <Failure error={error} />
            </form>
            {found && <Result plan={found} />}
        </>
    );
}

function Result({ plan: found }: { plan: Plan }) {
    const errors = found.problems.filter((one) => one.severity === "error").length;
    return (
        <>
            <Section
                title={
                    found.valid
                        ? found.problems.length === 0
                            ? "The file is valid"
                            : "The file is valid, with warnings"
                        : `The file has ${errors === 1 ? "1 problem" : `${errors} problems`}`
                }
                id="problems"
            >
                <ul class="issues">
                    {found.problems.map((one) => (
                        <li
                            key={`${one.path} ${one.message}`}
                            class={one.severity === "error" ? "tone-bad" : "tone-open"}
                        >
                            <strong>
                                {one.severity}
                                {one.line ? `, line ${one.line}, column ${one.column ?? 1}` : ""}
                                {one.path ? `, ${one.path}` : ""}:
                            </strong>{" "}
                            {one.message}
                            {one.wayOut && <span class="dim">; {one.wayOut}</span>}
                        </li>
                    ))}
                </ul>
                {found.spec && <Start spec={found.spec} plan={found} />}
            </Section>
            {found.spec && <Steps spec={found.spec} />}
            {found.forecast && found.spec ? (
                <Forecasted forecast={found.forecast} spec={found.spec} />
            ) : (
                found.valid && (
                    <p class="notice">
                        {found.forecast_error ??
                            "Write how many calls the model gets, to see how long the rollout takes and what it can detect."}
                    </p>
                )
            )}
        </>
    );
}

function Start({ spec, plan: found }: { spec: Spec; plan: Plan }) {
    if (!mayAct.value) return <ReadOnly />;
    const old = found.serving !== null && found.serving !== spec.stable.version;
    const start = () =>
        ask({
            title: `Start: ${spec.model}, ${spec.stable.version} → ${spec.canary.version}`,
            label: "Start the rollout",
            danger: false,
            consequence:
                `${spec.canary.version} gets calls of ${spec.model} after warm-up, first ${spec.steps[0] ? format.step(spec.steps[0]) : "none"}.` +
                (found.running
                    ? " Another rollout of this model is running: the file's concurrency decides whether this one is refused, waits or replaces it."
                    : ""),
            command: () => "serin apply -f rollout.yaml",
            send: async () => api.postText<Answer>("/v1/rollouts?wait_ms=10000", text.value),
            done: (answer) => answer.rollout && go(toRollout(answer.rollout)),
        });
    return (
        <>
            {old && (
                <p class="notice">
                    The file's stable version is {spec.stable.version}, but {found.serving} serves now.
                </p>
            )}
            <div class="buttons">
                <button type="button" class="primary" onClick={start}>
                    Start the rollout …
                </button>
            </div>
        </>
    );
}

function Steps({ spec }: { spec: Spec }) {
    return (
        <Section title="Steps" id="steps">
            <Scroll label="Steps">
                <table>
                    <thead>
                        <tr>
                            <th scope="col">step</th>
                            <th scope="col">canary gets</th>
                            <th scope="col">at least</th>
                            <th scope="col">at most</th>
                            <th scope="col">requires</th>
                        </tr>
                    </thead>
                    <tbody>
                        {spec.steps.map((step, index) => (
                            <tr key={index}>
                                <th scope="row">{index + 1}</th>
                                <td>{format.step(step)}</td>
                                <td>{step.bake.min}</td>
                                <td>{step.bake.max}</td>
                                <td>{(step.require ?? "pass").replaceAll("_", " ")}</td>
                            </tr>
                        ))}
                    </tbody>
                </table>
            </Scroll>
        </Section>
    );
}

const end = (course: Course) =>
    ({ promoted: "is promoted", rolled_back: "is rolled back", held: "is held" })[course.end] ??
    course.end.replaceAll("_", " ");

function Forecasted({ forecast, spec }: { forecast: Forecast; spec: Spec }) {
    const unit = (name: string) => {
        const metric = spec.metrics.find((one) => one.name === name);
        return metric ? format.valueUnit(metric.kind, metric.source) : "plain";
    };
    const percent = (share: number) => (share >= 0.995 ? "nearly all" : `${format.significant(share * 100)} %`);
    return (
        <Section
            title="Forecast"
            id="forecast"
            aside={
                <span class="dim small">
                    {format.rate(forecast.requests_per_second)}, {forecast.hypotheses} checks share the false-rollback
                    budget
                </span>
            }
        >
            <p>
                A canary equal to {spec.stable.version} {end(forecast.healthy)} after{" "}
                <strong>{format.duration(forecast.healthy.seconds)}</strong> and{" "}
                {format.count(forecast.healthy.canary_requests)} calls ({percent(forecast.healthy.share)} of such
                canaries without an operator).
            </p>
            <h3>If the canary is worse</h3>
            <Scroll label="Regressions">
                <table>
                    <thead>
                        <tr>
                            <th scope="col">metric</th>
                            <th scope="col" class="num">
                                stable
                            </th>
                            <th scope="col" class="num">
                                canary
                            </th>
                            <th scope="col">what happens</th>
                            <th scope="col" class="num">
                                after
                            </th>
                            <th scope="col" class="num">
                                calls it answers
                            </th>
                            <th scope="col" class="num">
                                additional bad answers
                            </th>
                        </tr>
                    </thead>
                    <tbody>
                        {forecast.regressions.map((one) => (
                            <tr key={one.metric}>
                                <th scope="row">{one.metric}</th>
                                <td class="num">{format.value(one.stable, unit(one.metric))}</td>
                                <td class="num">{format.value(one.canary, unit(one.metric))}</td>
                                <td>
                                    {end(one.course)}
                                    {one.course.step >= 0 ? `, step ${one.course.step + 1}` : ""}
                                </td>
                                <td class="num">{format.duration(one.course.seconds)}</td>
                                <td class="num">{format.count(one.course.canary_requests)}</td>
                                <td class="num">{one.extra_events === null ? "" : format.count(one.extra_events)}</td>
                            </tr>
                        ))}
                    </tbody>
                </table>
            </Scroll>
            <h3>Smallest regression that a step detects before its end</h3>
            <Scroll label="Detectable regressions">
                <table>
                    <thead>
                        <tr>
                            <th scope="col">step</th>
                            <th scope="col">metric</th>
                            <th scope="col" class="num">
                                stable
                            </th>
                            <th scope="col" class="num">
                                fails beyond
                            </th>
                            <th scope="col" class="num">
                                detectable
                            </th>
                        </tr>
                    </thead>
                    <tbody>
                        {forecast.steps.flatMap((step) =>
                            step.metrics.map((one) => (
                                <tr key={`${step.step} ${one.metric}`}>
                                    <th scope="row">
                                        {step.step + 1}: {format.value(step.weight, "percent")}
                                    </th>
                                    <td>{one.metric}</td>
                                    <td class="num">{format.value(one.stable, unit(one.metric))}</td>
                                    <td class="num">{format.value(one.border, unit(one.metric))}</td>
                                    <td class="num">
                                        {one.seen_by_max === null
                                            ? "none"
                                            : format.value(one.seen_by_max, unit(one.metric))}
                                    </td>
                                </tr>
                            )),
                        )}
                    </tbody>
                </table>
            </Scroll>
            {forecast.advice.length > 0 && (
                <>
                    <h3>Advice</h3>
                    <ul>
                        {forecast.advice.map((line) => (
                            <li key={line}>{line}</li>
                        ))}
                    </ul>
                </>
            )}
        </Section>
    );
}
