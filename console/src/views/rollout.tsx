// One rollout: what is going on, why, what happens next, and what an operator can do.

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import * as api from "../api";
import * as format from "../format";
import { Actions } from "../parts/actions";
import { MetricCharts } from "../parts/chart";
import { ContrastSearch, inDoubt } from "../parts/contrasts";
import { DataHealth } from "../parts/health";
import { DistributionCard } from "../parts/distribution";
import { Evidence } from "../parts/evidence";
import { Examples } from "../parts/examples";
import { SegmentMatrix } from "../parts/matrix";
import { Ramp, served } from "../parts/ramp";
import { Story } from "../parts/story";
import { explain, Failure, PhaseChip, ResultChip, Section } from "../parts/ui";
import { toModel, toRollout } from "../route";
import { newest, open, reconnected, rollouts } from "../store";
import type { Matrix, Metric, Point, Profiles, RolloutEvent, RolloutState, Series, Verdict } from "../types";
import * as words from "../words";

interface Loaded {
    verdict: Verdict | null;
    matrix: Matrix | null;
}

/** Loads the newest verdict, and again when there is a newer one. Requests never overlap. */
function useVerdict(id: string, asOf: number | null): [Loaded, string | null] {
    const [loaded, setLoaded] = useState<Loaded>({ verdict: null, matrix: null });
    const [error, setError] = useState<string | null>(null);
    const [round, setRound] = useState(0);
    const busy = useRef(false);
    const known = useRef(-Infinity);
    useEffect(() => {
        if (asOf === null || busy.current || known.current >= asOf) return;
        busy.current = true;
        known.current = asOf;
        void Promise.all([api.get<Verdict>(api.rollout(id, "/verdict")), api.get<Matrix>(api.rollout(id, "/segments"))])
            .then(([verdict, matrix]) => {
                known.current = Math.max(asOf, verdict.as_of);
                setLoaded({ verdict, matrix });
                setError(null);
            })
            .catch((error: unknown) => setError(explain(error)))
            .finally(() => {
                busy.current = false;
                // A verdict that came meanwhile is loaded next.
                setTimeout(() => setRound((round) => round + 1), 250);
            });
    }, [id, asOf, round]);
    return [loaded, error];
}

/** The series of verdicts, with the newest points of the stream. */
function useSeries(id: string): [Series | null, string | null] {
    const [series, setSeries] = useState<Series | null>(null);
    const [error, setError] = useState<string | null>(null);
    useEffect(() => {
        void api
            .get<Series>(api.rollout(id, "/verdicts"))
            .then(setSeries)
            .catch((error: unknown) => setError(explain(error)));
    }, [id, reconnected.value]);
    const point = newest.value;
    useEffect(() => {
        if (point) setSeries((series) => series && { ...series, points: append(series.points, point) });
    }, [point]);
    return [series, error];
}

/** Points that the page keeps. Beyond that, every second of the older half is dropped. */
const MOST_POINTS = 600;

/** The points with a newer one at the end. */
export function append(points: Point[], point: Point): Point[] {
    if ((points.at(-1)?.as_of ?? -Infinity) >= point.as_of) return points;
    const all = [...points, point];
    if (all.length <= MOST_POINTS) return all;
    const half = all.length / 2;
    return all.filter((one, index) => index >= half || index % 2 === 0 || one.step !== all[index - 1]?.step);
}

function useEvents(id: string, known: number): RolloutEvent[] {
    const [events, setEvents] = useState<{ list: RolloutEvent[]; next: number }>({ list: [], next: 0 });
    useEffect(() => {
        const after = events.next;
        if (after > 0 && known <= after) return;
        void api
            .get<{ events: RolloutEvent[]; next: number }>(api.rollout(id, `/events?after=${after}`))
            // Another answer may have come first.
            .then((answer) =>
                setEvents((old) =>
                    old.next === after && answer.next > after
                        ? { list: [...old.list, ...answer.events], next: answer.next }
                        : old,
                ),
            )
            .catch(() => undefined);
    }, [id, known, events.next]);
    return events.list;
}

