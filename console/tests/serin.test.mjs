// The console in a real browser, served by a real `serin up`.

import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";
import { audit, browser, open } from "./browser.mjs";
import { Pipeline } from "./serin.mjs";

let chromium;
before(async () => {
    chromium = await browser();
});
after(() => chromium?.close());

const LONG = { timeout: 90_000 };

test("the demo is watched: a live ramp, a failure in one segment, its harm, and a controller that was killed", async () => {
    const serin = await Pipeline.start([
        "router.clock=replay",
        "aggregator.writer_ttl=1000d",
        "aggregator.max_skew=1000d",
    ]);
    try {
        const page = await open(chromium);
        await page.goto(serin.url);
        await page.getByText("No rollout yet").waitFor();
        const demo = serin.run("demo", "--attach", `${serin.router},${serin.admin},${serin.url}`, "--pace", "300ms");
        await page.getByRole("link", { name: "flights", exact: true }).first().click(LONG);

        // The ramp goes up while the page is open.
        const headline = page.locator(".headline");
        await headline.getByText("v2 gets 10% of the calls, step 1 of 3").waitFor(LONG);
        await headline.getByText("v2 gets 25% of the calls, step 2 of 3").waitFor(LONG);
        await page.getByText("Served between the last two verdicts:").waitFor(LONG);
        await headline.getByText("PROMOTED: v2").waitFor(LONG);
        assert.ok((await page.locator(".tile canvas").count()) >= 6);

        // A rollout that fails in one segment says where, why and how much harm was done.
        await page.getByRole("link", { name: "Rollouts" }).first().click();
        await page
            .locator(".row")
            .filter({ hasText: "ROLLED BACK: v3" })
            .getByRole("link", { name: "flights", exact: true })
            .click(LONG);
        await page.locator(".cause").getByText("for origin=LGA, the canary's rate of wrong answers").waitFor();
        await page
            .locator(".harm")
            .getByText(/About \d+ of its \d+ answers in origin=LGA would have been better from v2/)
            .waitFor();
        await page.getByRole("region", { name: "Segments" }).getByRole("button", { name: /fail/ }).click();
        await page
            .getByRole("region", { name: "Segments" })
            .getByText("at least 5 points worse with 99 % confidence at every look")
            .waitFor();
        assert.deepEqual(await audit(page), []);
        await page.getByRole("link", { name: "Distributions" }).click();
        await page.locator(".distribution").first().waitFor(LONG);
        await page.getByRole("link", { name: "Evidence" }).click();
        await page.getByText(/serin replay --rollout/).waitFor();

        const [status] = await demo.ended;
        assert.equal(status, 0, demo.output());

        // The page notices that the controller is gone, and shows the same when it is back.
        await serin.process.kill();
        await page.getByText(/Reconnecting/).waitFor(LONG);
        await serin.up();
        await page.getByText(/Live · data/).waitFor(LONG);
        await headline.getByText("ROLLED BACK: v3").waitFor();
        await page.setViewportSize({ width: 390, height: 844 });
        await page.getByRole("link", { name: "Rollouts" }).first().click();
        await page.locator(".row").filter({ hasText: "ROLLED BACK: v4" }).waitFor();
        assert.equal(await page.locator(".row").count(), 3);
        assert.ok(
            await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth),
            "nothing is wider than a phone",
        );
        assert.deepEqual(
            page.problems.filter((problem) => !problem.includes("net::ERR_")),
            [],
        );
    } finally {
        await serin.stop();
    }
});

describe("with tokens", () => {
    const [operator, viewer] = ["an-operator-token-for-the-console", "a-viewer-token-for-the-console-too"];
    let serin;
    let file;
    before(async () => {
        serin = await Pipeline.start([
            "controller.tokens.ada.role=operator",
            `controller.tokens.ada.token=${operator}`,
            "controller.tokens.vic.role=viewer",
            `controller.tokens.vic.token=${viewer}`,
        ]);
        const [stable, canary] = [await serin.modelServer("--version", "1"), await serin.modelServer("--version", "2")];
        serin.run("load", "fraud", "--to", serin.router, "--rate", "50/s");
        file = `apiVersion: serin.dev/v1
kind: Rollout
model: fraud
stable: {version: "1", url: "${stable}"}
canary: {version: "2", url: "${canary}"}
window: 1s
warmup: {minEvents: 50}
steps:
  - {weight: 20%, bake: {min: 10m, max: 20m}}
outputs:
  - {name: score, source: {tensor: score}, min: 0, max: 1}
metrics:
  - {name: wrong, kind: rate, source: {wrong: {output: score, label: fraud}}, maturity: 3s, margin: {absolute: 0.05}}
`;
    });
    after(() => serin?.stop());

    const signIn = async (page, token) => {
        await page.getByLabel("Token").fill(token);
        await page.getByRole("button", { name: "Sign in" }).click();
    };

    test("an operator plans a rollout, starts it, pauses it and rolls it back; a viewer only looks", async () => {
        const page = await open(chromium);
        await page.goto(`${serin.url}/plan`);
        await signIn(page, "not-a-token-of-this-controller-at-all");
        await page.getByRole("alert").waitFor();
        await signIn(page, operator);
        await page.getByLabel("Rollout file").fill(file.replace("window: 1s", "windoww: 1s"));
        await page.getByRole("button", { name: "Check" }).click();
        await page.getByText(/error, line 6, column 1/).waitFor();
        await page.getByLabel("Rollout file").fill(file);
        await page.getByLabel("Calls of the model").fill("50/s");
        await page.getByRole("button", { name: "Check" }).click();
        await page.getByText("If the canary is worse").waitFor(LONG);
        const answer = async (name, reason) => {
            await page.getByRole("button", { name: `${name} …` }).click();
            await page.getByLabel("Reason").fill(reason);
            await page.getByRole("dialog").locator("button[type=submit]").click();
            await page.getByRole("dialog").getByRole("button", { name: "Close" }).click(LONG);
        };
        await answer("Start the rollout", "first try");
        const headline = page.locator(".headline");
        await headline.getByText("version 2 gets 20% of the calls").waitFor(LONG);
        await page.getByText(/Served between the last two verdicts/).waitFor(LONG);
        await answer("Pause", "lunch");
        await headline.getByText("PAUSED by ada").waitFor(LONG);

        const other = await open(chromium);
        await other.goto(page.url());
        await signIn(other, viewer);
        await other.getByText("Only an operator can act on a rollout").waitFor();
        assert.equal(await other.getByRole("button", { name: /…$/ }).count(), 0);
        const refused = await other.evaluate(() =>
            fetch("/v1/rollouts/fraud/abort", {
                method: "POST",
                body: "{}",
                headers: { "content-type": "application/json" },
            }).then((answer) => answer.status),
        );
        assert.equal(refused, 403);

        await answer("Abort", "enough seen");
        await headline.getByText("ABORTED: version 2").waitFor(LONG);
        await other.locator(".headline").getByText("ABORTED: version 2").waitFor(LONG);
        await page.getByRole("region", { name: "Story" }).getByText("enough seen").first().waitFor();
        await page.getByRole("region", { name: "Story" }).getByText("by ada").first().waitFor();
        const kept = await page.evaluate(
            () => JSON.stringify({ ...localStorage, ...sessionStorage }) + document.cookie + location.href,
        );
        assert.equal(kept.includes(operator), false);
        const script = await page.request.get(`${serin.url}/console/app.js`);
        assert.equal(script.headers()["content-encoding"], "gzip");
        await page.getByRole("button", { name: "Sign out" }).click();
        await page.getByLabel("Token").waitFor();
        await other.close();
        await page.close();
    });
});
