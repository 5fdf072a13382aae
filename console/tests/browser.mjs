// The browser of the tests: Chromium of the system, or the one that SERIN_CHROMIUM names.

import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { chromium } from "playwright-core";

const PLACES = [process.env.SERIN_CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/** Starts the browser. */
export async function browser() {
    const executablePath = PLACES.find((place) => place && existsSync(place));
    if (!executablePath)
        throw new Error("no Chromium found: install the package `chromium`, or set SERIN_CHROMIUM to the path of one");
    return chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
}

/** Opens a page of its own. `problems` collects its errors, with those of the security policy. */
export async function open(chromium, options = {}) {
    const page = await chromium.newPage({ viewport: { width: 1280, height: 900 }, ...options });
    page.setDefaultTimeout(15_000);
    page.problems = [];
    page.on("pageerror", (error) => page.problems.push(String(error)));
    page.on("console", (message) => {
        if (message.type() === "error") page.problems.push(message.text());
    });
    return page;
}

const axe = await readFile(new URL("../node_modules/axe-core/axe.min.js", import.meta.url), "utf8");

/** What axe finds serious or critical. */
export async function audit(page) {
    // The debugger protocol runs the script in spite of the security policy.
    if (!(await page.evaluate(() => "axe" in window))) await page.evaluate(axe);
    return page.evaluate(async () => {
        const { violations } = await window.axe.run(document, { resultTypes: ["violations"] });
        return violations
            .filter(({ impact }) => impact === "serious" || impact === "critical")
            .map(
                ({ id, nodes }) =>
                    `${id}: ${nodes
                        .slice(0, 3)
                        .map(({ html }) => html.slice(0, 160))
                        .join(" | ")}`,
            );
    });
}
