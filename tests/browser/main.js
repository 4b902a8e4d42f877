// Drives one headless Chromium by lines of JSON: a command comes in, an answer goes out. What is done, and what has to be
// seen, is said by the tests; see tests/src/browser.rs.
"use strict";

const path = require("node:path");
const readline = require("node:readline");

const [modules, program] = process.argv.slice(2);
const { chromium } = require(path.join(modules, "playwright-core"));
const axe = path.join(modules, "axe-core", "axe.min.js");
const PATIENCE = 15000;

let browser, context, page;
const errors = [];

async function fresh() {
  if (context) await context.close();
  context = await browser.newContext({
    ignoreHTTPSErrors: true,
    acceptDownloads: true,
    viewport: { width: 1280, height: 860 },
    reducedMotion: "reduce",
    bypassCSP: false,
  });
  context.setDefaultTimeout(PATIENCE);
  page = await context.newPage();
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => {
    // What the page's own policy refuses stands here as well. That an address was refused is the test's own doing.
    if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) errors.push(message.text());
  });
}

const commands = {
  fresh: async () => fresh(),
  goto: async ({ to }) => (await page.goto(to, { waitUntil: "load" }))?.status() ?? 0,
  fill: async ({ at, text }) => page.fill(at, text),
  click: async ({ at }) => page.click(at),
  check: async ({ at }) => page.check(at),
  press: async ({ key }) => page.keyboard.press(key),
  see: async ({ at }) => page.locator(at).first().waitFor({ state: "visible" }),
  text: async ({ at }) => page.locator(at).first().innerText(),
  count: async ({ at }) => page.locator(at).count(),
  address: async () => page.url(),
  focused: async () => page.evaluate(() => document.activeElement?.textContent?.trim() ?? ""),
  size: async ({ width, height }) => page.setViewportSize({ width, height }),
  scheme: async ({ scheme }) => page.emulateMedia({ colorScheme: scheme }),
  wide: async () => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth),
  picture: async ({ file, whole }) => page.screenshot({ path: file, fullPage: whole, animations: "disabled" }).then(() => null),
  download: async ({ at }) => {
    const [download] = await Promise.all([page.waitForEvent("download"), page.click(at)]);
    return require("node:fs").readFileSync(await download.path(), "utf8");
  },
  // In the isolated world of the driver: the page's own policy lets no script of others in.
  axe: async () => {
    const source = require("node:fs").readFileSync(axe, "utf8");
    await page.evaluate(source);
    const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
    return found.violations.map((one) => `${one.id}: ${one.help}: ${one.nodes.map((node) => node.html + " " + node.failureSummary).slice(0, 3).join(" | ")}`);
  },
  errors: async () => errors.splice(0),
};

(async () => {
  browser = await chromium.launch({ executablePath: program, headless: true, args: ["--no-sandbox", "--disable-gpu"] });
  await fresh();
  const lines = readline.createInterface({ input: process.stdin });
  for await (const line of lines) {
    let answer;
    try {
      const command = JSON.parse(line);
      answer = { ok: (await commands[command.do](command)) ?? null };
    } catch (error) {
      answer = { error: String(error).slice(0, 2000), at: page.url(), page: await page.innerText("body").catch(() => "").then((text) => text.slice(0, 1500)) };
    }
    process.stdout.write(JSON.stringify(answer) + "\n");
  }
  await browser.close();
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
