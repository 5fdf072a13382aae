// Pairs of answers to the same call, which routers kept: the request, and both answers side by side.

import { useEffect, useState } from "preact/hooks";
import * as api from "../api";
import * as format from "../format";
import type { Capture, CapturedAnswer } from "../types";
import { explain, Failure, Section } from "./ui";

const MOST = 20;

function Body({ text, bytes, label }: { text: string | null; bytes: number; label: string }) {
    return text === null ? (
        <p class="dim">{bytes > 0 ? "The body is not kept." : "No body."}</p>
    ) : (
        <pre tabIndex={0} aria-label={label}>
            {text}
            {text.length < bytes ? " \u2026" : ""}
        </pre>
    );
}

function Answer({ answer, who }: { answer: CapturedAnswer; who: string }) {
    const facts = [
        answer.error ?? (answer.status === null ? "no answer" : `status ${answer.status}`),
        answer.latency_us === null ? null : format.value(answer.latency_us / 1000, "ms"),
    ];
    return (
        <div>
            <h4>
                {answer.version}, {who} <span class="dim small">{facts.filter(Boolean).join(", ")}</span>
            </h4>
            <Body text={answer.body} bytes={answer.bytes} label={`Answer of ${answer.version}`} />
        </div>
    );
}

export function Examples({ id }: { id: string }) {
    const [pairs, setPairs] = useState<Capture[] | null>(null);
    const [error, setError] = useState<string | null>(null);
    useEffect(() => {
        void api
            .get<Capture[]>(api.rollout(id, `/examples?limit=${MOST}`))
            .then(setPairs)
            .catch((error: unknown) => setError(explain(error)));
    }, [id]);
    return (
        <Section
            title="Captured pairs"
            id="examples"
            aside={<span class="dim small">pairs that disagree first, then the newest</span>}
        >
            <Failure error={error} />
            {pairs === null ? (
                !error && (
                    <p class="dim" role="status">
                        Loading \u2026
                    </p>
                )
            ) : pairs.length === 0 ? (
                <p class="dim">
                    No pair is kept. A step with <code>mirror</code> and <code>capture</code> in the rollout file keep
                    calls that both versions answered.
                </p>
            ) : (
                pairs.map((pair) => (
                    <article class="card" key={pair.request_id}>
                        <h3>
                            {pair.reason}{" "}
                            <span class="dim small">
                                {format.time(pair.at, true)} UTC, request {pair.request_id}
                            </span>
                        </h3>
                        {pair.differences.length > 0 && <p>{pair.differences.join("; ")}</p>}
                        <Body text={pair.request} bytes={pair.request_bytes} label="Request" />
                        <div class="pair">
                            <Answer answer={pair.live} who="live" />
                            <Answer answer={pair.shadow} who="mirrored" />
                        </div>
                    </article>
                ))
            )}
        </Section>
    );
}
