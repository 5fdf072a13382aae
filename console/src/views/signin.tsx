// The sign-in with a token. The token goes to the controller once, which answers with a cookie that scripts cannot read.

import { useState } from "preact/hooks";
import * as api from "../api";
import { Failure } from "../parts/ui";
import { go, route } from "../route";
import { session } from "../store";
import type { Session } from "../types";

export function SignIn() {
    const [token, setToken] = useState("");
    const [error, setError] = useState<string | null>(null);
    const [busy, setBusy] = useState(false);
    const send = async (event: Event) => {
        event.preventDefault();
        setBusy(true);
        try {
            session.value = await api.post<Session>("/v1/session", { token });
            if (route.value.view === "sign-in") go("/", true);
        } catch (error) {
            setError(error instanceof Error ? error.message : String(error));
        }
        setBusy(false);
    };
    return (
        <form class="panel sign-in" onSubmit={send}>
            <h1>Sign in to Serin</h1>
            <label>
                Token
                <input
                    type="password"
                    autocomplete="current-password"
                    autoFocus
                    required
                    value={token}
                    onInput={(event) => setToken(event.currentTarget.value)}
                />
            </label>
            <p class="dim small">
                One of <code>controller.tokens</code>. An operator may act, a viewer may only look.
            </p>
            <Failure error={error} />
            <div class="buttons end">
                <button type="submit" class="primary" disabled={busy || token === ""}>
                    Sign in
                </button>
            </div>
        </form>
    );
}
