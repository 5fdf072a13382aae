// The history of a model: its rollouts next to each other, and how its calls are routed now.

import { useEffect, useState } from "preact/hooks";
import * as api from "../api";
import * as format from "../format";
import { explain, Failure, PhaseChip, Scroll, Section } from "../parts/ui";
import { toRollout } from "../route";
import { rollouts } from "../store";
import type { RolloutState, RoutingTable } from "../types";
import * as words from "../words";

const ROWS = 50;

export function ModelView({ model }: { model: string }) {
    const own = [...rollouts.value.values()].filter((one) => one.model === model);
    const [tables, setTables] = useState<RoutingTable[]>([]);
    const [states, setStates] = useState<ReadonlyMap<string, RolloutState>>(new Map());
    const [error, setError] = useState<string | null>(null);
    const [all, setAll] = useState(false);
    // Something changed when a rollout of the model got an event.
    const version = own.map((one) => `${one.id}:${one.events}`).join();
    useEffect(() => {
        if (own.length === 0) return;
        void api
            .get<RoutingTable[]>("/v1/routing")
            .then(setTables)
            .catch((error: unknown) => setError(explain(error)));
        const wanted = (all ? own : own.slice(0, ROWS)).filter(
            (one) => !states.has(one.id) || !words.isFinal(states.get(one.id)!.phase),
        );
        void Promise.all(wanted.map((one) => api.get<RolloutState>(api.rollout(one.id))))
            .then((found) => {
                setStates((old) => new Map([...old, ...found.map((state) => [state.id, state] as const)]));
            })
            .catch((error: unknown) => setError(explain(error)));
    }, [version, all]);
    const table = tables.find((one) => one.model === model);
    const shown = all ? own : own.slice(0, ROWS);
    return (
        <>
            <nav aria-label="Path" class="path">
                <a href="/">Rollouts</a>
            </nav>
            <h1>{model}</h1>
            <Failure error={error} />
            {table && (
                <Section
                    title="Calls go to"
                    id="routing"
                    aside={<span class="dim small">routing table, generation {table.generation}</span>}
                >
                    <ul class="routes">
                        {table.routes.map((route) => (
                            <li key={route.arm + route.version}>
                                <strong>{format.share(route.share)}</strong> {route.version}{" "}
                                <span class="dim">{route.arm}</span>
                            </li>
                        ))}
                    </ul>
                    <p class="dim">{table.reason}</p>
                </Section>
            )}
            <Section title="Rollouts" id="history" aside={<span class="dim small">newest first</span>}>
                {own.length === 0 ? (
                    <p class="dim">No rollout of this model is known.</p>
                ) : (
                    <Scroll label="Rollouts of the model">
                        <table>
                            <thead>
                                <tr>
                                    <th scope="col">newest event (UTC)</th>
                                    <th scope="col">versions</th>
                                    <th scope="col">result</th>
                                    <th scope="col">reached</th>
                                    <th scope="col" class="num">
                                        took, event time
                                    </th>
                                    <th scope="col" class="num">
                                        canary answers
                                    </th>
                                    <th scope="col">why</th>
                                </tr>
                            </thead>
                            <tbody>
                                {shown.map((one) => {
                                    const state = states.get(one.id);
                                    const end = state?.ending?.at;
                                    const reached = state?.spec.steps[state.step];
                                    return (
                                        <tr key={one.id}>
                                            <td>{one.recorded_at !== null && format.time(one.recorded_at)}</td>
                                            <th scope="row">
                                                <a href={toRollout(one.id)}>
                                                    {one.stable} → {one.canary}
                                                </a>
                                            </th>
                                            <td>
                                                <PhaseChip phase={one.phase} />
                                            </td>
                                            <td>
                                                {one.promoted || one.phase === "completed"
                                                    ? "100%"
                                                    : reached
                                                      ? format.step(reached)
                                                      : "warm-up"}
                                            </td>
                                            <td class="num">
                                                {state && end && state.startedAt > 0
                                                    ? format.duration((end - state.startedAt) / 1e6)
                                                    : ""}
                                            </td>
                                            <td class="num">{state ? format.count(state.answers) : ""}</td>
                                            <td class="wide">{state?.ending?.sentence ?? one.sentence}</td>
                                        </tr>
                                    );
                                })}
                            </tbody>
                        </table>
                    </Scroll>
                )}
                {own.length > shown.length && (
                    <button type="button" onClick={() => setAll(true)}>
                        Show all {format.count(own.length)}
                    </button>
                )}
            </Section>
        </>
    );
}
