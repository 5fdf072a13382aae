// Takes the screenshots of the docs: `node tests/screenshots.mjs FOLDER [all]`. With `all` also those of a phone and of the dark colors.

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { browser } from "./browser.mjs";
import { start } from "../mock/server.mjs";

const [folder = "screenshots", all] = process.argv.slice(2);
await mkdir(folder, { recursive: true });
const server = await start();
const chromium = await browser();
/** The views that the docs show. */
const SHOWN = ["fleet", "rolled-back", "held", "distributions", "plan"];
const VIEWS = {
    fleet: "/",
    "rolled-back": "/rollouts/flights-segment",
    baking: "/rollouts/search",
    held: "/rollouts/fraud",
    distributions: "/rollouts/flights-latency/distributions",
    evidence: "/rollouts/flights-segment/evidence",
    model: "/models/flights",
    plan: "/plan",
};
const known = await (await fetch(`${server.url}/v1/rollouts`)).json();
const id = (canary) => known.find((state) => state.spec.model === "flights" && state.spec.canary.version === canary).id;

for (const [name, width, scheme] of all
    ? [
          ["wide", 1280, "light"],
          ["wide-dark", 1280, "dark"],
          ["phone", 390, "light"],
          ["phone-dark", 390, "dark"],
      ]
    : [["wide", 1280, "light"]]) {
    const page = await chromium.newPage({ viewport: { width, height: 1000 }, colorScheme: scheme });
    for (const [view, path] of Object.entries(VIEWS)) {
        if (!all && !SHOWN.includes(view)) continue;
        await page.goto(server.url + path.replace("flights-segment", id("v3")).replace("flights-latency", id("v4")));
        if (view === "plan") {
            await page
                .getByLabel("Rollout file")
                .fill("apiVersion: serin.dev/v1\nkind: Rollout\nmodel: flights\n# ...");
            await page.getByLabel("Calls of the model").fill("880/d");
            await page.getByRole("button", { name: "Check" }).click();
            await page.getByText("If the canary is worse").waitFor();
        }
        await page.locator("main h1").waitFor();
        await page.waitForTimeout(300);
        await page.waitForTimeout(400);
        await page.screenshot({
            path: join(folder, all ? `${name}-${view}.png` : `console-${view}.png`),
            fullPage: Boolean(all),
        });
    }
    await page.close();
}
await chromium.close();
await server.stop();
