// What an operator can do about a rollout, and the words for phases, results and harm.

import * as format from "./format";
import type { Metric, MetricVerdict, Phase, Result, RolloutState, Segment, Summary, Tone, Verdict } from "./types";

const FINAL: Phase[] = ["completed", "rolled_back", "aborted", "superseded"];

/** Whether a rollout has ended. */
export const isFinal = (phase: Phase) => FINAL.includes(phase);

/** The section of the fleet that a rollout belongs to. */
export function group(summary: Summary): "person" | "running" | "ended" {
    if (summary.needs) return "person";
    return isFinal(summary.phase) ? "ended" : "running";
}

/** What a person has to do. */
export const needs = (summary: Summary) =>
    summary.hold?.cause === "approval"
        ? "needs approval"
        : { decision: "needs a decision", evidence: "check the data", resume: "paused" }[summary.needs ?? "decision"];

/** The headline without the name of the model in front. */
export function headline(text: string, model: string): string {
    return text.startsWith(`${model}: `) ? text.slice(model.length + 2) : text;
}

const version = (text: string) => (/^\d/.test(text) ? `version ${text}` : text);
export const stable = (state: RolloutState) => version(state.spec.stable.version);
export const canary = (state: RolloutState) => version(state.spec.canary.version);

/** What is tried. */
export function tried(state: RolloutState): string {
    const ended = isFinal(state.phase);
    const how = state.mirrorShare > 0 ? "Both answer the same calls" : "Each answers a part of the calls";
    return ended
        ? `${canary(state)} was tried in place of ${stable(state)}.`
        : `${canary(state)} is tried in place of ${stable(state)}. ${how}, and their answers are compared.`;
}

/** The phase as a word. */
export const phase = (phase: Phase) => phase.replace("_", " ");

/** The tone of a phase. */
export function tone(phase: Phase): Tone {
    switch (phase) {
        case "promoted":
        case "completed":
            return "good";
        case "rolled_back":
        case "aborted":
        case "superseded":
            return "bad";
        case "held":
        case "paused":
            return "open";
        default:
            return "plain";
    }
}

/** A sign for a phase, so that color is not the only one. */
export function sign(phase: Phase): string {
    const signs: Record<Phase, string> = {
        pending: "…",
        warming: "◔",
        shadowing: "◑",
        baking: "●",
        held: "!",
        paused: "❚❚",
        promoted: "✔",
        completed: "✔",
        rolled_back: "↩",
        aborted: "✘",
        superseded: "»",
    };
    return signs[phase];
}

const weight = (state: RolloutState) =>
    state.mirrorShare > 0 ? `a copy of ${format.share(state.mirrorShare)}` : format.share(state.canaryShare);

export interface Act {
    verb: string;
    label: string;
    consequence: string;
    danger: boolean;
    full?: boolean;
    /** Asks for the share of the calls. */
    asksWeight?: boolean;
    /** For freezes: the pattern of models. */
    models?: string;
}

/** The actions on a rollout, the one that the finding recommends first. */
export function actions(state: RolloutState, verdict: Verdict | null): Act[] {
    const old = stable(state);
    const fresh = canary(state);
    const finding = verdict?.metrics.some((metric) => metric.result === "fail" && metric.role !== "watch") ?? false;
    const after = state.spec.steps[state.step + 1];
    const back: Act = {
        verb: "abort",
        label: finding ? "Roll back now" : "Abort",
        danger: true,
        consequence: `The rollout ends. All calls go to ${old}. To try ${fresh} again you start a new rollout.`,
    };
    const resume: Act = {
        verb: "resume",
        label: "Resume",
        danger: false,
        consequence:
            state.phase === "paused"
                ? "The clock of the step runs again at the same weight."
                : "You acknowledge the findings that hold the rollout. It continues at the same weight and is held again for any other finding.",
    };
    const promote: Act = {
        verb: "promote",
        label: after ? `Go to ${format.step(after)}` : "Promote",
        danger: false,
        consequence: `${after ? `${format.step(after)} of the calls go` : "All calls go"} to ${fresh} now, although the evidence for this step is not complete.`,
    };
    const pause: Act = {
        verb: "pause",
        label: "Pause",
        danger: false,
        consequence: `${fresh} keeps ${weight(state)} of the calls, and no step is taken until you resume. Evidence against it still rolls it back.`,
    };
    const weigh: Act = {
        verb: "set-weight",
        label: "Set weight",
        danger: false,
        asksWeight: true,
        consequence: `${fresh} gets this share of the calls in a step of its own, whose evidence starts over. No check counts as passed by it.`,
    };
    const freeze: Act = state.freeze
        ? {
              verb: "unfreeze",
              label: "Unfreeze",
              danger: false,
              models: state.freeze.models,
              consequence: `Rollouts of ${state.freeze.models} take steps again.`,
          }
        : {
              verb: "freeze",
              label: "Freeze",
              danger: false,
              models: state.spec.model,
              consequence: `No rollout of ${state.spec.model} takes a step until somebody ends the freeze, also not by hand. Evidence against ${fresh} still rolls it back.`,
          };
    const retry: Act = {
        verb: "retry",
        label: "Try again",
        danger: false,
        consequence: `A new rollout of ${fresh} starts with the same file and its own warm-up. The finding of this one stays visible in it.`,
    };
    // A frozen model takes no steps, also not by hand.
    const steps = (acts: Act[]) =>
        [...acts, weigh, freeze].filter((act) => !state.freeze || !["promote", "set-weight"].includes(act.verb));
    switch (state.phase) {
        case "pending":
            return [{ ...back, label: "Remove from the queue", consequence: "The rollout does not start." }];
        case "warming":
            return [pause, back, freeze];
        case "baking":
        case "shadowing":
            return steps(finding ? [back, pause, promote] : [pause, promote, back]);
        case "held":
            if (state.hold?.cause === "approval") {
                return [
                    {
                        verb: "approve",
                        label: "Approve",
                        danger: false,
                        consequence: `${after ? `${format.step(after)} of the calls go` : "All calls go"} to ${fresh} as soon as the evidence still allows it.`,
                    },
                    {
                        ...back,
                        verb: "reject",
                        label: "Reject",
                        consequence: `The rollout ends. All calls go to ${old}.`,
                    },
                ];
            }
            return steps(finding ? [back, resume, promote] : [resume, promote, back]);
        case "paused":
            return finding ? [back, resume, promote] : [resume, promote, back];
        case "promoted":
            return [{ ...back, label: "Roll back" }];
        case "completed":
            return (state.undoUntil ?? 0) > Date.now()
                ? [
                      {
                          verb: "undo",
                          label: "Undo the promotion",
                          danger: true,
                          consequence: `All calls go back to ${old} at once.`,
                      },
                  ]
                : [];
        case "rolled_back":
        case "aborted":
            return [retry];
        default:
            return [];
    }
}

