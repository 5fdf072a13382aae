// The ramp of a rollout: its steps, the current one, and the traffic that each arm served.

import * as format from "../format";
import type { Point, RolloutState, Summary } from "../types";
import * as words from "../words";

/** The calls that the canary answered since the point before, as a share of the calls that are compared; null without calls. */
export interface Served {
    canary: number;
    all: number;
}

type Mark = "done" | "now" | "failed" | "open" | "skipped";

function mark(state: RolloutState, index: number): Mark {
    const promoted = state.promoted || state.phase === "completed";
    const ended = words.isFinal(state.phase) && !promoted;
    if (promoted) return index > state.step ? "skipped" : "done";
    if (index < state.step) return "done";
    if (index > state.step) return ended ? "skipped" : "open";
    return ended ? "failed" : "now";
}

const WORDS: Record<Mark, [string, string]> = {
    done: ["✔", "done"],
    now: ["●", "now"],
    failed: ["✘", "ended here"],
    open: ["○", "to come"],
    skipped: ["–", "not reached"],
};

export function Ramp({ state, served }: { state: RolloutState; served: Served | null }) {
    const promoted = state.promoted || state.phase === "completed";
    const last: Mark = promoted ? "done" : words.isFinal(state.phase) ? "skipped" : "open";
    const steps = state.spec.steps.map((step, index) => ({
        mark: mark(state, index),
        label: format.step(step),
        detail: `bake ${step.bake.min} to ${step.bake.max}`,
    }));
    const set =
        state.mirrorShare > 0
            ? `copies of ${format.share(state.mirrorShare)} of the calls`
            : `${format.share(state.canaryShare)} of the calls`;
    return (
        <div class="ramp">
            <ol aria-label="Steps of the ramp">
                {[...steps, { mark: last, label: "100%", detail: "promoted" }].map((step, index) => (
                    <li key={index} class={`step ${step.mark}`} aria-current={step.mark === "now" ? "step" : undefined}>
                        <span class="sign" aria-hidden="true">
                            {WORDS[step.mark][0]}
                        </span>
                        <strong>{step.label}</strong>
                        <span class="dim">{WORDS[step.mark][1]}</span>
                        <span class="dim small">{step.detail}</span>
                    </li>
                ))}
            </ol>
            <p class="dim">
                Now {words.canary(state)} gets {set}. {/* One text, so that nothing moves when a number gets longer. */}
                {served &&
                    `${words.isFinal(state.phase) ? "Served before the end" : "Served between the last two verdicts"}: ${format.significant((100 * served.canary) / served.all)} % (${format.count(served.canary)} of ${format.count(served.all)} compared calls).`}
            </p>
        </div>
    );
}

/** The ramp as a bar for a list. */
export function RampBar({ summary }: { summary: Summary }) {
    const share = summary.mirror_share > 0 ? summary.mirror_share : summary.canary_share;
    const width = Math.min(100, share / 100);
    const step =
        summary.step < 0 ? "before step 1" : `step ${Math.min(summary.step + 1, summary.steps)} of ${summary.steps}`;
    return (
        <span class="rampbar">
            <svg viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">
                <rect width="100" height="6" class="bar-back" />
                <rect width={width} height="6" class="bar-fill" />
            </svg>
            <span class="small">
                {format.share(share)} · {step}
            </span>
        </span>
    );
}

/** What was served between the last two points of a series, from the totals of the arms. */
export function served(points: Point[]): Served | null {
    const [before, after] = points.slice(-2).map(({ arms }) => ({
        canary: arms.find((one) => one.arm === "canary")?.predictions ?? 0,
        all: arms.reduce((sum, one) => sum + one.predictions, 0),
    }));
    return before && after && after.all > before.all
        ? { canary: after.canary - before.canary, all: after.all - before.all }
        : null;
}

/** Where the steps of a series start, for marks in charts. */
export function stepMarks(points: Point[]): { at: number; label: string }[] {
    return points.flatMap((point, index) => {
        const before = points[index - 1];
        if (point.step < 0 || before?.step === point.step) return [];
        return [{ at: point.as_of, label: format.share(point.canary_share) }];
    });
}