export function RolloutView({ id, tab }: { id: string; tab: string }) {
    const [loaded, setLoaded] = useState<RolloutState | null>(null);
    const [error, setError] = useState<string | null>(null);
    useEffect(() => {
        void api
            .get<RolloutState>(api.rollout(id))
            .then(setLoaded)
            .catch((error: unknown) => setError(explain(error)));
    }, [id]);
    const state = open.value ?? loaded;
    if (error !== null && !state)
        return (
            <>
                <h1>Rollout {id}</h1>
                <Failure error={error} />
                <p>
                    <a href="/">All rollouts</a>
                </p>
            </>
        );
    if (!state)
        return (
            <p class="dim" role="status">
                Loading …
            </p>
        );
    return <Page key={state.id} state={state} link={id} tab={tab} />;
}

const TABS: [string, string][] = [
    ["metrics", "Overview"],
    ["distributions", "Distributions"],
    ["examples", "Examples"],
    ["evidence", "Evidence"],
];

function Page({ state, link, tab }: { state: RolloutState; link: string; tab: string }) {
    const summary = rollouts.value.get(state.id);
    const [{ verdict, matrix }, verdictError] = useVerdict(
        state.id,
        newest.value?.as_of ?? state.verdict?.asOf ?? null,
    );
    const [series, seriesError] = useSeries(state.id);
    const events = useEvents(state.id, summary?.events ?? 0);
    const { model } = state.spec;
    const tone = state.headline?.tone ?? words.tone(state.phase);
    const harm = words.harm(state, verdict);
    const text = state.headline ? words.headline(state.headline.text, model) : words.phase(state.phase);
    const cause = state.ending?.sentence ?? state.sentence;
    // What a search has found stays when the hold ends meanwhile.
    const doubted = useRef(false);
    doubted.current ||= inDoubt(state, verdict);
    return (
        <>
            <nav aria-label="Path" class="path">
                <a href="/">Rollouts</a> / <a href={toModel(model)}>{model}</a>
            </nav>
            <div class="title-line">
                <h1>
                    {model}: {state.spec.stable.version} → {state.spec.canary.version}
                </h1>
                <PhaseChip phase={state.phase} />
            </div>
            <p class="dim lead">{words.tried(state)}</p>

            <div class={`banner tone-${tone}`}>
                <p class="headline">
                    <span aria-hidden="true">{words.sign(state.phase)} </span>
                    {text}
                </p>
                {cause && <p class="cause">{cause.charAt(0).toUpperCase() + cause.slice(1)}</p>}
                {harm && <p class="harm">{harm}</p>}
                {state.freeze && (
                    <p>
                        <strong>Frozen by {state.freeze.by}:</strong> {state.freeze.reason}. No step is taken; a
                        rollback still happens.
                    </p>
                )}
                <Progress state={state} />
                <Actions state={state} verdict={verdict} />
            </div>

            <Section title="Ramp" id="ramp">
                <Ramp state={state} served={series && served(series.points)} />
            </Section>

            <nav class="tabs" aria-label="Views of this rollout">
                {TABS.map(([key, label]) => (
                    <a key={key} href={toRollout(link, key)} aria-current={tab === key ? "page" : undefined}>
                        {label}
                    </a>
                ))}
            </nav>
            <Failure error={verdictError ?? seriesError} />
            {tab === "distributions" ? (
                <Distributions state={state} />
            ) : tab === "examples" ? (
                <Examples id={state.id} />
            ) : tab === "evidence" ? (
                <Evidence state={state} verdict={verdict} />
            ) : (
                <>
                    <Metrics state={state} verdict={verdict} series={series} />
                    {matrix && matrix.rows.length > 1 && (
                        <Section title="Segments" id="segments">
                            <SegmentMatrix matrix={matrix} spec={state.spec} />
                        </Section>
                    )}
                    {doubted.current && <ContrastSearch state={state} />}
                    <DataHealth state={state} verdict={verdict} />
                    <Story events={events} />
                </>
            )}
        </>
    );
}

