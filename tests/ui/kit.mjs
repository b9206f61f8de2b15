// What does the test stand on? The real binary's demo, a real browser with people in front of it, and an MCP client.

import { spawn } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { once } from "node:events";
import { fileURLToPath } from "node:url";
import axe from "axe-core";
import { chromium } from "playwright-core";
import { small } from "./png.mjs";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
/** Where pictures go. */
export const PICTURES = `${ROOT}target/ui/`;

/** The pictures of the README. */
export const SHOWN = ["approvals", "approval-diff", "why", "light-overview"];

/** The demo, in a process of its own. */
export class Demo {
  static async start() {
    const binary = process.env.PORTCULLIS ?? `${ROOT}target/debug/portcullis`;
    const child = spawn(binary, ["demo", "--listen", "127.0.0.1:0"], { stdio: ["ignore", "pipe", "inherit"] });
    const demo = new Demo(child);
    child.stdout.setEncoding("utf8");
    child.stdout.on("data", (text) => { demo.said += text; });
    await demo.says(/The gateway runs until Ctrl-C/, 60_000);
    const address = (name) => new RegExp(`^  ${name} +(http://[^/\\s]+)`, "m").exec(demo.said)[1];
    demo.gateway = address("gateway");
    demo.issuer = address("issuer");
    demo.admin = address("admin pages");
    demo.mail = address("mail server");
    demo.password = /-d username=alice -d password=(\S+)/.exec(demo.said)[1];
    return demo;
  }

  constructor(child) {
    this.child = child;
    this.said = "";
  }

  async says(pattern, within) {
    await until(`the demo to say ${pattern}`, () => {
      if (this.child.exitCode !== null) throw new Error(`the demo ended: ${this.said}`);
      return pattern.test(this.said);
    }, within);
  }

  async stop() {
    if (this.child.exitCode !== null) return;
    this.child.kill("SIGTERM");
    await once(this.child, "exit");
  }

  /** A token of Alice's for one of the gateway's paths. */
  async token(path) {
    const form = { grant_type: "password", client_id: "demo-agent", username: "alice", password: this.password, resource: this.gateway + path };
    const answer = await fetch(`${this.issuer}/token`, { method: "POST", body: new URLSearchParams(form) });
    return (await answer.json()).access_token;
  }

  /** Calls a tool as Alice's MCP client would: a session, then the call. */
  async call(path, tool, args = {}) {
    const token = await this.token(path);
    let session = null;
    const send = async (message) => {
      const answer = await fetch(this.gateway + path, {
        method: "POST",
        headers: {
          "Authorization": `Bearer ${token}`, "Content-Type": "application/json", "Accept": "application/json, text/event-stream",
          "MCP-Protocol-Version": "2025-11-25", ...(session ? { "Mcp-Session-Id": session } : {}),
        },
        body: JSON.stringify({ jsonrpc: "2.0", ...message }),
      });
      session ??= answer.headers.get("mcp-session-id");
      const text = await answer.text();
      const isStream = answer.headers.get("content-type")?.startsWith("text/event-stream");
      const messages = (isStream ? [...text.matchAll(/^data:(.*)$/gm)].map(([, data]) => data.trim()) : [text]).filter(Boolean).map((one) => JSON.parse(one));
      return { status: answer.status, body: messages.find((one) => one.id === message.id) ?? messages[0] ?? null };
    };
    const client = { protocolVersion: "2025-11-25", capabilities: {}, clientInfo: { name: "ui-test", version: "1" } };
    const begun = await send({ id: 1, method: "initialize", params: client });
    if (begun.status !== 200) return begun;
    await send({ method: "notifications/initialized" });
    return send({ id: 2, method: "tools/call", params: { name: tool, arguments: args } });
  }

  async release(number) {
    const answer = await fetch(`${this.mail}/release/${number}`, { method: "POST" });
    if (!answer.ok) throw new Error(`release ${number}: ${answer.status}`);
  }
}

