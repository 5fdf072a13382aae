// Everything that the console knows, in one place, kept up to date by one stream of the controller.

import { computed, effect, signal } from "@preact/signals";
import { ApiError, SIGN_IN, get } from "./api";
import { route } from "./route";
import type { Point, RolloutState, Session, Summary } from "./types";

export type Connection = "connecting" | "live" | "lost";

export const session = signal<Session | null>(null);
export const connection = signal<Connection>("connecting");
/** All rollouts by id, newest first. */
export const rollouts = signal<ReadonlyMap<string, Summary>>(new Map());
/** Whether the controller has read its log. */
export const complete = signal(true);
/** The state of the rollout that is open, and its newest verdict as a point of the series. */
export const open = signal<RolloutState | null>(null);
export const newest = signal<Point | null>(null);
/** How often the connection came back. What was missed meanwhile is loaded again. */
export const reconnected = signal(0);
/** When the last message came, and the present time. Both are of this browser's clock, in milliseconds. */
export const heard = signal(0);
export const now = signal(Date.now());

/** Seconds since the controller was last heard. */
export const age = computed(() =>
    heard.value === 0 ? null : Math.max(0, Math.round((now.value - heard.value) / 1000)),
);
export const mayAct = computed(() => session.value?.role === "operator");

/** Asks who is signed in. */
async function loadSession(): Promise<void> {
    try {
        const found = await get<Session>("/v1/session");
        // An equal answer is no change: the stream stays as it is.
        if (JSON.stringify(found) !== JSON.stringify(session.value)) session.value = found;
    } catch (error) {
        if (error instanceof ApiError && SIGN_IN.includes(error.code)) session.value = signedOut();
        else connection.value = "lost";
    }
}

/** Asks until the controller has answered once. */
export async function start(): Promise<void> {
    await loadSession();
    if (session.value === null) setTimeout(() => void start(), RETRY_MS);
}

const signedOut = (): Session => ({
    signed_in: false,
    name: null,
    role: null,
    by: null,
    tokens: true,
    build: session.value?.build ?? "",
});

/** Marks the session as over, so that the sign-in is shown. */
export function sessionOver(): void {
    session.value = signedOut();
}

/** A message of the stream. */
export type Message =
    | { event: "snapshot"; data: { now: number; rollouts: Summary[] } }
    | { event: "rollout"; data: Summary }
    | { event: "time"; data: { now: number; read: boolean } }
    | { event: "state"; data: RolloutState }
    | { event: "verdict"; data: Point };

const EVENTS: Message["event"][] = ["snapshot", "rollout", "time", "state", "verdict"];

/** The rollouts after a message. New ones come first. */
export function fold(known: ReadonlyMap<string, Summary>, message: Message): ReadonlyMap<string, Summary> {
    switch (message.event) {
        case "snapshot":
            return new Map(message.data.rollouts.map((one) => [one.id, one]));
        case "rollout": {
            const { id } = message.data;
            if (known.has(id)) return new Map(known).set(id, message.data);
            return new Map([[id, message.data], ...known]);
        }
        default:
            return known;
    }
}

function take(message: Message): void {
    switch (message.event) {
        case "time":
            complete.value = message.data.read;
            break;
        case "state":
            open.value = message.data;
            break;
        case "verdict":
            newest.value = message.data;
            break;
        default:
            pending.push(message);
    }
    heard.value = now.value = Date.now();
}

// Summaries of a busy fleet come in bursts. They are applied once per frame.
let pending: Message[] = [];
function flush(): void {
    if (pending.length === 0) return;
    const messages = pending;
    pending = [];
    rollouts.value = messages.reduce(fold, rollouts.value);
}

const RETRY_MS = 2000;
let source: EventSource | null = null;
let retry: ReturnType<typeof setTimeout> | undefined;

function connect(id: string | null): void {
    disconnect();
    open.value = newest.value = null;
    const stream = new EventSource(id === null ? "/v1/stream" : `/v1/stream?rollout=${encodeURIComponent(id)}`);
    source = stream;
    for (const event of EVENTS) {
        stream.addEventListener(event, (message) => {
            take({ event, data: JSON.parse((message as MessageEvent<string>).data) } as Message);
            connection.value = "live";
            schedule();
        });
    }
    stream.addEventListener("ended", () => {
        disconnect();
        sessionOver();
    });
    stream.onopen = () => {
        if (connection.value === "lost") reconnected.value += 1;
        connection.value = "live";
    };
    stream.onerror = () => {
        connection.value = "lost";
        // The browser reconnects by itself after a broken connection, but not after an answer with an error status.
        if (stream.readyState !== EventSource.CLOSED) return;
        retry = setTimeout(() => {
            void loadSession();
            if (source === stream) connect(id);
        }, RETRY_MS);
    };
}

let scheduled = false;
function schedule(): void {
    if (scheduled) return;
    scheduled = true;
    // A hidden page gets no frames.
    const run = () => {
        scheduled = false;
        flush();
    };
    if (document.hidden) setTimeout(run, 0);
    else requestAnimationFrame(run);
}

function disconnect(): void {
    clearTimeout(retry);
    source?.close();
    source = null;
}

/** Keeps one stream open while a user is signed in, with the details of a rollout while its page is shown. */
export function follow(): void {
    const subject = computed(() => {
        if (!session.value?.signed_in) return undefined;
        return route.value.view === "rollout" ? route.value.id : null;
    });
    effect(() => {
        const id = subject.value;
        if (id === undefined) disconnect();
        else connect(id);
    });
    setInterval(() => (now.value = Date.now()), 1000);
}