function Progress({ state }: { state: RolloutState }) {
    const lines = (state.progress ?? []).filter((line) => line.name !== "You can");
    if (lines.length === 0) return null;
    const groups: { name: string; texts: string[] }[] = [];
    for (const line of lines) {
        if (line.name === "" && groups.length > 0) groups.at(-1)!.texts.push(line.text);
        else groups.push({ name: line.name, texts: [line.text] });
    }
    return (
        <dl class="progress">
            {groups.map((group) => (
                <>
                    <dt>{group.name}</dt>
                    <dd>
                        {group.texts.map((text) => (
                            <span key={text}>{text}</span>
                        ))}
                    </dd>
                </>
            ))}
        </dl>
    );
}

/** Metrics that are drawn at first. */
const CHARTS = 12;
const ORDER = { fail: 0, no_data: 1, undecided: 2, pass: 3 };

function Metrics({ state, verdict, series }: { state: RolloutState; verdict: Verdict | null; series: Series | null }) {
    const [all, setAll] = useState(false);
    const order = useRef<Map<string, number> | null>(null);
    const judged = useMemo(() => {
        const list = state.spec.metrics.map((metric) => {
            const rows = verdict?.metrics.filter((one) => one.metric === metric.name) ?? [];
            const overall = rows.find((one) => format.isAll(one.segment));
            // A metric that has failed in a segment is shown with the failures.
            const failed = rows.find((one) => one.result === "fail");
            return { metric, overall, failed };
        });
        const rank = (one: (typeof list)[number]) =>
            (one.failed ? -1 : one.overall ? ORDER[one.overall.result] : 4) + (one.metric.role === "watch" ? 0.5 : 0);
        // The order is that of the first verdict: nothing moves under the reader's eyes.
        if (verdict)
            order.current ??= new Map(
                list.sort((a, b) => rank(a) - rank(b)).map((one, index) => [one.metric.name, index]),
            );
        return list.sort((a, b) => (order.current?.get(a.metric.name) ?? 0) - (order.current?.get(b.metric.name) ?? 0));
    }, [state.spec, verdict]);
    const counts = ["fail", "undecided", "no_data", "pass"].map(
        (result) =>
            [result, judged.filter((one) => (one.failed ? "fail" : one.overall?.result) === result).length] as const,
    );
    const shown = all ? judged : judged.slice(0, CHARTS);
    return (
        <Section
            title="Metrics"
            id="metrics"
            aside={
                <span class="dim small">
                    {counts
                        .filter(([, number]) => number > 0)
                        .map(([result, number]) => `${number} ${result.replace("_", " ")}`)
                        .join(" · ")}
                </span>
            }
        >
            <p class="legend">
                <span class="key canary">canary, {state.spec.canary.version}</span>
                <span class="key control">control, {state.spec.stable.version}</span>
                <span class="key interval">interval, valid at every look</span>
                <span class="key harmful">harm beyond the margin</span>
            </p>
            <p class="dim small">
                The difference is taken window by window, so it may differ from the difference of the two totals.
            </p>
            {series?.note && <p class="dim small">{series.note}</p>}
            <div class="tiles">
                {shown.map(({ metric, overall, failed }) => (
                    <Tile
                        key={metric.name}
                        metric={metric}
                        overall={overall}
                        failed={failed}
                        points={series?.points ?? null}
                    />
                ))}
            </div>
            {judged.length > shown.length && (
                <button type="button" onClick={() => setAll(true)}>
                    Show all {judged.length} metrics
                </button>
            )}
        </Section>
    );
}

