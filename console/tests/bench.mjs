// Measures the console in Chromium against the mock controller, and prints the table of docs/console.md.

import { start } from "../mock/server.mjs";
import { browser, open } from "./browser.mjs";

const chromium = await browser();
const rows = [];
const row = (what, wanted, measured) => rows.push(`| ${what} | ${wanted} | ${measured} |`);
const median = (list) => [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)];

const server = await start({ rollouts: 1000 });
const paints = [];
for (let round = 0; round < 7; round++) {
    const page = await open(chromium);
    await page.goto(server.url);
    await page.locator(".row").first().waitFor();
    paints.push(await page.evaluate(() => performance.getEntriesByName("first-contentful-paint")[0].startTime));
    await page.close();
}
row("first paint, loopback, empty cache", "200 ms", `${median(paints).toFixed(0)} ms`);

const page = await open(chromium);
await page.goto(server.url);
await page.locator(".row").first().waitFor();
/** The time from a key to the next frame that shows its effect. */
const typed = [];
for (const letter of "model-77") {
    typed.push(
        await page.evaluate(async (letter) => {
            const search = document.getElementById("search");
            const from = performance.now();
            search.value += letter;
            search.dispatchEvent(new Event("input", { bubbles: true }));
            await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
            return performance.now() - from;
        }, letter),
    );
}
row("a letter in the search with 1,000 rollouts, slowest of 8", "100 ms", `${Math.max(...typed).toFixed(0)} ms`);
await page.locator("#search").fill("");
const all = await page.evaluate(async () => {
    const from = performance.now();
    [...document.querySelectorAll("main button")].find((button) => button.textContent.includes("more of")).click();
    await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
    return performance.now() - from;
});
row("200 more rows", "100 ms", `${all.toFixed(0)} ms`);
await page.goto(`${server.url}/rollouts/01a22fb1-0000-7000-8000-000000000009`);
await page.getByRole("region", { name: "Segments" }).waitFor();
const sorted = [];
for (const name of [
    "wrong_rate",
    "a_metric_with_a_long_name_number_1",
    "a_metric_with_a_long_name_number_2",
    "segment",
]) {
    sorted.push(
        await page.evaluate(async (name) => {
            const button = [...document.querySelectorAll(".matrix thead button")].find((button) =>
                button.textContent.startsWith(name),
            );
            const from = performance.now();
            button.click();
            await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0)));
            return performance.now() - from;
        }, name),
    );
}
row("sorting 500 segments with four metrics, slowest of 4", "100 ms", `${Math.max(...sorted).toFixed(0)} ms`);
await page.close();

const live = await open(chromium);
await live.goto(`${server.url}/rollouts/search`);
await live.locator(".tile canvas").first().waitFor();
const client = await live.context().newCDPSession(live);
await client.send("Performance.enable");
const heap = async () => {
    await client.send("HeapProfiler.collectGarbage");
    return (
        (await client.send("Performance.getMetrics")).metrics.find((one) => one.name === "JSHeapUsedSize").value / 1e6
    );
};
const update = async (n) => {
    await fetch(`${server.url}/mock/verdict?n=${n}`, { method: "POST" });
    await live.waitForTimeout(400);
};
// The series is full after 600 points.
for (let round = 0; round < 14; round++) await update(50);
const before = await heap();
for (let round = 0; round < 72; round++) await update(50);
row(
    "heap after 3,600 more verdicts (an hour of one a second)",
    "flat",
    `${before.toFixed(1)} to ${(await heap()).toFixed(1)} MB`,
);
await live.close();
await chromium.close();
await server.stop();
console.log(["| what | wanted | measured |", "|---|---|---|", ...rows].join("\n"));
