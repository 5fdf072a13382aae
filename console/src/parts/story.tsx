// What happened, newest first: each event with both clocks, its actor and its sentence.

import { useState } from "preact/hooks";
import * as format from "../format";
import type { RolloutEvent } from "../types";
import { Section } from "./ui";

const SIGNS: Record<string, string> = {
    started: "▸",
    advanced: "●",
    held: "!",
    resumed: "▸",
    paused: "❚❚",
    promoted: "✔",
    completed: "✔",
    rolled_back: "↩",
    aborted: "✘",
    superseded: "»",
    refused: "✘",
    warned: "!",
};
const ROWS = 30;

export function Story({ events }: { events: RolloutEvent[] }) {
    const [all, setAll] = useState(false);
    const newest = [...events].reverse();
    const shown = all ? newest : newest.slice(0, ROWS);
    return (
        <Section title="Story" id="story" aside={<span class="dim small">newest first, times in UTC</span>}>
            {events.length === 0 ? (
                <p class="dim">No event yet.</p>
            ) : (
                <ol class="story">
                    {shown.map((event) => (
                        <li key={event.id} class={`kind-${event.kind}`}>
                            <span class="sign" aria-hidden="true">
                                {SIGNS[event.kind] ?? "·"}
                            </span>
                            <div>
                                <p>
                                    <strong>{event.kind.replaceAll("_", " ")}</strong> · {event.sentence}
                                </p>
                                <p class="dim small">
                                    by {event.actor} · {format.time(event.recorded_at, true)} · event time{" "}
                                    {format.time(event.at, true)}
                                </p>
                            </div>
                        </li>
                    ))}
                </ol>
            )}
            {events.length > shown.length && (
                <button type="button" onClick={() => setAll(true)}>
                    Show all {format.count(events.length)} events
                </button>
            )}
        </Section>
    );
}