function Tile({
    metric,
    overall,
    failed,
    points,
}: {
    metric: Metric;
    overall: Verdict["metrics"][number] | undefined;
    failed: Verdict["metrics"][number] | undefined;
    points: Point[] | null;
}) {
    const unit = format.valueUnit(metric.kind, metric.source);
    const effect = format.effectUnit(metric);
    const inSegment = failed && !format.isAll(failed.segment) ? failed : undefined;
    const found = overall ?? failed;
    return (
        <article class="card tile" aria-label={metric.name}>
            <header>
                <h3>{metric.name}</h3>
                <span class="dim small">
                    {format.statistic(metric.kind)}, {metric.role ?? "gate"}
                </span>
                {found ? (
                    <ResultChip result={inSegment ? "fail" : found.result} />
                ) : (
                    <span class="chip plain">not judged yet</span>
                )}
            </header>
            {inSegment && (
                <p class="segment-fail">
                    <strong>Failed in {format.segment(inSegment.segment)}:</strong>{" "}
                    {format.value(inSegment.canary.value, unit)} against {format.value(inSegment.control.value, unit)}
                </p>
            )}
            {found && (
                <dl class="figures">
                    <div>
                        <dt>canary</dt>
                        <dd>
                            {format.value(found.canary.value, unit)}
                            <span class="dim small"> n {format.count(found.canary.n)}</span>
                        </dd>
                    </div>
                    <div>
                        <dt>control</dt>
                        <dd>
                            {format.value(found.control.value, unit)}
                            <span class="dim small"> n {format.count(found.control.n)}</span>
                        </dd>
                    </div>
                    <div>
                        <dt>difference</dt>
                        <dd>{format.difference(words.shownEffect(found), effect)}</dd>
                    </div>
                    <div>
                        <dt>{found.limit_fail === null || found.limit_fail === undefined ? "margin" : "limit"}</dt>
                        <dd>
                            {found.limit_fail === null || found.limit_fail === undefined
                                ? format.difference(found.margin, effect).replace("+", "")
                                : format.value(found.limit_fail, unit)}
                        </dd>
                    </div>
                </dl>
            )}
            {points === null ? <div class="charts-empty" /> : <MetricCharts points={points} metric={metric} />}
            {found && <p class="small sentence">{(inSegment ?? found).sentence}</p>}
        </article>
    );
}

/** Metrics whose distribution is drawn come before those with a single share. */
function pictured(metrics: Metric[], { profiles }: Profiles): Metric[] {
    const single = (name: string) =>
        profiles.some((arm) => arm.metrics.some((one) => one.metric === name && "share" in one.distribution));
    return [...metrics.filter((one) => !single(one.name)), ...metrics.filter((one) => single(one.name))];
}

function Distributions({ state }: { state: RolloutState }) {
    const [profiles, setProfiles] = useState<Profiles | null>(null);
    const [error, setError] = useState<string | null>(null);
    useEffect(() => {
        // Computed from the log on each request, so asked for seldom.
        const load = () =>
            void api
                .get<Profiles>(api.rollout(state.id, "/profile"))
                .then((found) => {
                    setProfiles(found);
                    setError(null);
                })
                .catch((error: unknown) => setError(explain(error)));
        load();
        if (words.isFinal(state.phase)) return;
        const timer = setInterval(load, 30_000);
        return () => clearInterval(timer);
    }, [state.id, state.phase]);
    return (
        <Section title="Distributions" id="distributions">
            <p class="dim">
                Share of the values of each arm, since the canary started, from the sketches in the windows. Mirrored
                answers of the canary are drawn as an arm of their own.
            </p>
            <Failure error={error} />
            {profiles?.read.note && <p class="notice">{profiles.read.note}</p>}
            {profiles && profiles.left_out > 0 && (
                <p class="notice">{format.count(profiles.left_out)} distributions are left out of the answer.</p>
            )}
            {!profiles && !error && (
                <p class="dim" role="status">
                    Loading …
                </p>
            )}
            {profiles && (
                <div class="tiles">
                    {pictured(state.spec.metrics, profiles).map((metric) => (
                        <DistributionCard key={metric.name} name={metric.name} profiles={profiles.profiles} />
                    ))}
                </div>
            )}
            {profiles && profiles.not_profiled.length > 0 && (
                <details>
                    <summary>Without a distribution: {profiles.not_profiled.map((one) => one.name).join(", ")}</summary>
                    <p>No metric reads them, so no window contains their values. Add to the rollout file:</p>
                    <pre tabIndex={0}>{profiles.not_profiled.map((one) => one.add).join("\n")}</pre>
                </details>
            )}
        </Section>
    );
}
