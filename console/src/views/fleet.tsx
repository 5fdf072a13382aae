// All rollouts: what needs a person first, then what runs, then what has ended.

import { useMemo, useState } from "preact/hooks";
import * as format from "../format";
import { go, query, toModel, toRollout } from "../route";
import { complete, connection, mayAct, rollouts } from "../store";
import { PhaseChip } from "../parts/ui";
import { RampBar } from "../parts/ramp";
import { stopAll } from "../parts/act";
import type { Phase, Summary } from "../types";
import * as words from "../words";

/** Rows that a section shows at first. */
const ROWS = 30;

/** Whether a rollout matches what was typed: each word is in its model, versions, phase or headline. A word after `-` must not be. */
export function matches(summary: Summary, text: string): boolean {
    const all =
        `${summary.model} ${summary.stable} ${summary.canary} ${words.phase(summary.phase)} ${summary.headline.text} ${summary.started_by ?? ""} ${summary.id}`.toLowerCase();
    return text
        .toLowerCase()
        .split(/\s+/)
        .filter(Boolean)
        .every((word) => (word.startsWith("-") && word.length > 1 ? !all.includes(word.slice(1)) : all.includes(word)));
}

function filter(key: string, value: string): void {
    const wanted = new URLSearchParams(query.value);
    if (value) wanted.set(key, value);
    else wanted.delete(key);
    const text = wanted.toString();
    go(text ? `/?${text}` : "/", true);
}

function Row({ summary }: { summary: Summary }) {
    const { model } = summary;
    return (
        <li class={`row tone-${summary.headline.tone}`}>
            <div class="row-name">
                <a href={toRollout(summary.id)} class="main-link">
                    {model}
                </a>
                <span>
                    {summary.stable} → {summary.canary}
                </span>
            </div>
            <div class="row-state">
                <PhaseChip phase={summary.phase} />
                {summary.needs && summary.needs !== "resume" && <span class="chip open">{words.needs(summary)}</span>}
            </div>
            <div class="row-text">
                <strong>{words.headline(summary.headline.text, model)}</strong>
                <span class="dim clamp">{summary.sentence}</span>
            </div>
            <div class="row-ramp">
                {words.isFinal(summary.phase) ? (
                    <a href={toModel(model)} class="small">
                        history of {model}
                    </a>
                ) : (
                    <RampBar summary={summary} />
                )}
            </div>
            <div class="row-time small dim">
                {summary.recorded_at !== null && <time>{format.time(summary.recorded_at)} UTC</time>}
            </div>
        </li>
    );
}

function List({ title, id, rows, empty }: { title: string; id: string; rows: Summary[]; empty: string }) {
    const [most, setMost] = useState(ROWS);
    return (
        <section aria-labelledby={id}>
            <h2 id={id}>
                {title} <span class="count">{format.count(rows.length)}</span>
            </h2>
            {rows.length === 0 ? (
                <p class="dim">{empty}</p>
            ) : (
                <ul class="rows">
                    {rows.slice(0, most).map((summary) => (
                        <Row key={summary.id} summary={summary} />
                    ))}
                </ul>
            )}
            {rows.length > most && (
                <button type="button" onClick={() => setMost(most + 200)}>
                    Show {format.count(Math.min(200, rows.length - most))} more of {format.count(rows.length)}
                </button>
            )}
        </section>
    );
}

const PHASES: Phase[] = [
    "pending",
    "warming",
    "shadowing",
    "baking",
    "held",
    "paused",
    "promoted",
    "completed",
    "rolled_back",
    "aborted",
    "superseded",
];

export function Fleet() {
    const known = rollouts.value;
    const [text, phase] = [query.value.get("q") ?? "", query.value.get("phase") ?? ""];
    const shown = useMemo(
        () => [...known.values()].filter((one) => (!phase || one.phase === phase) && matches(one, text)),
        [known, text, phase],
    );
    const of = (group: string) => shown.filter((one) => words.group(one) === group);
    const running = [...known.values()].some((one) => !words.isFinal(one.phase));
    const filtered = text !== "" || phase !== "";
    return (
        <>
            <div class="title-line">
                <h1>Rollouts</h1>
                {mayAct.value && running && (
                    <button type="button" class="danger-quiet" onClick={stopAll}>
                        Stop all …
                    </button>
                )}
            </div>
            <form class="filters" role="search" onSubmit={(event) => event.preventDefault()}>
                <label class="grow">
                    Search
                    <input
                        id="search"
                        type="search"
                        value={text}
                        placeholder="model, version, phase, -not  ( / )"
                        onInput={(event) => filter("q", event.currentTarget.value)}
                    />
                </label>
                <label>
                    Phase
                    <select value={phase} onChange={(event) => filter("phase", event.currentTarget.value)}>
                        <option value="">all phases</option>
                        {PHASES.map((one) => (
                            <option key={one} value={one}>
                                {words.phase(one)}
                            </option>
                        ))}
                    </select>
                </label>
            </form>
            {!complete.value && (
                <p class="notice" role="status">
                    The controller is reading its log. The list may be incomplete.
                </p>
            )}
            {known.size === 0 && connection.value === "live" ? (
                <p class="empty">
                    No rollout yet. <a href="/plan">Plan one</a>, or run <code>serin apply -f rollout.yaml</code>.
                </p>
            ) : (
                <>
                    <List
                        key="person"
                        title="Needs a person"
                        id="g-person"
                        rows={of("person")}
                        empty={filtered ? "None matches." : "Nothing waits for you."}
                    />
                    <List
                        key="running"
                        title="Running"
                        id="g-running"
                        rows={of("running")}
                        empty={filtered ? "None matches." : "No rollout is running."}
                    />
                    <List
                        key="ended"
                        title="Ended"
                        id="g-ended"
                        rows={of("ended")}
                        empty={filtered ? "None matches." : "None has ended yet."}
                    />
                </>
            )}
        </>
    );
}
