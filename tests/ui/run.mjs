// Do the admin pages do what they are for? People in real browsers govern a real gateway: register, approve, refuse, look.
//
// Each step goes on where the one before has ended. Whatever a browser complains of (an error, the content security policy,
// a request to elsewhere, an answer that nobody expected) fails the last step.

import assert from "node:assert/strict";
import test, { after, before } from "node:test";
import { statSync } from "node:fs";
import { Demo, Lister, Person, PICTURES, SHOWN, openBrowser, until } from "./kit.mjs";
import { HOSTILE, NAMES } from "./hostile.mjs";

let demo, browser, dana, erin, frank;
const figures = {};
const MAIL = { to: "bob@example.com", subject: "Lunch", body: "On Friday?" };

/** The card of something that waits. */
const card = (person, name) => person.page.locator("details.pending", { has: person.page.locator(".name", { hasText: new RegExp(`^${name}$`) }) });
const text = (person, selector = "main") => person.page.locator(selector).innerText();

/** Approves something on the approvals page. */
async function approve(person, name, reason) {
  // Where another has approved since the page was drawn, the approval is given again for the version that there is.
  person.expect(412, /\/actions$/);
  await person.go("#/approvals");
  await card(person, name).waitFor();
  if (!(await card(person, name).evaluate((one) => one.open))) await card(person, name).locator("summary").first().click();
  await person.approve(card(person, name), reason);
  await person.page.locator(".toast").last().waitFor();
}

async function register(person, name, address, scopes = "tools:read") {
  await person.go("#/register");
  await person.page.fill("#server-name", name);
  await person.page.fill("#server-urls", address);
  await person.page.fill("#route-scope", scopes);
  await person.page.fill("#server-reason", "The sales team asked for it");
  await person.page.getByRole("button", { name: "Register", exact: true }).click();
  await person.page.waitForURL(new RegExp(`#/servers/${name}$`));
  await person.drawn();
}

/** Does what a button of the lifecycle says, with a reason. */
async function act(person, button, reason) {
  await person.page.getByRole("button", { name: button, exact: true }).click();
  await person.page.fill("dialog textarea", reason);
  await person.page.locator("dialog").getByRole("button", { name: button, exact: true }).click();
  await person.page.waitForSelector("dialog", { state: "detached" });
}

/** Presses Tab until `selector` has the focus, and asks that one can see it. */
async function tabTo(page, selector, most = 80) {
  for (let nth = 0; nth < most; nth += 1) {
    await page.keyboard.press("Tab");
    const [isThere, isShown] = await page.evaluate((wanted) => {
      const element = document.activeElement;
      return [element?.matches(wanted) ?? false, element !== null && getComputedStyle(element).outlineStyle !== "none"];
    }, selector);
    if (isThere) {
      assert.ok(isShown, `the focus on ${selector} is seen`);
      return;
    }
  }
  assert.fail(`${selector} is not reached with the Tab key`);
}

before(async () => {
  [demo, browser] = await Promise.all([Demo.start(), openBrowser()]);
});

after(async () => {
  await browser?.close();
  await demo?.stop();
  console.log(JSON.stringify(figures, null, 2));
});

test("the first paint comes at once, and the pages are small", async () => {
  const stranger = await Person.arrive(browser, demo);
  const sizes = [];
  stranger.page.on("response", async (answer) => {
    if (answer.url().includes("/api/")) return;
    sizes.push(Number(answer.headers()["content-length"] ?? 0));
  });
  await stranger.page.goto(`${demo.admin}/`);
  await stranger.page.waitForSelector("#sign-in");
  const paint = await stranger.page.evaluate(() => performance.getEntriesByType("paint").map((one) => [one.name, Math.round(one.startTime)]));
  Object.assign(figures, { ...Object.fromEntries(paint), files: sizes.length, bytesSent: sizes.reduce((sum, one) => sum + one, 0) });
  assert.ok(figures.bytesSent < 100_000, `${figures.bytesSent} bytes`);
  assert.ok(figures["first-contentful-paint"] < 3000, `${figures["first-contentful-paint"]} ms`);
  await stranger.picture("sign-in");
  assert.deepEqual(await stranger.barriers(), []);
  assert.deepEqual(stranger.wrong, []);
  await stranger.context.close();
});