/** An MCP server that lists what it is given. */
export class Lister {
  static async start(tools) {
    const server = createServer((request, response) => {
      let body = "";
      request.on("data", (piece) => { body += piece; });
      request.on("end", () => {
        const message = request.method === "POST" ? JSON.parse(body) : {};
        const results = {
          "initialize": { protocolVersion: "2025-11-25", capabilities: { tools: {} }, serverInfo: { name: "lister", version: "1" } },
          "tools/list": { tools }, "ping": {},
        };
        if (message.id === undefined) return response.writeHead(request.method === "POST" ? 202 : 405).end();
        const result = results[message.method];
        const answer = result ? { result } : { error: { code: -32601, message: "method not found" } };
        response.writeHead(200, { "Content-Type": "application/json" });
        return response.end(JSON.stringify({ jsonrpc: "2.0", id: message.id, ...answer }));
      });
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    return { address: `http://127.0.0.1:${server.address().port}`, stop: () => { server.closeAllConnections(); server.close(); } };
  }
}

/** Debian's Chromium, without what it would fetch from elsewhere. */
export async function openBrowser() {
  mkdirSync(`${PICTURES}docs/`, { recursive: true });
  const args = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-lcd-text"];
  if (process.getuid?.() === 0) args.push("--no-sandbox");
  return chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", headless: true, args });
}

/** Somebody in front of a browser of their own. What goes wrong in it is kept: a page that is well makes no errors. */
export class Person {
  static async arrive(browser, demo, options = {}) {
    const context = await browser.newContext({ viewport: { width: 1360, height: 900 }, colorScheme: "light", reducedMotion: "reduce", ...options });
    await context.addInitScript(() => {
      document.addEventListener("securitypolicyviolation", (event) => console.error(`CSP: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
    });
    const person = new Person(context, await context.newPage(), demo);
    person.watch();
    return person;
  }

  constructor(context, page, demo) {
    Object.assign(this, { context, page, demo, wrong: [], expected: [[401, /\/api\/v1\/me$/]] });
  }

  watch() {
    const { page } = this;
    page.setDefaultTimeout(20_000);
    page.on("pageerror", (error) => this.wrong.push(`error: ${error.stack ?? error}`));
    page.on("dialog", (dialog) => { this.wrong.push(`dialog: ${dialog.message()}`); dialog.dismiss(); });
    page.on("console", (message) => {
      // What is refused over HTTP is looked at below, by its status.
      if (["error", "warning"].includes(message.type()) && !message.text().startsWith("Failed to load resource")) this.wrong.push(`${message.type()}: ${message.text()}`);
    });
    page.on("response", (answer) => {
      const { pathname } = new URL(answer.url());
      if (answer.status() >= 400 && !this.expected.some(([status, path]) => status === answer.status() && path.test(pathname))) this.wrong.push(`${answer.status()} ${pathname}`);
    });
    page.on("request", (request) => {
      const url = new URL(request.url());
      if (![this.demo.admin, this.demo.issuer].includes(url.origin) && url.protocol !== "data:") this.wrong.push(`asked ${url.origin}`);
    });
  }

  /** What goes wrong next, on purpose. */
  expect(status, path) {
    this.expected.push([status, path]);
  }

  async signIn(name) {
    await this.page.goto(`${this.demo.admin}/`);
    await this.page.click("#sign-in");
    await this.page.click(`button[value="${name}"]`);
    await this.page.waitForSelector("#nav a", { state: "attached" });
    this.name = name;
    return this;
  }

  /** Goes to a page of the app, and waits until it is drawn. */
  async go(hash) {
    await this.page.evaluate((to) => { location.hash = to; }, hash);
    await this.drawn();
  }

  async drawn() {
    await this.page.waitForFunction(() => document.querySelector("#main h1") && !document.querySelector("#main .skeleton, #main [aria-busy=true]"));
  }

  /** Approves what the page shows. */
  async approve(within, reason) {
    const form = within.locator("form.approve");
    await form.locator("textarea").fill(reason);
    await form.getByRole("button", { name: "Approve", exact: true }).click();
  }

  async picture(name) {
    const png = await this.page.screenshot({ path: `${PICTURES}${name}.png` });
    // Those of the README are copied from here to docs/images.
    if (SHOWN.includes(name)) writeFileSync(`${PICTURES}docs/${name.replace("light-", "")}.png`, small(png));
  }

  /** What is not accessible, by the rules of WCAG 2.2 A and AA. */
  async barriers() {
    // In a world of its own: the page's policy does not let strings become code, and should not.
    const cdp = await this.context.newCDPSession(this.page);
    const { frameTree } = await cdp.send("Page.getFrameTree");
    const { executionContextId } = await cdp.send("Page.createIsolatedWorld", { frameId: frameTree.frame.id, worldName: "axe" });
    const run = `${axe.source}; axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }).then((found) =>
      found.violations.map((one) => one.id + ": " + one.help + " at " + one.nodes.slice(0, 3).map((node) => node.target.join(" ") + " " + (node.any[0]?.message ?? "")).join(" | ")))`;
    const { result, exceptionDetails } = await cdp.send("Runtime.evaluate", { contextId: executionContextId, expression: run, awaitPromise: true, returnByValue: true });
    await cdp.detach();
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  /** How many pixels of the page are beyond its right edge. */
  async overhang() {
    return this.page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  }
}

/** Waits until something is so. */
export async function until(what, is, within = 20_000) {
  const end = Date.now() + within;
  for (;;) {
    const found = await is();
    if (found) return found;
    if (Date.now() > end) throw new Error(`waited ${within} ms for ${what}`);
    await new Promise((done) => { setTimeout(done, 100); });
  }
}
