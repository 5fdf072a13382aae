// The console in a real browser, against the mock controller.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, describe, test } from "node:test";
import { gzipSync } from "node:zlib";
import { start } from "../mock/server.mjs";
import { audit, browser, open } from "./browser.mjs";

let chromium;
before(async () => {
    chromium = await browser();
});
after(() => chromium.close());

const LARGE = "/rollouts/01a22fb1-0000-7000-8000-000000000009";
const VIEWS = [
    "/",
    "/?q=flights&phase=rolled_back",
    "/rollouts/search",
    "/rollouts/fraud",
    "/rollouts/flights",
    "/rollouts/flights/distributions",
    "/rollouts/fraud/examples",
    "/rollouts/flights/evidence",
    "/models/flights",
    LARGE,
    `${LARGE}/distributions`,
    `${LARGE}/evidence`,
    "/plan",
    "/nothing",
];
const post = (server, path) => fetch(`${server.url}/mock/${path}`, { method: "POST" });

describe("every view", () => {
    let server;
    before(async () => {
        server = await start();
    });
    after(() => server.stop());

    for (const [name, viewport, colorScheme] of [
        ["wide and light", { width: 1280, height: 900 }, "light"],
        ["a phone, dark", { width: 390, height: 844 }, "dark"],
    ]) {
        test(`${name}: no error, no violation of the security policy, nothing serious for axe, nothing wider than the page`, async () => {
            const page = await open(chromium, { viewport, colorScheme });
            for (const view of VIEWS) {
                await page.goto(server.url + view);
                await page.locator("main h1").waitFor();
                if (view.includes("rollouts/")) await page.locator("main article, main table").first().waitFor();
                assert.deepEqual(await audit(page), [], view);
                const [width, inner] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
                assert.ok(width <= inner, `${view}: ${width} px of content in ${inner} px`);
            }
            assert.deepEqual(
                page.problems.filter((problem) => !problem.includes("404")),
                [],
            );
            await page.close();
        });
    }

    test("a stranger finds what was tried, what went wrong, why it was rolled back and how much harm was done", async () => {
        const page = await open(chromium);
        await page.goto(server.url);
        await page
            .getByRole("listitem")
            .filter({ hasText: "origin=LGA" })
            .getByRole("link", { name: "flights", exact: true })
            .click();
        const main = page.locator("main");
        for (const text of [
            "v3 was tried in place of v2",
            "ROLLED BACK: v3; all calls go to v2",
            "for origin=LGA, the canary's rate of wrong answers is 47.9 % against 8.0 %",
            "About 29 of its 73 answers in origin=LGA would have been better from v2",
            "Failed in origin=LGA",
        ]) {
            await main.getByText(text).first().waitFor();
        }
        const matrix = page.getByRole("region", { name: "Segments" });
        assert.match(
            await matrix.locator("tbody tr").nth(1).innerText(),
            /origin=LGA[\s\S]*fail/,
            "a failed segment is on top",
        );
        await matrix.getByRole("button", { name: /fail/ }).click();
        await matrix.getByText("for origin=LGA, the canary's rate of wrong answers").waitFor();
        await page.close();
    });

    test("a verdict that comes is shown at once, without moving the page", async () => {
        const page = await open(chromium);
        await page.goto(`${server.url}/rollouts/search`);
        await page.getByRole("region", { name: "Story" }).waitFor();
        await page.locator(".tile canvas").first().waitFor();
        await post(server, "verdict");
        await page.waitForTimeout(600);
        await page.evaluate(() => {
            window.shifts = [];
            const moved = ({ sources }) => sources.map(({ node }) => node?.parentElement?.outerHTML.slice(0, 200));
            new PerformanceObserver((list) => window.shifts.push(...list.getEntries().flatMap(moved))).observe({
                type: "layout-shift",
            });
        });
        const answers = page.getByText(/v4 answered .* compared calls/);
        const old = await answers.innerText();
        for (let round = 0; round < 20; round++) await post(server, "verdict");
        await page.waitForFunction((old) => !document.body.innerText.includes(old), old);
        await page.waitForTimeout(600);
        assert.deepEqual(await page.evaluate(() => window.shifts), []);
        await page.close();
    });

    test("nodes and listeners do not grow over 1,000 updates", async () => {
        const page = await open(chromium);
        await page.goto(`${server.url}/rollouts/search`);
        await page.locator(".tile canvas").first().waitFor();
        const client = await page.context().newCDPSession(page);
        await client.send("Performance.enable");
        const measure = async () => {
            await client.send("HeapProfiler.collectGarbage");
            const { metrics } = await client.send("Performance.getMetrics");
            const of = (name) => metrics.find((metric) => metric.name === name).value;
            return { nodes: of("Nodes"), listeners: of("JSEventListeners") };
        };
        const seen = async (n) => {
            await post(server, `verdict?n=${n}`);
            await page.waitForTimeout(700);
        };
        await seen(50);
        const first = await measure();
        for (let round = 0; round < 20; round++) await seen(50);
        const last = await measure();
        assert.ok(last.nodes <= first.nodes * 1.02 + 20, `nodes: ${first.nodes} to ${last.nodes}`);
        assert.ok(last.listeners <= first.listeners + 2, `listeners: ${first.listeners} to ${last.listeners}`);
        await page.close();
    });

    test("the data gets old visibly, and is right again after the connection came back", async () => {
        const page = await open(chromium);
        await page.goto(server.url);
        await page.getByText(/Live · data \d+ s old/).waitFor();
        const other = await start({ port: 0 });
        await page.route("**/v1/stream*", (route) => route.abort());
        await post(server, "drop");
        await page.getByText(/Reconnecting · data \d+ s old/).waitFor();
        await page.unroute("**/v1/stream*");
        await page.getByText(/Live · data \d+ s old/).waitFor();
        assert.ok(await page.getByRole("link", { name: "search", exact: true }).isVisible());
        await other.stop();
        await page.close();
    });

    test("the keyboard is enough: search, open, act", async () => {
        const page = await open(chromium);
        await page.goto(server.url);
        await page.getByRole("link", { name: "pricing", exact: true }).waitFor();
        await page.keyboard.press("/");
        await page.keyboard.type("pricing");
        await page.waitForFunction(() => location.search === "?q=pricing");
        for (
            let tabs = 0;
            tabs < 6 && (await page.evaluate(() => document.activeElement.textContent)) !== "pricing";
            tabs++
        )
            await page.keyboard.press("Tab");
        await page.keyboard.press("Enter");
        await page.getByRole("button", { name: "Resume …" }).waitFor();
        await page.keyboard.press("r");
        await page.getByRole("dialog").waitFor();
        assert.ok(await page.getByRole("button", { name: "Resume", exact: true }).isDisabled(), "a reason is needed");
        await page.keyboard.type("the notes are there");
        await page.keyboard.press("Enter");
        await page.getByRole("dialog").getByText("resume by local: the notes are there").waitFor();
        await page.keyboard.press("Escape");
        await page.locator(".headline").getByText("v2 gets 25% of the calls").waitFor();
        await page.close();
    });

    test("a plan shows the problems of a file, then its forecast, and starts it", async () => {
        const page = await open(chromium);
        await page.goto(`${server.url}/plan`);
        await page.getByLabel("Rollout file").fill("kind: Rollout");
        await page.getByRole("button", { name: "Check" }).click();
        await page.getByText("line 1, column 1, apiVersion").waitFor();
        await page.getByLabel("Rollout file").fill("apiVersion: serin.dev/v1");
        await page.getByLabel("Calls of the model").fill("880/d");
        await page.getByRole("button", { name: "Check" }).click();
        await page.getByText("If the canary is worse").waitFor();
        await page.getByRole("button", { name: "Start the rollout …" }).click();
        await page.getByLabel("Reason").fill("first try");
        await page.getByRole("button", { name: "Start the rollout", exact: true }).click();
        await page.getByText("the rollout has started").waitFor();
        await page.close();
    });
});

