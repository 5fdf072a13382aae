// Requests to the controller. Every path is of the public API (docs/api.md).

export class ApiError extends Error {
    constructor(
        readonly status: number,
        readonly code: string,
        message: string,
        readonly body: Record<string, unknown>,
    ) {
        super(message);
    }
}

/** Codes after which the user has to sign in. */
export const SIGN_IN = ["unauthenticated", "unknown_token", "session_over"];

async function request<T>(method: string, path: string, body?: string, type = "application/json"): Promise<T> {
    let response: Response;
    try {
        response = await fetch(path, {
            method,
            body,
            headers: body === undefined ? {} : { "content-type": type },
            credentials: "same-origin",
        });
    } catch {
        throw new ApiError(
            0,
            "unreachable",
            "The controller does not answer. Check that it runs and that you can reach it.",
            {},
        );
    }
    const json = await response.json().catch(() => null);
    if (response.ok && json !== null) return json as T;
    const found = (json ?? {}) as Record<string, unknown>;
    const message =
        typeof found["error"] === "string" ? found["error"] : `The controller answered with status ${response.status}.`;
    throw new ApiError(response.status, typeof found["code"] === "string" ? found["code"] : "", message, found);
}

export const get = <T>(path: string) => request<T>("GET", path);
export const post = <T>(path: string, body: unknown) => request<T>("POST", path, JSON.stringify(body));
export const postText = <T>(path: string, text: string) =>
    request<T>("POST", path, text, text.trimStart().startsWith("{") ? "application/json" : "application/yaml");
export const remove = <T>(path: string) => request<T>("DELETE", path);

/** The path of a rollout in the API. */
export const rollout = (id: string, rest = "") => `/v1/rollouts/${encodeURIComponent(id)}${rest}`;
