// The console: the frame around the views, the sign-in and the shortcuts.

import { render } from "preact";
import { useEffect, useState } from "preact/hooks";
import * as api from "./api";
import { Asked, asking } from "./parts/act";
import { askFor } from "./parts/actions";
import * as routes from "./route";
import * as store from "./store";
import type { Session } from "./types";
import * as words from "./words";
import { Fleet } from "./views/fleet";
import { ModelView } from "./views/model";
import { PlanView } from "./views/plan";
import { RolloutView } from "./views/rollout";
import { SignIn } from "./views/signin";
import "../node_modules/uplot/dist/uPlot.min.css";
import "./app.css";
import "./views.css";

/** Without a message for this long, the data is called old. */
const OLD = 12;

function Status() {
    const { connection, age, heard } = store;
    const old = age.value !== null && age.value > OLD;
    const lost = connection.value === "lost" || old;
    const text =
        heard.value === 0
            ? connection.value === "lost"
                ? "Not connected"
                : "Connecting …"
            : `${lost ? "Reconnecting" : "Live"} · data ${age.value} s old`;
    return (
        <span class={`status ${lost ? "lost" : ""}`} role="status" aria-live="off">
            <span aria-hidden="true">{lost ? "○" : "●"}</span> {text}
        </span>
    );
}

function Who() {
    const who = store.session.value;
    if (!who?.signed_in) return null;
    if (!who.tokens)
        return (
            <span class="dim who" title="The controller has no tokens, so every user of this machine is an operator.">
                local operator
            </span>
        );
    const out = async () => {
        store.session.value = await api.remove<Session>("/v1/session");
    };
    return (
        <span class="who">
            <span class="dim">
                {who.name} ({who.role})
            </span>{" "}
            <button type="button" class="plain link" onClick={out}>
                Sign out
            </button>
        </span>
    );
}

const SHORTCUTS: [string, string][] = [
    ["/", "search the rollouts"],
    ["f", "all rollouts"],
    ["n", "plan a rollout"],
    ["p", "pause"],
    ["r", "resume"],
    ["a", "abort or roll back"],
    ["?", "this list"],
];

function Help({ close }: { close: () => void }) {
    return (
        <dialog
            ref={(element) => {
                if (element && !element.open) element.showModal();
            }}
            onClose={close}
            aria-labelledby="help-title"
        >
            <h2 id="help-title">Keyboard shortcuts</h2>
            <dl class="shortcuts">
                {SHORTCUTS.map(([key, what]) => (
                    <>
                        <dt>
                            <kbd>{key}</kbd>
                        </dt>
                        <dd>{what}</dd>
                    </>
                ))}
            </dl>
            <div class="buttons end">
                <button type="button" class="primary" onClick={close}>
                    Close
                </button>
            </div>
        </dialog>
    );
}

function shortcut(event: KeyboardEvent, help: () => void): void {
    const typing = (event.target as Element).closest("input, textarea, select, dialog");
    if (typing || event.ctrlKey || event.metaKey || event.altKey || asking()) return;
    const act = (verb: string) => {
        const state = store.open.value;
        const action = state && words.actions(state, null).find((one) => one.verb === verb);
        if (state && action) askFor(state, action);
    };
    const keys: Record<string, () => void> = {
        "/": () => {
            const search = () => document.getElementById("search");
            if (search()) return search()!.focus();
            routes.go("/");
            requestAnimationFrame(() => search()?.focus());
        },
        f: () => routes.go("/"),
        n: () => routes.go("/plan"),
        p: () => act("pause"),
        r: () => act("resume"),
        a: () => act("abort"),
        "?": help,
    };
    const found = keys[event.key];
    if (found) {
        event.preventDefault();
        found();
    }
}

function View() {
    const route = routes.route.value;
    const who = store.session.value;
    if (who === null)
        return store.connection.value === "lost" ? (
            <p role="alert">The controller does not answer. Trying again …</p>
        ) : null;
    if (!who.signed_in || (route.view === "sign-in" && who.tokens && who.by !== "cookie")) return <SignIn />;
    switch (route.view) {
        case "fleet":
        case "sign-in":
            return <Fleet />;
        case "rollout":
            return <RolloutView key={route.id} id={route.id} tab={route.tab} />;
        case "model":
            return <ModelView key={route.model} model={route.model} />;
        case "plan":
            return <PlanView />;
        case "unknown":
            return (
                <>
                    <h1>No such page</h1>
                    <p>
                        <a href="/">All rollouts</a>
                    </p>
                </>
            );
    }
}

/** The page's title. A rollout's starts with its sign and phase, to be read on a tab. */
function title(): string {
    const route = routes.route.value;
    const state = store.open.value;
    if (route.view === "rollout" && state)
        return `${words.sign(state.phase)} ${state.spec.model} ${words.phase(state.phase)} · Serin`;
    if (route.view === "model") return `${route.model} · Serin`;
    return route.view === "plan" ? "Plan · Serin" : "Serin";
}

function App() {
    const [help, setHelp] = useState(false);
    useEffect(() => {
        const pressed = (event: KeyboardEvent) => shortcut(event, () => setHelp(true));
        addEventListener("keydown", pressed);
        return () => removeEventListener("keydown", pressed);
    }, []);
    const text = title();
    useEffect(() => void (document.title = text), [text]);
    const view = routes.route.value.view;
    return (
        <>
            <a class="skip" href="#main">
                Skip to the content
            </a>
            <header class="top">
                <a href="/" class="brand">
                    <img src="/console/icon.svg" alt="" width="22" height="22" />
                    Serin
                </a>
                <nav aria-label="Main">
                    <a href="/" aria-current={view === "fleet" ? "page" : undefined}>
                        Rollouts
                    </a>
                    <a href="/plan" aria-current={view === "plan" ? "page" : undefined}>
                        Plan
                    </a>
                </nav>
                <span class="grow" />
                {store.session.value?.signed_in && <Status />}
                <Who />
                <button type="button" class="plain help" aria-label="Keyboard shortcuts" onClick={() => setHelp(true)}>
                    ?
                </button>
            </header>
            <main id="main" tabIndex={-1}>
                <View />
            </main>
            <Asked />
            {help && <Help close={() => setHelp(false)} />}
        </>
    );
}

routes.follow();
store.follow();
void store.start();
render(<App />, document.getElementById("app")!);