describe("with tokens", () => {
    let server;
    before(async () => {
        server = await start({ tokens: true });
    });
    after(() => server.stop());

    const signIn = async (page, token) => {
        await page.getByLabel("Token").fill(token);
        await page.getByRole("button", { name: "Sign in" }).click();
    };

    test("a wrong token is refused, and the right one leads back to the address that was opened", async () => {
        const page = await open(chromium);
        await page.goto(`${server.url}/rollouts/fraud`);
        await signIn(page, "no-such-token");
        await page.getByRole("alert").getByText("the token is not known").waitFor();
        await signIn(page, "operator-token-of-the-mock");
        await page.getByText("HELD with v3").first().waitFor();
        assert.equal(page.url(), `${server.url}/rollouts/fraud`);
        const kept = await page.evaluate(
            () => JSON.stringify({ ...localStorage, ...sessionStorage }) + document.cookie + location.href,
        );
        assert.ok(!kept.includes("operator-token"), "the token is nowhere that a script can read");
        await page.getByRole("button", { name: "Sign out" }).click();
        await page.getByLabel("Token").waitFor();
        await page.close();
    });

    test("a viewer sees everything and can change nothing", async () => {
        const page = await open(chromium);
        await page.goto(`${server.url}/rollouts/fraud`);
        await signIn(page, "viewer-token-of-the-mock");
        await page.getByText("Only an operator can act on a rollout").waitFor();
        assert.equal(await page.getByRole("button", { name: /…$/ }).count(), 0);
        await page.keyboard.press("a");
        assert.equal(await page.getByRole("dialog").count(), 0);
        await page.close();
    });

    test("an operator ends a rollout with a reason, and sees the result", async () => {
        const page = await open(chromium);
        await page.goto(`${server.url}/rollouts/churn`);
        await signIn(page, "operator-token-of-the-mock");
        await page.getByRole("button", { name: /Abort|Roll back/ }).click();
        const dialog = page.getByRole("dialog");
        await dialog.getByText("All calls go to v2.").waitFor();
        await dialog.getByLabel("Reason").fill("it's slow");
        await dialog.getByText(`--reason 'it'\\''s slow'`).waitFor();
        await dialog.locator("button[type=submit]").click();
        await dialog.getByText("abort by ada: it's slow").waitFor();
        await dialog.getByText("In use by 1 router").waitFor();
        await dialog.getByRole("button", { name: "Close" }).click();
        await page.locator(".headline").getByText("ABORTED: v4").waitFor();
        const left = await page.getByRole("button", { name: /…$/ }).allTextContents();
        assert.deepEqual(left, ["Try again …"], "an ended rollout can only be tried again");
        await page.close();
    });

    test("an operator sets a weight, freezes and unfreezes", async () => {
        const page = await open(chromium);
        await page.goto(`${server.url}/rollouts/fraud`);
        await signIn(page, "operator-token-of-the-mock");
        const dialog = page.getByRole("dialog");
        const send = async (button, reason, command, result) => {
            await page.getByRole("button", { name: `${button} …`, exact: true }).click();
            if (button === "Set weight") await dialog.getByLabel("Share of the calls").fill("2.5");
            await dialog.getByLabel("Reason").fill(reason);
            await dialog.getByText(command).waitFor();
            await dialog.locator("button[type=submit]").click();
            await dialog.getByText(result).waitFor();
            await dialog.getByRole("button", { name: "Close" }).click();
        };
        await send(
            "Set weight",
            "small servers",
            /^serin set-weight \S+ 2\.5% --reason 'small servers'$/,
            "set-weight by ada",
        );
        await send("Freeze", "incident", "serin freeze 'fraud' --reason 'incident'", "freeze by ada: incident");
        await page.getByText("Frozen by ada").waitFor();
        assert.equal(await page.getByRole("button", { name: "Set weight …" }).count(), 0);
        await send("Unfreeze", "solved", "serin unfreeze 'fraud' --reason 'solved'", "unfreeze by ada: solved");
        await page.getByRole("button", { name: "Freeze …", exact: true }).waitFor();
        await page.close();
    });
});

