// Small pieces that several views share.

import type { ComponentChildren } from "preact";
import { signal } from "@preact/signals";
import { SIGN_IN, ApiError } from "../api";
import { sessionOver } from "../store";
import type { Phase, Result } from "../types";
import * as words from "../words";

/** The phase of a rollout: a sign, a word and a color. */
export function PhaseChip({ phase }: { phase: Phase }) {
    return (
        <span class={`chip ${words.tone(phase)}`}>
            <span aria-hidden="true">{words.sign(phase)}</span> {words.phase(phase)}
        </span>
    );
}

/** The result of a check: a sign, a word and a color. */
export function ResultChip({ result }: { result: Result }) {
    return (
        <span class={`chip result-${result}`}>
            <span aria-hidden="true">{words.resultSign(result)}</span> {words.result(result)}
        </span>
    );
}

export function Section({
    title,
    id,
    aside,
    children,
}: {
    title: string;
    id: string;
    aside?: ComponentChildren;
    children: ComponentChildren;
}) {
    return (
        <section aria-labelledby={id} class="panel">
            <header class="panel-head">
                <h2 id={id}>{title}</h2>
                {aside}
            </header>
            {children}
        </section>
    );
}

/** A table or a list that may be wider than the page. It scrolls by itself, with the keyboard too. */
export function Scroll({ label, children }: { label: string; children: ComponentChildren }) {
    return (
        <div class="scroll" role="group" aria-label={label} tabIndex={0}>
            {children}
        </div>
    );
}

/** A failure of a request, in words. */
export function Failure({ error }: { error: string | null }) {
    return error === null ? null : (
        <p class="failure" role="alert">
            <span aria-hidden="true">✘ </span>
            {error}
        </p>
    );
}

/** The text of an error. A session that is over shows the sign-in. */
export function explain(error: unknown): string {
    if (error instanceof ApiError && SIGN_IN.includes(error.code)) sessionOver();
    return error instanceof Error ? error.message : String(error);
}

const copied = signal<string | null>(null);

/** A command or text that can be copied. */
export function Copyable({ text, label }: { text: string; label: string }) {
    const copy = () =>
        void navigator.clipboard?.writeText(text).then(() => {
            copied.value = text;
            setTimeout(() => copied.value === text && (copied.value = null), 1500);
        });
    return (
        <div class="copyable">
            <p class="small">{label}</p>
            <pre tabIndex={0} aria-label={label}>
                {text}
            </pre>
            <button type="button" onClick={copy} aria-label={`Copy: ${label}`}>
                {copied.value === text ? "Copied" : "Copy"}
            </button>
        </div>
    );
}
