// The search for contrasts in a real browser, against the mock controller.

import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { start } from "../mock/server.mjs";
import { audit, browser, open } from "./browser.mjs";

let chromium;
let server;
before(async () => {
    chromium = await browser();
    server = await start();
});
after(async () => {
    await chromium.close();
    await server.stop();
});

const section = (page) => page.getByRole("region", { name: "Contrasts" });

for (const [name, viewport, colorScheme] of [
    ["wide and light", { width: 1280, height: 900 }, "light"],
    ["a phone, dark", { width: 390, height: 844 }, "dark"],
]) {
    test(`${name}: a held rollout is searched on request, and leads come with their multiplicity`, async () => {
        const page = await open(chromium, { viewport, colorScheme });
        const asked = [];
        page.on("request", (request) => request.url().endsWith("/contrasts") && asked.push(request.url()));
        await page.goto(`${server.url}/rollouts/fraud`);
        const part = section(page);
        await part.waitFor();
        assert.equal(asked.length, 0, "the log is read on request only");
        await part.getByRole("button", { name: "Search for contrasts" }).click();
        await part.getByText("2 leads, strongest first").waitFor();
        await part.getByText("It is not a verdict").waitFor();
        await part.getByText("Looked at 412 contrasts, once. 37 more had too few answers.").waitFor();
        await part.getByText("so p alone is at most 0.000121").waitFor();
        const rows = await part.locator("tbody tr").allInnerTexts();
        assert.equal(rows.length, 2, "contrasts within chance are not among leads");
        assert.match(
            rows[0],
            /origin=LGA and carrier=UA\s+48.3 % against 7.1 %\s+8.12 % against 8.33 %\s+58 and 116\s+6.2/,
        );
        assert.match(rows[0], /6e-10\s+2e-7\s+events/);
        assert.match(rows[1], /share of captured pairs that differ[\s\S]*威尔士\s+61 %\s+4 %\s+64 captured pairs/);
        await part.getByText("only the newest 50,000 records").waitFor();
        await part.getByText(/serin explain \S+ --contrasts/).waitFor();
        await part.getByRole("button", { name: "Search again" }).waitFor();
        assert.equal(asked.length, 1);
        assert.deepEqual(await audit(page), []);
        const [width, inner] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
        assert.ok(width <= inner, `${width} px of content in ${inner} px`);
        assert.deepEqual(page.problems, []);
        if (process.env.SERIN_SHOTS)
            await part.screenshot({ path: `${process.env.SERIN_SHOTS}/contrasts-${colorScheme}.png` });
        await page.close();
    });
}

test("a search without a lead says so, and shows the strongest contrasts as chance", async () => {
    const page = await open(chromium);
    await page.goto(`${server.url}/rollouts/flights`);
    const part = section(page);
    await part.getByRole("button", { name: "Search for contrasts" }).click();
    await part.getByText("No lead: no part of the calls stands out.").waitFor();
    await part.getByText("within what chance gives").waitFor();
    assert.equal(await part.locator("tbody tr").count(), 2);
    await part.getByText("no pair is captured yet").waitFor();
    const nothing = { level: 0.05, looked: 0, too_few: 12, strongest: [], read: [], notes: [] };
    await page.route("**/contrasts", (route) => route.fulfill({ json: nothing }));
    await part.getByRole("button", { name: "Search again" }).click();
    await part.getByText("No lead: there is too little to search.").waitFor();
    await part.getByText("No contrast had enough answers; 12 had too few.").waitFor();
    await page.close();
});

test("a search that fails names the cause, and can be repeated", async () => {
    const page = await open(chromium);
    await page.goto(`${server.url}/rollouts/churn`);
    const part = section(page);
    await page.route("**/contrasts", (route) =>
        route.fulfill({ status: 503, json: { code: "unavailable", error: "the log cannot be read: broker down" } }),
    );
    await part.getByRole("button", { name: "Search for contrasts" }).click();
    await part.getByRole("alert").getByText("the log cannot be read: broker down").waitFor();
    await page.unroute("**/contrasts");
    await part.getByRole("button", { name: "Search for contrasts" }).click();
    await part.getByText("2 leads").waitFor();
    assert.equal(await part.getByRole("alert").count(), 0);
    await page.close();
});

test("a rollout without a finding offers no search", async () => {
    const page = await open(chromium);
    await page.goto(`${server.url}/rollouts/ranking`);
    await page.getByRole("region", { name: "Story" }).waitFor();
    assert.equal(await section(page).count(), 0);
    await page.close();
});