test("1,000 rollouts are searched in full and drawn in part", async () => {
    const server = await start({ rollouts: 1000 });
    const page = await open(chromium);
    await page.goto(server.url);
    await page
        .getByRole("button", { name: /more of/ })
        .first()
        .waitFor();
    assert.ok((await page.locator(".row").count()) <= 90);
    await page.getByLabel("Search").fill("model-77");
    await page.waitForFunction(() => document.querySelectorAll(".row").length === 5);
    await page.close();
    await server.stop();
});

test("500 segments are sorted by a metric, worst first", async () => {
    const server = await start();
    const page = await open(chromium);
    await page.goto(server.url + LARGE);
    const matrix = page.getByRole("region", { name: "Segments" });
    await matrix.getByRole("button", { name: "a_metric_with_a_long_name_number_0" }).click();
    assert.match(await matrix.locator("tbody tr").nth(1).innerText(), /postal_code=10077[\s\S]*fail/);
    assert.equal(await matrix.locator("thead th[aria-sort=descending]").count(), 1);
    await page.close();
    await server.stop();
});

test("distributions show mirrored answers, counts per answer, and that the log was read in part", async () => {
    const server = await start();
    const page = await open(chromium);
    await page.goto(`${server.url}${LARGE}/distributions`);
    const part = page.getByRole("region", { name: "Distributions" });
    await part.locator(".key.shadow").first().waitFor();
    assert.match(await part.locator(".key.shadow").first().innerText(), /^mirrored, v\d, [\d,]+ values$/);
    assert.ok((await part.locator(".curve.shadow").count()) > 0);
    await part.getByText("0.4 per answer").first().waitFor();
    await part.getByText("only the newest 100,000 records were read").waitFor();
    await part.getByText("1,200 distributions are left out").waitFor();
    await page.close();
    await server.stop();
});

test("the page weighs less than 80 kB", async () => {
    let sum = 0;
    for (const file of ["index.html", "app.js", "app.css", "icon.svg"])
        sum += gzipSync(await readFile(new URL(`../dist/${file}`, import.meta.url))).length;
    assert.ok(sum < 80_000, `${sum} bytes`);
});