/** A result as a word. */
export const result = (result: Result) =>
    ({ pass: "pass", fail: "fail", undecided: "undecided", no_data: "no data" })[result];

/** A sign for a result. */
export const resultSign = (result: Result) => ({ pass: "✔", fail: "✘", undecided: "…", no_data: "∅" })[result];

const same = (one: Segment, other: Segment) => one.dimension === other.dimension && one.value === other.value;

/** The evidence on a metric in a segment. */
export function evidence(verdict: Verdict | null, metric: string, segment: Segment): MetricVerdict | undefined {
    return verdict?.metrics.find((one) => one.metric === metric && same(one.segment, segment));
}

/** The harm that a canary did as far as the evidence shows it, in one or two sentences. */
export function harm(state: RolloutState, verdict: Verdict | null): string | null {
    const served = verdict?.arms.find((arm) => arm.arm === "canary")?.predictions ?? state.answers;
    if (!served) return null;
    const all = verdict?.arms.reduce((sum, arm) => sum + arm.predictions, 0) ?? 0;
    const of = all > 0 ? ` of ${format.count(all)} compared calls (${format.significant((100 * served) / all)} %)` : "";
    const answered = `${canary(state)} answered ${format.count(served)}${of}.`;
    const reason = state.ending?.reasons[0] ?? verdict?.reasons[0];
    const found = reason && evidence(verdict, reason.metric, reason.segment);
    const metric = reason && state.spec.metrics.find((one) => one.name === reason.metric);
    if (!found || !metric || found.result !== "fail" || found.canary.value === null || found.control.value === null)
        return answered;
    const where = format.isAll(found.segment) ? "" : ` in ${format.segment(found.segment)}`;
    if (metric.kind === "rate") {
        const extra = Math.round(Math.abs(found.canary.value - found.control.value) * found.canary.n);
        return `${answered} About ${format.count(extra)} of its ${format.count(found.canary.n)} answers${where} would have been better from ${stable(state)}.`;
    }
    const unit = format.valueUnit(metric.kind, metric.source);
    return `${answered} ${metric.name}${where}: ${format.value(found.canary.value, unit)} instead of ${format.value(found.control.value, unit)}.`;
}

/** Whether more of the metric is worse. A whole distribution or mix only differs more or less. */
export const lowerIsBetter = (metric: Metric) =>
    metric.direction !== "higher_is_better" || metric.kind === "distribution" || metric.kind === "classes";

/** The difference between the arms as it is shown. With few answers it can be outside of its interval: then it is the difference of the
 * two values, or the end of the interval. */
export function shownEffect(
    one: Pick<MetricVerdict, "effect" | "effect_low" | "effect_high" | "canary" | "control" | "limit_fail">,
): number | null {
    const { effect, effect_low, effect_high } = one;
    if (effect === null) return null;
    const [low, high] = [effect_low ?? -Infinity, effect_high ?? Infinity];
    if (effect >= low && effect <= high) return effect;
    const other = one.limit_fail ?? one.control.value;
    const plain = one.canary.value !== null && other !== null ? one.canary.value - other : NaN;
    return plain >= low && plain <= high ? plain : Math.min(high, Math.max(low, effect));
}
