// The address of the page. Every view has its own, so that it can be sent to others.

import { computed, signal } from "@preact/signals";

export type Route =
    | { view: "fleet" }
    | { view: "rollout"; id: string; tab: string }
    | { view: "model"; model: string }
    | { view: "plan" }
    | { view: "sign-in" }
    | { view: "unknown" };

/** The route of a path. */
export function parse(path: string): Route {
    const [first, ...rest] = path.split("/").filter(Boolean).map(decoded);
    if (first === undefined) return { view: "fleet" };
    if (first === "rollouts" && rest[0]) return { view: "rollout", id: rest[0], tab: rest[1] ?? "metrics" };
    if (first === "models" && rest[0]) return { view: "model", model: rest[0] };
    if (first === "plan" || first === "sign-in") return { view: first };
    return { view: "unknown" };
}

function decoded(part: string): string {
    try {
        return decodeURIComponent(part);
    } catch {
        return part;
    }
}

const here = signal(location.pathname + location.search);
export const route = computed(() => parse(here.value.split("?")[0]!));
export const query = computed(() => new URLSearchParams(here.value.split("?")[1] ?? ""));

export const toRollout = (id: string, tab = "") =>
    `/rollouts/${encodeURIComponent(id)}${tab && tab !== "metrics" ? `/${tab}` : ""}`;
export const toModel = (model: string) => `/models/${encodeURIComponent(model)}`;

/** Goes to an address of the console. `replace` adds no entry to the browser's history. */
export function go(to: string, replace = false): void {
    history[replace ? "replaceState" : "pushState"](null, "", to);
    const before = here.value.split("?")[0];
    here.value = to;
    if (before !== to.split("?")[0] && !replace) {
        scrollTo(0, 0);
        // Screen readers and the keyboard start at the new view.
        document.getElementById("main")?.focus({ preventScroll: true });
    }
}

/** Follows the browser's history and makes clicks on links of the console change the view without loading the page again. */
export function follow(): void {
    addEventListener("popstate", () => (here.value = location.pathname + location.search));
    addEventListener("click", (event) => {
        const link = (event.target as Element).closest?.("a[href]") as HTMLAnchorElement | null;
        const plain = event.button === 0 && !event.metaKey && !event.ctrlKey && !event.shiftKey && !event.altKey;
        if (!link || !plain || link.origin !== location.origin || link.target || link.hasAttribute("download")) return;
        if (link.pathname.startsWith("/v1/") || link.pathname.startsWith("/console/")) return;
        if (link.hash && link.pathname === location.pathname) return;
        event.preventDefault();
        go(link.pathname + link.search);
    });
}
