// The actions on a rollout, the recommended one first.

import { go, toRollout } from "../route";
import { mayAct } from "../store";
import type { RolloutState, Verdict } from "../types";
import * as words from "../words";
import { act, ask, freeze, quoted, ReadOnly } from "./act";

/** Opens the question for an action of a rollout. */
export function askFor(state: RolloutState, action: words.Act): void {
    const object = action.models === undefined ? state.id : quoted(action.models);
    const parameters = (weight: string) =>
        [object, action.asksWeight && weight, action.full && "--full"].filter(Boolean).join(" ");
    ask({
        title: `${action.label}: ${state.spec.model}, ${state.spec.stable.version} → ${state.spec.canary.version}`,
        label: action.label,
        consequence: action.consequence,
        danger: action.danger,
        asksWeight: action.asksWeight,
        command: (reason, weight) => `serin ${action.verb} ${parameters(weight)} --reason ${quoted(reason)}`,
        send: (reason, weight) =>
            action.models === undefined
                ? act(state.id, action.verb, {
                      reason,
                      ...(action.full && { full: true }),
                      ...(action.asksWeight && { weight }),
                  })
                : freeze(action.verb, action.models, reason),
        // A retry is a rollout of its own.
        done: (answer) => action.verb === "retry" && answer.rollout && go(toRollout(answer.rollout)),
    });
}

export function Actions({ state, verdict }: { state: RolloutState; verdict: Verdict | null }) {
    const actions = words.actions(state, verdict);
    if (actions.length === 0) return null;
    if (!mayAct.value) return <ReadOnly />;
    // Nothing is recommended while a rollout runs well.
    const recommended =
        state.phase === "held" || state.phase === "paused" || (actions[0]!.danger && state.phase !== "completed");
    return (
        <div class="buttons" role="group" aria-label="Actions">
            {actions.map((action, index) => (
                <button
                    type="button"
                    key={action.verb}
                    class={
                        index === 0 && recommended
                            ? action.danger
                                ? "danger"
                                : "primary"
                            : action.danger
                              ? "danger-quiet"
                              : ""
                    }
                    title={action.consequence}
                    onClick={() => askFor(state, action)}
                >
                    {action.label} …
                </button>
            ))}
        </div>
    );
}
