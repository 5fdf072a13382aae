// Buttons that change something. Each shows its consequence and asks for a reason before it sends anything.

import { signal } from "@preact/signals";
import { useEffect, useRef, useState } from "preact/hooks";
import * as api from "../api";
import { mayAct, session } from "../store";
import type { Answer } from "../types";
import { explain, Failure } from "./ui";

export interface Request {
    title: string;
    /** The label of the button that sends it. */
    label: string;
    consequence: string;
    danger: boolean;
    /** Asks for the share of the calls in percent, as the second argument of the functions below. */
    asksWeight?: boolean;
    /** The same on the command line. */
    command: (reason: string, weight: string) => string;
    send: (reason: string, weight: string) => Promise<Answer>;
    /** Called with the answer when it was not refused. */
    done?: (answer: Answer) => void;
}

const asked = signal<Request | null>(null);

/** Asks for a reason, then sends a request. */
export function ask(request: Request): void {
    if (mayAct.value) asked.value = request;
}

/** Whether the question is open. Shortcuts are off meanwhile. */
export const asking = () => asked.value !== null;

export const quoted = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;

/** Sends an action on a rollout. */
export const act = (id: string, verb: string, more: Record<string, unknown>) =>
    api.post<Answer>(api.rollout(id, `/${verb}?wait_ms=10000`), more);

/** Starts or ends a freeze. */
export const freeze = (verb: string, models: string, reason: string) =>
    api.post<Answer>(`/v1/${verb}?wait_ms=10000`, { models, reason });

export const stopAll: () => void = () =>
    ask({
        title: "Stop all rollouts",
        label: "Stop all rollouts",
        danger: true,
        consequence:
            "Every running rollout of every model ends now, and all calls go to the stable versions. Waiting rollouts are dropped.",
        command: (reason) => `serin stop --all --reason ${quoted(reason)}`,
        send: (reason) => api.post<Answer>("/v1/stop-all?wait_ms=10000", { reason }),
    });

export function Asked() {
    const request = asked.value;
    return request === null ? null : <Question key={request.title} request={request} />;
}

function Question({ request }: { request: Request }) {
    const dialog = useRef<HTMLDialogElement>(null);
    const [reason, setReason] = useState("");
    const [weight, setWeight] = useState("");
    const [busy, setBusy] = useState(false);
    const [error, setError] = useState<string | null>(null);
    const [answer, setAnswer] = useState<Answer | null>(null);
    const close = () => (asked.value = null);
    useEffect(() => dialog.current?.showModal(), []);
    const send = async (event: Event) => {
        event.preventDefault();
        setBusy(true);
        setError(null);
        try {
            const answer = await request.send(reason.trim(), `${weight.trim()}%`);
            setAnswer(answer);
            request.done?.(answer);
        } catch (error) {
            setError(explain(error));
        }
        setBusy(false);
    };
    return (
        <dialog ref={dialog} onClose={close} aria-labelledby="ask-title">
            <form onSubmit={send}>
                <h2 id="ask-title">{request.title}</h2>
                {answer === null ? (
                    <>
                        <p>{request.consequence}</p>
                        {request.asksWeight && (
                            <label>
                                Share of the calls, in %
                                <input
                                    value={weight}
                                    inputMode="decimal"
                                    pattern="[0-9]+([.][0-9]+)?"
                                    maxLength={6}
                                    required
                                    autoFocus
                                    onInput={(event) => setWeight(event.currentTarget.value)}
                                />
                            </label>
                        )}
                        <label>
                            Reason, for the audit log
                            <input
                                value={reason}
                                maxLength={500}
                                required
                                autoFocus={!request.asksWeight}
                                onInput={(event) => setReason(event.currentTarget.value)}
                            />
                        </label>
                        <p class="dim small">
                            On the command line:{" "}
                            <code>{request.command(reason.trim() || "REASON", `${weight.trim() || "PERCENT"}%`)}</code>
                        </p>
                        <Failure error={error} />
                        <div class="buttons end">
                            <button type="button" onClick={() => dialog.current?.close()}>
                                Cancel
                            </button>
                            <button
                                type="submit"
                                class={request.danger ? "danger" : "primary"}
                                disabled={busy || reason.trim() === "" || (request.asksWeight && weight.trim() === "")}
                            >
                                {busy ? "Waiting for the result …" : request.label}
                            </button>
                        </div>
                    </>
                ) : (
                    <>
                        <p role="status">{answer.sentence ?? "The command is on the log. It has no result yet."}</p>
                        {answer.applied && (
                            <p class="dim">
                                {answer.applied.done
                                    ? `In use by ${answer.applied.routers.length === 1 ? "1 router" : `${answer.applied.routers.length} routers`}.`
                                    : `Not in use everywhere yet: ${answer.applied.waits_for}.`}
                            </p>
                        )}
                        <div class="buttons end">
                            <button type="button" class="primary" autoFocus onClick={() => dialog.current?.close()}>
                                Close
                            </button>
                        </div>
                    </>
                )}
            </form>
        </dialog>
    );
}

/** Why there are no buttons. */
export function ReadOnly() {
    const who = session.value;
    return mayAct.value || !who?.signed_in ? null : (
        <p class="dim">
            You are signed in as {who.name} ({who.role}). Only an operator can act on a rollout.
        </p>
    );
}