test("somebody signs in with the keyboard alone", async () => {
  dana = await Person.arrive(browser, demo);
  await dana.page.goto(`${demo.admin}/`);
  await dana.page.waitForSelector("#sign-in");
  await tabTo(dana.page, "#sign-in");
  await dana.page.keyboard.press("Enter");
  await dana.page.waitForSelector('button[value="dana"]');
  await tabTo(dana.page, 'button[value="dana"]');
  await dana.page.keyboard.press("Enter");
  await dana.page.waitForSelector("#nav a");
  await dana.drawn();
  assert.match(await text(dana, "#self"), /dana\s+admin, auditor/);
  await dana.page.keyboard.press("Tab");
  assert.equal(await dana.page.evaluate(() => document.activeElement.id), "skip", "the first stop skips the menu");
  await dana.page.keyboard.press("Enter");
  assert.equal(await dana.page.evaluate(() => document.activeElement.id), "main");
  for (const cookie of await dana.context.cookies()) {
    if (cookie.name.includes("portcullis")) assert.ok(cookie.name.startsWith("__Host-") && cookie.httpOnly && cookie.secure, cookie.name);
  }
  // Whoever followed a link comes back to where it led.
  const deep = await Person.arrive(browser, demo);
  await deep.page.goto(`${demo.admin}/#/policy`);
  await deep.page.click("#sign-in");
  await deep.page.click('button[value="dana"]');
  await deep.page.waitForURL(/#\/policy$/);
  await deep.drawn();
  assert.match(await text(deep, "h1"), /Policy explorer/);
  assert.deepEqual(deep.wrong, []);
  await deep.context.close();
  [erin, frank] = await Promise.all(["erin", "frank"].map(async (name) => (await Person.arrive(browser, demo)).signIn(name)));
});

test("roles hide what one may not do", async () => {
  await erin.drawn();
  const menu = await text(erin, "#nav");
  for (const hidden of ["Audit log", "Why denied?", "Configuration"]) assert.ok(!menu.includes(hidden), hidden);
  await erin.page.goto(`${demo.admin}/#/config`);
  await until("the refusal", async () => (await text(erin)).includes("Your roles do not allow this"));
  await erin.go("#/servers");
  assert.equal(await erin.page.getByText("Register a server").count(), 0);
});

test("a server is registered, and nothing of it is callable before two people have approved it", async () => {
  await dana.go("#/servers");
  await dana.page.getByText("Register a server").click();
  dana.expect(422, /\/servers$/);
  await dana.page.fill("#server-name", "mail");
  await dana.page.fill("#server-urls", "http://169.254.169.254");
  await dana.page.fill("#server-reason", "A mistake");
  await dana.page.getByRole("button", { name: "Register", exact: true }).click();
  await dana.page.waitForSelector(".problem .problems");
  assert.match(await text(dana, ".problem"), /server\.instances\[0\]\.url/, "the problem names the key");
  await dana.picture("register-problem");
  assert.deepEqual(await dana.barriers(), []);
  await register(dana, "mail", demo.mail);
  assert.match(await text(dana), /0 of 2 approvals/);
  assert.match(await text(dana), /Approving takes the role approver/);
  await dana.picture("server-registered");
  assert.equal((await demo.call("/mail", "mail_search", { text: "Lunch" })).status, 404);

  await approve(erin, "mail", "A vendor we know");
  assert.match(await text(erin, "details.pending"), /You have approved this\. Somebody else must, too/);
  await erin.picture("approval-one-of-two");
  await frank.go("#/approvals");
  await card(frank, "mail").waitFor();
  const button = `button[data-key^="approve /servers/mail"]`;
  await tabTo(frank.page, `textarea[data-key^="why /servers/mail"]`);
  await frank.page.keyboard.type("Approved with the keyboard");
  await tabTo(frank.page, button);
  await frank.page.keyboard.press("Enter");
  await until("the server to serve", async () => (await demo.call("/mail", "mail_search", { text: "Lunch" })).status === 403);
});

test("its tools are quarantined until two people have approved each", async () => {
  const refused = await demo.call("/mail", "mail_search", { text: "Lunch" });
  assert.equal(refused.body.error.data.reason, "tool_quarantined");
  await erin.go("#/approvals");
  await card(erin, "mail_send").waitFor();
  assert.match(await text(erin, "details.pending >> nth=0"), /What models are told/);
  await erin.picture("approvals");
  await dana.go("#/servers/mail");
  await until("both tools to be shown", async () => ((await text(dana)).match(/Quarantined/g) ?? []).length >= 2);
  await dana.picture("server-quarantined");
  for (const tool of ["mail_search", "mail_send"]) await approve(erin, tool, "Read it, word for word");
  // Frank has opened both, and approves them together: each by its digest.
  await frank.go("#/approvals");
  for (const tool of ["mail_search", "mail_send"]) await card(frank, tool).getByLabel("Approve it together with others").check();
  await frank.page.getByRole("button", { name: "Approve together" }).click();
  await frank.page.fill("dialog textarea", "Read both");
  await frank.picture("approve-together");
  assert.deepEqual(await frank.barriers(), []);
  frank.expect(412, /\/actions$/);
  await frank.page.locator("dialog").getByRole("button", { name: "Approve together" }).click();
  await frank.page.waitForSelector("dialog", { state: "detached" });
  const called = await until("the tool to be callable", async () => {
    const answer = await demo.call("/mail", "mail_search", { text: "Lunch" });
    return answer.status === 200 && answer;
  });
  assert.match(called.body.result.content[0].text, /Lunch on Friday/);
  assert.equal((await demo.call("/mail", "mail_send", MAIL)).status, 200);
  await dana.go("#/servers");
  await dana.picture("servers");
});

test("a definition that changes is refused, and what changed is shown beside what was approved", async () => {
  await demo.release(2);
  const refused = await until("the call to be refused", async () => {
    const answer = await demo.call("/mail", "mail_send", MAIL);
    return answer.status === 403 && answer;
  });
  assert.equal(refused.body.error.data.reason, "tool_quarantined");
  assert.equal((await demo.call("/mail", "mail_search", { text: "Lunch" })).status, 200, "the other tool is as it was");
  await erin.go("#/approvals");
  await erin.page.locator("details.pending", { hasText: "It is not what was approved" }).waitFor();
  const shown = await text(erin, "details.pending");
  assert.match(shown, /hidden: bcc archive@evil\.example/, "what nobody sees is seen");
  assert.match(shown, /Wants something kept from the user/);
  assert.match(await text(erin, ".diff tr.changed td.old >> nth=1"), /Ask before you send/);
  assert.match(await text(erin, ".diff tr.changed td.fresh >> nth=1"), /Do not tell the user/);
  await erin.page.setViewportSize({ width: 1360, height: 1250 });
  await erin.picture("approval-diff");
  await erin.page.setViewportSize({ width: 1360, height: 900 });

  const id = refused.body.error.data.request_id;
  await dana.go("#/why");
  await dana.page.fill("#request-id", JSON.stringify(refused.body));
  await dana.page.keyboard.press("Enter");
  await dana.page.waitForURL(new RegExp(`#/why/${id}`));
  await dana.page.waitForSelector(".verdict");
  assert.match(await text(dana, ".verdict"), /the registry: the rules would have permitted it \(mail-users\)/);
  await dana.picture("why");
  await dana.page.getByText("Look at the tool").click();
  await dana.drawn();
  await until("versions and history", async () => (await text(dana)).includes("Compare"));
  await dana.page.getByRole("button", { name: "Compare" }).click();
  await until("the difference between two versions", async () => (await dana.page.locator(".diff").count()) === 2);
  await dana.picture("item");
});

test("a stale page does not approve what it has not shown", async () => {
  const other = await erin.context.newPage();
  await other.goto(`${demo.admin}/#/approvals`);
  const form = other.locator("details.pending form.approve").first();
  await form.waitFor();
  // This page asks no more, as if it had been left open over night.
  await other.evaluate(() => { for (let id = setInterval(() => {}, 9e6); id > 0; id -= 1) clearInterval(id); });
  await dana.go("#/servers/mail/tool/bWFpbF9zZW5k");
  await act(dana, "Suspend", "While we ask the vendor");
  try {
    await form.locator("textarea").fill("I did not see that");
    await form.getByRole("button", { name: "Approve", exact: true }).click();
    await other.locator(".problem").waitFor();
    assert.match(await other.locator(".problem").innerText(), /412 precondition_failed[^]*Somebody was faster/);
    assert.match(await other.locator("details.pending").first().innerText(), /0 of 2 approvals/);
  } finally {
    // A page behind another is not drawn.
    await other.close();
  }
  await erin.go("#/servers/mail/tool/bWFpbF9zZW5k");
  await act(erin, "Resume", "They have answered");
});

test("the audit log is live, is filtered and pauses", async () => {
  await dana.go("#/audit");
  await until("the stream", async () => (await text(dana, ".light")) === "live");
  await demo.call("/mail", "mail_send", MAIL);
  const first = () => dana.page.locator("table.stream tbody tr").first();
  await until("the refusal", async () => /mail_send/.test(await first().innerText()));
  await dana.picture("audit");
  await first().getByRole("button").click();
  assert.match(await text(dana, "dialog"), /Tool quarantined: Changed/);
  await dana.picture("audit-record");
  assert.deepEqual(await dana.barriers(), []);
  await dana.page.keyboard.press("Escape");
  await dana.page.click("#pause");
  await demo.call("/mail", "mail_search", { text: "paused" });
  await until("records to be held back", async () => /Go on \(\d+ came\)/.test(await text(dana, "#pause")));
  assert.ok(!/mail_search/.test(await first().innerText()));
  await dana.page.click("#pause");
  await until("them to be shown", async () => /mail_search/.test(await first().innerText()));
  await dana.page.selectOption("[name=outcome]", "refused");
  await until("only refusals", async () => (await dana.page.locator("table.stream tbody tr:not(.refused)").count()) === 0 && (await dana.page.locator("tr.refused").count()) > 3);
  assert.match(dana.page.url(), /outcome=refused/);
});

test("the policy explorer names the rule that decides", async () => {
  await dana.go("#/policy?route=/mcp&sub=alice");
  await dana.page.fill("#policy-scopes", "tools:read");
  await dana.page.click("#explain");
  await until("the answer", async () => /echo\s+depends on arguments/.test(await text(dana)));
  await dana.page.fill("#policy-tool", "echo");
  await dana.page.fill("#policy-args", '{ "text": "a secret" }');
  await dana.page.fill("#agent-id", "mail-assistant");
  await dana.page.click("#explain");
  await until("the answer for these arguments", async () => /echo\s+may not/.test(await text(dana)));
  await dana.page.selectOption("#policy-route", "/mail");
  await dana.page.click("#explain");
  await until("what becomes of the agent", async () => /The route looks for no agent/.test(await text(dana)));
  assert.match(await text(dana), /mail_search\s+may\s/);
  assert.match(await text(dana), /mail_send\s+may not\s+Quarantined/, "what the rules permit and the registry keeps back");
  await dana.picture("policy");
});

test("the configuration is shown, checked and read again", async () => {
  await dana.go("#/config");
  assert.match(await text(dana), /"required": 2/);
  await dana.page.fill("#config-yaml", "listen:\n  - adress: 127.0.0.1:1\n");
  await dana.page.getByRole("button", { name: "Check" }).click();
  await until("the problems", async () => /adress/.test(await text(dana, ".problems")));
  await dana.picture("config");
  await dana.page.click("#reload");
  await dana.page.locator("dialog .primary").click();
  await until("the next generation", async () => /Configuration \d+ is in force/.test(await text(dana, "#status")));
});

test("somebody's sessions are ended", async () => {
  await dana.go("#/sessions");
  const row = dana.page.locator("tr", { hasText: "carol" });
  await row.getByRole("button").click();
  await dana.page.fill("dialog textarea", "Laptop lost");
  await dana.picture("sessions-dialog");
  await dana.page.locator("dialog .primary").click();
  await until("the mark", async () => /just now\s+End sessions/.test(await row.innerText()));
  await dana.go("#/agents");
  assert.match(await text(dana), /demo-agent[^]*assistant, sample-1[^]*agents\.example/);
});

test("somebody is stopped at once, and let go", async () => {
  await dana.go("#/quarantines");
  await dana.page.fill("#stop-name", "mallory");
  await dana.page.selectOption("#stop-time", "3600");
  await dana.page.fill("#stop-reason", "Token in a pastebin");
  await dana.page.getByRole("button", { name: "Stop", exact: true }).click();
  const row = dana.page.locator("tr", { hasText: "mallory" });
  await until("the row", async () => /Token in a pastebin/.test(await row.innerText()));
  await dana.picture("quarantines");
  await row.getByRole("button", { name: "Let go" }).click();
  await dana.page.locator("dialog .primary").click();
  await until("it to be gone", async () => (await row.count()) === 0);
});

test("a person, an agent and a tool are each stopped from the page", async () => {
  const search = async () => (await demo.call("/mail", "mail_search", { text: "Lunch" })).body.error?.data?.reason ?? "passes";
  await dana.go("#/quarantines");
  for (const [kind, name, place, stopped, reason] of [
    ["principal", "alice", demo.issuer, { principal: { subject: "alice", issuer: demo.issuer } }, "quarantined_caller"],
    // The route looks for no agent, so nobody is stopped with it.
    ["agent", "mail-assistant", "", { agent: { name: "mail-assistant" } }, "passes"],
    ["tool", "mail_search", "mail", { tool: { name: "mail_search", server: "mail" } }, "tool_stopped"],
  ]) {
    await dana.page.selectOption("#stop-kind", kind);
    await dana.page.fill("#stop-name", name);
    await dana.page.fill("#stop-place", place);
    await dana.page.fill("#stop-reason", `To see it stop: ${kind}`);
    const [asked] = await Promise.all([
      dana.page.waitForRequest((request) => request.method() === "POST" && request.url().endsWith("/quarantines")),
      dana.page.getByRole("button", { name: "Stop", exact: true }).click(),
    ]);
    assert.deepEqual(asked.postDataJSON().stopped, stopped);
    const row = dana.page.locator("tr", { hasText: `To see it stop: ${kind}` });
    await row.waitFor();
    assert.equal(await search(), reason, kind);
    await row.getByRole("button", { name: "Let go" }).click();
    await dana.page.locator("dialog .primary").click();
    await until("it to be gone", async () => (await row.count()) === 0);
    assert.equal(await search(), "passes", kind);
  }
});

test("a side of a split that has closed is tried again from the page", async () => {
  // The demo's servers have no splits: what the page is told here is what the API says of one that has closed.
  let isClosed = true;
  await dana.page.route(/\/api\/v1\/instances/, async (route) => {
    const answer = await route.fetch();
    const page = await answer.json();
    for (const one of page.items) one.splits = [{ rule: "canary", to: "v2", weight: 10, closed: isClosed }];
    await route.fulfill({ response: answer, json: page });
  });
  let asked = null;
  await dana.page.route(/\/api\/v1\/splits\/reopen$/, async (route) => {
    asked = route.request().postDataJSON();
    isClosed = false;
    await route.fulfill({ json: { server: "mail", rule: "canary", to: "v2", weight: 10, closed: false } });
  });
  await dana.go("#/servers/mail");
  await dana.page.getByRole("button", { name: "Try canary v2 again" }).first().click();
  await dana.page.fill("dialog textarea", "It was repaired");
  await dana.picture("split-reopen");
  assert.deepEqual(await dana.barriers(), []);
  await dana.page.locator("dialog .primary").click();
  await until("the side to be open", async () => (await dana.page.getByRole("button", { name: "Try canary v2 again" }).count()) === 0);
  assert.deepEqual(asked, { server: "mail", rule: "canary", to: "v2", reason: "It was repaired" });
  isClosed = true;
  await dana.page.unroute(/\/api\/v1\/splits\/reopen$/);
  await dana.page.unroute(/\/api\/v1\/instances/);
});

test("a server is suspended, resumed and retired", async () => {
  await dana.go("#/servers/mail");
  await act(dana, "Suspend", "The vendor has shipped something odd");
  const status = async (wanted) => until(`${wanted}`, async () => (await demo.call("/mail", "mail_search", { text: "x" })).status === wanted);
  await status(403);
  assert.equal((await demo.call("/mail", "mail_search")).body.error.data.reason, "server_suspended");
  await until("the state", async () => (await text(dana, "h1")).includes("Suspended"));
  assert.equal(await dana.page.getByRole("button", { name: "Resume" }).count(), 0, "an admin does not resume");
  await erin.go("#/servers/mail");
  await act(erin, "Resume", "The vendor has explained it");
  await status(200);
});

test("a change of a server waits beside what serves", async () => {
  await dana.go("#/servers");
  await dana.go("#/servers/mail");
  await dana.page.getByText("Change it").click();
  const json = dana.page.getByLabel("Server and route as JSON");
  await json.fill((await json.inputValue()).replace('"default": "deny"', '"default": "allow"'));
  await dana.page.getByLabel("Why", { exact: true }).fill("Everybody asks for it");
  await dana.page.getByRole("button", { name: "Propose the change" }).click();
  await until("the change to wait", async () => /What was approved serves until the change is approved/.test(await text(dana)));
  assert.equal((await demo.call("/mail", "mail_search", { text: "x" })).status, 200);
  await erin.go("#/approvals");
  await card(erin, "mail").waitFor();
  assert.match(await card(erin, "mail").locator(".diff tr.changed").first().innerText(), /deny[^]*allow/);
  await erin.picture("server-change");
  for (const person of [erin, frank]) await approve(person, "mail", "So be it");
  await until("nothing to wait", async () => (await card(erin, "mail").count()) === 0);
});

test("hostile definitions are text and nothing else", async () => {
  const lister = await Lister.start(HOSTILE);
  try {
    await register(dana, "hostile", lister.address, "");
    for (const person of [erin, frank]) await approve(person, "hostile", "To see what it does");
    await dana.go("#/servers/hostile");
    await until("its tools", async () => (await dana.page.locator("main a[href*='/hostile/tool/']").count()) >= NAMES);
    await dana.picture("hostile-server");
    await erin.go("#/approvals");
    await until("all of them", async () => (await erin.page.locator("details.pending").count()) >= NAMES);
    for (const one of await erin.page.locator("details.pending > summary").all()) await one.click();
    assert.equal(await erin.overhang(), 0);
    const shown = await text(erin);
    assert.match(shown, /<script>window\.hacked = 1<\/script>/);
    assert.match(shown, /huge[^]*cannot be approved[^]*larger than registry\.definition_bytes/i, "what is not kept is told");
    assert.equal(await card(erin, "huge").getByRole("button", { name: "Approve", exact: true }).count(), 0);
    assert.match(shown, /U\+202E/);
    assert.match(shown, /\\u001b|U\+001B/);
    await erin.picture("hostile-approvals");
    for (const link of await dana.page.locator("main a[href*='/hostile/tool/']").evaluateAll((all) => all.map((one) => one.getAttribute("href")))) {
      await dana.go(link);
      assert.equal(await dana.overhang(), 0, link);
    }
    for (const person of [dana, erin, frank]) {
      assert.equal(await person.page.evaluate(() => window.hacked), undefined);
      assert.equal(await person.page.locator("main img, main iframe, main script, main object, main form[action]").count(), 0);
    }
    await dana.go("#/servers/hostile");
    await act(dana, "Retire", "It is what it looks like");
  } finally {
    lister.stop();
  }
});

test("every page fits 360 pixels, is dark where that is wished, and has no barriers", async () => {
  const pages = ["overview", "servers", "servers/mail", "servers/mail/tool/bWFpbF9zZW5k", "servers/tools", "register", "approvals", "audit", "why", "sessions", "agents", "quarantines", "policy", "config"];
  const id = (await demo.call("/mail", "mail_send", MAIL)).body.error.data.request_id;
  const barriers = [];
  for (const [kind, options] of [
    ["light", {}], ["dark", { colorScheme: "dark" }], ["360", { viewport: { width: 360, height: 740 }, hasTouch: true, isMobile: true }],
  ]) {
    // Dana sees most; erin sees what she may approve.
    const [seer, approver] = await Promise.all(["dana", "erin"].map(async (name) => (await Person.arrive(browser, demo, options)).signIn(name)));
    // That the registry does not know it is how the page learns that it is not governed.
    seer.expect(404, /\/servers\/tools$/);
    for (const page of [...pages, `why/${id}`]) {
      const person = page === "approvals" ? approver : seer;
      await person.go(`#/${page}`);
      if (page === "overview") await until("two samples", async () => (await person.page.locator(".figure strong").first().innerText()) !== "–");
      const name = page.startsWith("why/") ? "why-id" : page.replace("bWFpbF9zZW5k", "mail_send").replaceAll("/", "-");
      await person.picture(`${kind}-${name}`);
      const ground = await person.page.evaluate(() => getComputedStyle(document.body).backgroundColor.match(/[\d.]+/g).slice(0, 3).map(Number));
      assert.equal(Math.max(...ground) < 60, kind === "dark", `${kind} ${page}: ${ground}`);
      assert.equal(await person.overhang(), 0, `${kind} ${page} reaches beyond its right edge`);
      for (const barrier of await person.barriers()) barriers.push(`${kind} ${page}: ${barrier}`);
    }
    if (kind === "360") {
      await seer.page.click("#menu");
      await seer.picture("360-menu");
      assert.deepEqual(await seer.barriers(), []);
    }
    for (const person of [seer, approver]) {
      assert.deepEqual(person.wrong, [], `${kind} ${person.name}`);
      await person.context.close();
    }
  }
  assert.deepEqual(barriers, []);
});

test("the theme is chosen here, and stays", async () => {
  await dana.go("#/overview");
  const dark = () => dana.page.evaluate(() => getComputedStyle(document.documentElement).colorScheme);
  await dana.page.click("#theme");
  assert.equal(await dark(), "light");
  await dana.page.click("#theme");
  assert.equal(await dark(), "dark");
  await dana.page.reload();
  await dana.drawn();
  assert.equal(await dark(), "dark");
});

test("a server that is retired is gone, and a session that has ended leads to the sign-in", async () => {
  await dana.go("#/servers/mail");
  await act(dana, "Retire", "Replaced");
  await until("the route to go", async () => (await demo.call("/mail", "mail_search", { text: "x" })).status === 404);
  await until("the state", async () => (await text(dana, "h1")).includes("Retired"));
  await frank.context.clearCookies();
  frank.expect(401, /\/api\/v1\//);
  await frank.page.waitForSelector("#sign-in");
  await dana.page.getByRole("button", { name: "Sign out" }).click();
  await dana.page.waitForSelector("#sign-in");
  assert.deepEqual((await dana.context.cookies()).filter((one) => one.name === "__Host-portcullis"), []);
});

test("no browser has complained", () => {
  for (const person of [dana, erin, frank]) assert.deepEqual(person.wrong, [], person.name);
  for (const name of ["light-overview", "dark-overview", "360-overview"]) assert.ok(statSync(`${PICTURES}${name}.png`).size > 5000, name);
  for (const name of SHOWN) assert.ok(statSync(`${PICTURES}docs/${name.replace("light-", "")}.png`).size < 100 * 1024, `${name} is small enough for the README`);
});
