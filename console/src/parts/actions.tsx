// The actions on a rollout, the recommended one first.

import { mayAct } from "../store";
import type { RolloutState, Verdict } from "../types";
import * as words from "../words";
import { act, ask, quoted, ReadOnly } from "./act";

/** Opens the question for an action of a rollout. */
export function askFor(state: RolloutState, action: words.Act): void {
    ask({
        title: `${action.label}: ${state.spec.model}, ${state.spec.stable.version} → ${state.spec.canary.version}`,
        label: action.label,
        consequence: action.consequence,
        danger: action.danger,
        command: (reason) =>
            `serin ${action.verb} ${state.id}${action.full ? " --full" : ""} --reason ${quoted(reason)}`,
        send: act(state.id, action.verb, action.full ?? false),
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
