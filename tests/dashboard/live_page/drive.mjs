// Drives headless Chromium for tests/dashboard/live_page: reads one command a line as JSON from standard input, answers each with one
// line of JSON, and closes the browser when its input ends.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";

const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");

// Each run has a profile of its own, which playwright makes and removes. The caller alone says how long to wait.
const browser = await chromium.launch({
  timeout: 0,
  executablePath: "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});

let page;
const seen = { complaints: [], requests: [] };

const commands = {
  async open({ url, scheme = "light", width = 1180, height = 900 }) {
    page = await browser.newPage({ colorScheme: scheme, viewport: { width, height }, deviceScaleFactor: 1 });
    page.setDefaultTimeout(0);
    page.on("console", (message) => ["error", "warning"].includes(message.type()) && seen.complaints.push(message.text()));
    page.on("pageerror", (error) => seen.complaints.push(String(error)));
    page.on("websocket", (socket) => seen.requests.push(socket.url()));
    page.on("request", (request) => request.url().startsWith("data:") || seen.requests.push(request.url()));
    await page.goto(url);
  },
  evaluate: ({ script }) => page.evaluate(script),
  press: ({ key }) => page.keyboard.press(key),
  look: ({ scheme }) => page.emulateMedia({ colorScheme: scheme }),
  size: ({ width, height }) => page.setViewportSize({ width, height }),
  // A PNG of the whole page, with its transitions at their end.
  async picture({ path }) {
    await page.screenshot({ path, fullPage: true, animations: "disabled" });
  },
  // The rules of WCAG 2.2 A and AA that a machine can check.
  async axe() {
    await page.evaluate(axe);
    const { violations } = await page.evaluate(() => globalThis.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
    return violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map((node) => node.html.slice(0, 120)).join(" | ")}`);
  },
  // What the console complained of and every address asked for, since the last time.
  seen() {
    const since = { complaints: seen.complaints.splice(0), requests: seen.requests.splice(0) };
    return since;
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  const { command, ...options } = JSON.parse(line);
  try {
    console.log(JSON.stringify({ value: (await commands[command](options)) ?? null }));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error) }));
  }
}
await browser.close();
