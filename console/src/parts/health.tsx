// Whether the evidence can be trusted: the split, late and lost events, labels, and what a hold is for.

import * as format from "../format";
import type { RolloutState, Verdict } from "../types";
import { Scroll, Section } from "./ui";

const COUNTS = [
    ["errors", "failed"],
    ["refused", "refused"],
    ["redirected", "redirected"],
    ["invalid", "unusable"],
    ["unread", "unread"],
    ["cancelled", "cancelled"],
    ["late", "late"],
    ["lost", "lost"],
    ["excluded", "left out"],
] as const;

export function DataHealth({ state, verdict }: { state: RolloutState; verdict: Verdict | null }) {
    if (!verdict) return null;
    const arms = verdict.arms.filter((arm) => arm.predictions > 0 || arm.arm !== "stable");
    const arm = (name: string) => verdict.arms.find((one) => one.arm === name)?.predictions ?? 0;
    const compared = arm("canary") + arm("control");
    const pending = verdict.metrics.filter(
        (one) => format.isAll(one.segment) && (one.no_data === "labels_pending" || one.no_data === "labels_missing"),
    );
    return (
        <Section
            title="Data health"
            id="health"
            aside={<span class="dim small">evidence through {format.time(verdict.as_of)} UTC (event time)</span>}
        >
            {verdict.health.length === 0 ? (
                <p>
                    <span aria-hidden="true">✔ </span>No problem with the data
                    {state.hold?.cause === "stale" ? ", but no new verdict comes" : ""}.
                </p>
            ) : (
                <ul class="issues">
                    {verdict.health.map((issue) => (
                        <li
                            key={issue.reason + issue.sentence}
                            class={issue.policy === "warn" || issue.policy === "proceed" ? "tone-open" : "tone-bad"}
                        >
                            <strong>
                                {issue.policy === "warn" || issue.policy === "proceed"
                                    ? "Warning"
                                    : issue.policy === "hold"
                                      ? "Holds"
                                      : "Rolls back"}
                                : {issue.reason.replaceAll("_", " ")}.
                            </strong>{" "}
                            {issue.sentence}
                        </li>
                    ))}
                </ul>
            )}
            {pending.length > 0 && <p class="dim">Labels to come: {pending.map((one) => one.metric).join(", ")}.</p>}
            {compared > 0 && (
                <p>
                    Split: the canary has {format.significant((100 * arm("canary")) / compared)} % of the compared
                    answers since it started ({format.count(arm("canary"))} against {format.count(arm("control"))} of
                    control).
                </p>
            )}
            <Scroll label="Counts by arm">
                <table>
                    <thead>
                        <tr>
                            <th scope="col">arm</th>
                            <th scope="col">version</th>
                            <th scope="col" class="num">
                                answers
                            </th>
                            {COUNTS.map(([, label]) => (
                                <th scope="col" key={label} class="num">
                                    {label}
                                </th>
                            ))}
                        </tr>
                    </thead>
                    <tbody>
                        {arms.map((one) => (
                            <tr key={one.arm}>
                                <th scope="row">{one.arm}</th>
                                <td>{one.version}</td>
                                <td class="num">{format.count(one.predictions)}</td>
                                {COUNTS.map(([key, label]) => (
                                    <td key={label} class={`num${one[key] > 0 ? "" : " dim"}`}>
                                        {format.count(one[key])}
                                    </td>
                                ))}
                            </tr>
                        ))}
                    </tbody>
                </table>
            </Scroll>
        </Section>
    );
}
