// The evidence of the newest verdict: its numbers, its JSON, and how to get it without the console.

import * as api from "../api";
import * as format from "../format";
import type { RolloutState, Verdict } from "../types";
import * as words from "../words";
import { Copyable, ResultChip, Scroll, Section } from "./ui";

export function Evidence({ state, verdict }: { state: RolloutState; verdict: Verdict | null }) {
    const base = location.origin;
    const path = api.rollout(state.id, "/verdict");
    return (
        <>
            <Section title="Newest verdict" id="evidence">
                {!verdict ? (
                    <p class="dim">No verdict yet.</p>
                ) : (
                    <>
                        <p>
                            Verdict <code>{verdict.id}</code>: <strong>{verdict.decision}</strong>, at{" "}
                            {format.time(verdict.as_of, true)} UTC of event time, generation {verdict.generation}.{" "}
                            {verdict.sentence}
                        </p>
                        <p class="dim">
                            It is a record of the topic <code>verdicts</code> with the key <code>{verdict.model}</code>.
                            Its <code>id</code> is a hash of the rollout, the time and the policy: the same evidence has
                            the same id.
                        </p>
                        <Scroll label="Checks of the verdict">
                            <table>
                                <thead>
                                    <tr>
                                        <th scope="col">metric</th>
                                        <th scope="col">segment</th>
                                        <th scope="col">result</th>
                                        <th scope="col" class="num">
                                            canary
                                        </th>
                                        <th scope="col" class="num">
                                            control
                                        </th>
                                        <th scope="col" class="num">
                                            difference
                                        </th>
                                        <th scope="col" class="num">
                                            interval
                                        </th>
                                        <th scope="col" class="num">
                                            margin
                                        </th>
                                        <th scope="col" class="num">
                                            p, corrected
                                        </th>
                                    </tr>
                                </thead>
                                <tbody>
                                    {verdict.metrics.map((one) => {
                                        const metric = state.spec.metrics.find((known) => known.name === one.metric);
                                        const unit = metric ? format.valueUnit(metric.kind, metric.source) : "plain";
                                        const effect = metric ? format.effectUnit(metric) : "plain";
                                        return (
                                            <tr key={one.metric + format.segment(one.segment)}>
                                                <th scope="row">{one.metric}</th>
                                                <td>{format.segment(one.segment)}</td>
                                                <td>
                                                    <ResultChip result={one.result} />
                                                </td>
                                                <td class="num">{format.value(one.canary.value, unit)}</td>
                                                <td class="num">{format.value(one.control.value, unit)}</td>
                                                <td class="num">{format.difference(words.shownEffect(one), effect)}</td>
                                                <td class="num">
                                                    {one.effect_low === null && one.effect_high === null
                                                        ? "no data"
                                                        : `${format.difference(one.effect_low, effect)} to ${format.difference(one.effect_high, effect)}`}
                                                </td>
                                                <td class="num">
                                                    {format.difference(one.margin, effect).replace("+", "")}
                                                </td>
                                                <td class="num">
                                                    {one.p_fail === undefined
                                                        ? ""
                                                        : one.p_fail < 0.001
                                                          ? one.p_fail.toExponential(1)
                                                          : format.significant(one.p_fail)}
                                                </td>
                                            </tr>
                                        );
                                    })}
                                </tbody>
                            </table>
                        </Scroll>
                    </>
                )}
            </Section>
            <Section title="Get it without the console" id="commands">
                <Copyable label="Show the evidence" text={`serin explain ${state.id}`} />
                <Copyable
                    label="Judge the recorded windows again; the verdicts must come out equal"
                    text={`serin replay --rollout ${state.id}`}
                />
                <Copyable
                    label="The verdict as JSON"
                    text={`curl -s -H "authorization: Bearer $SERIN_TOKEN" '${base}${path}'`}
                />
                <p>
                    <a href={path} target="_blank" rel="noreferrer">
                        Verdict as JSON
                    </a>{" "}
                    ·{" "}
                    <a href={api.rollout(state.id)} target="_blank" rel="noreferrer">
                        Rollout as JSON
                    </a>{" "}
                    ·{" "}
                    <a href={api.rollout(state.id, "/events")} target="_blank" rel="noreferrer">
                        Events as JSON
                    </a>
                </p>
            </Section>
            {verdict && (
                <details class="panel">
                    <summary>The whole verdict</summary>
                    <pre tabIndex={0} class="json">
                        {JSON.stringify(verdict, null, 2)}
                    </pre>
                </details>
            )}
        </>
    );
}
