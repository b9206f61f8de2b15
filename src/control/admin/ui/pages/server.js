// What is this server, who approved it, and what does it offer?

import { all, bus, get, path, post, query } from "../lib/api.js";
import { act, approving, nameOf, serverToJudge } from "../lib/approve.js";
import { json } from "../lib/definition.js";
import { h, replace, short } from "../lib/dom.js";
import { announce, ask, badge, copy, facts, field, heading, lifecycle, live, more, panel, person, problem, select, state, table, trail, when } from "../lib/parts.js";
import { CAUSES, DONE, KINDS, plain } from "../lib/words.js";
import { STANDINGS } from "./servers.js";

export function server(context) {
  const [name] = context.params;
  context.title(name);
  const head = live(context, draw, async () => {
    const instances = (await all(query("/instances", { server: name }), { signal: context.signal })).items;
    try {
      return { server: (await get(path`/servers/${name}`, { signal: context.signal })).data, instances };
    } catch (error) {
      if (error.status === 404 && instances.length > 0) return { server: null, instances };
      throw error;
    }
  });
  const rest = h("div", {});
  let [items, history] = [null, null];

  function draw({ server, instances }) {
    // What it offers is asked for once it is known that the registry looks at it.
    if (server && !items) {
      [items, history] = [itemList(context, name), acts(context, path`/servers/${name}/acts`)];
      replace(rest, items.element, history.element);
    }
    if (!server) {
      return [
        heading(h("span", {}, short(name), " ", state("ungoverned")), "Declared in the configuration file without managed: true. Its rules decide who may call what; the registry does not look at its tools."),
        panel("Instances", instanceTable(context, instances, head)),
      ];
    }
    const isWaiting = server.state === "registered" || server.change_pending;
    return [
      heading(h("span", {}, short(server.name), " ", state(server.state), server.deployed && badge("serving", "ok")),
        server.origin === "file" ? "Declared in the configuration file." : "Registered through the API.",
        lifecycle({ context, standing: server.state, what: nameOf(server), act: async (action, reason) => {
          await act(server, action, reason);
          announce(`${server.name} is ${DONE[action]}`);
          head.refresh();
          items.refresh();
          history.refresh();
        } })),
      server.problems.length > 0 && h("div", { class: "problem", role: "alert" }, h("p", {}, h("strong", {}, "It is approved and does not serve.")), h("ul", {}, server.problems.map((one) => h("li", {}, one)))),
      isWaiting && panel("Waits for approval", { kind: "waits" }, serverToJudge(server),
        approving({ context, thing: server, of: server.digest, given: server.approvals, missing: server.approvals_missing, done: () => { head.refresh(); history.refresh(); } })),
      h("div", { class: "columns" },
        panel("About", facts([
          ["Registered by", person(server.registrant)], ["Registered", when(server.registered_at)], ["Last change", when(server.changed_at)],
          ["Approved by", !isWaiting && server.approvals.length > 0 && server.approvals.map((one, nth) => [nth > 0 && ", ", person(one.actor)])],
          ["Lists read", server.last_read && h("span", {}, badge(plain(server.last_read.outcome), server.last_read.outcome === "ok" ? "ok" : "bad"), " ", when(server.last_read.at))],
          ["Version", server.version],
        ])),
        panel("Instances", instanceTable(context, instances, head))),
      server.spec && context.can("register") && server.state !== "retired" && changing(server, () => { head.refresh(); history.refresh(); }),
      server.spec && !isWaiting && h("details", { class: "panel", "data-key": "spec" }, h("summary", {}, h("h2", {}, "Settings")), json({ server: server.spec.server, ...(server.spec.route ? { route: server.spec.route } : {}) }, "Settings")),
    ];
  }
  return [trail(["Servers", "#/servers"], [name]), head.element, rest];
}

/** What was written and not sent, by server. */
const drafts = new Map();

/** Another address, another rule: what was approved serves until the change is approved. */
function changing(server, done) {
  const text = h("textarea", { rows: 16, class: "code", spellcheck: "false", required: true, "data-key": "change", value: drafts.get(server.name)?.text ?? JSON.stringify({ server: server.spec.server, ...(server.spec.route ? { route: server.spec.route } : {}) }, null, 2) });
  const why = h("textarea", { rows: 2, required: true, maxlength: 1000, "data-key": "change-why", value: drafts.get(server.name)?.why ?? "" });
  const wrong = h("div", {});
  return h("details", { class: "panel", "data-key": "changing" }, h("summary", {}, h("h2", {}, "Change it")),
    h("form", { oninput: () => drafts.set(server.name, { text: text.value, why: why.value }), onsubmit: async (event) => {
      event.preventDefault();
      try {
        const { data } = await post(path`/servers/${server.name}`, { ...JSON.parse(text.value), reason: why.value }, { tag: `"${server.version}"`, method: "PUT" });
        drafts.delete(server.name);
        announce(`The change waits. ${data.approvals_missing} ${data.approvals_missing === 1 ? "person" : "people"} must approve it.`);
        bus.dispatchEvent(new Event("changed"));
        document.activeElement?.blur();
        done();
      } catch (error) {
        replace(wrong, problem(error));
      }
    } }, wrong, field("Server and route as JSON", text, "What was approved serves until the change is approved."), field("Why", why),
    h("div", { class: "actions" }, h("button", { class: "primary" }, "Propose the change"))));
}

function instanceTable(context, instances, list) {
  return table({
    caption: "Instances", rows: instances, key: (one) => one.id, empty: ["No instance serves.", "Instances are looked at once the server is approved."],
    columns: [
      { name: "Instance", cell: (one) => h("code", {}, one.id) },
      { name: "Address", kind: "wide", cell: (one) => h("code", {}, one.url) },
      { name: "Is", cell: (one) => [one.version, one.region, ...Object.entries(one.labels).map(([name, value]) => `${name}=${value}`)].filter(Boolean).join(", ") || h("span", { class: "dim" }, "–") },
      { name: "Health", cell: (one) => [one.healthy ? badge("healthy", "ok") : badge("unhealthy", "bad"), CIRCUITS[one.circuit] && badge(...CIRCUITS[one.circuit])] },
      { name: "New work", cell: (one) => (one.takes_new_work ? "takes it" : h("span", { class: "dim" }, "none")) },
      { name: "Splits", cell: (one) => (one.splits.length > 0 ? one.splits.map((side, nth) => [nth > 0 && ", ", `${side.rule} ${side.to}: ${side.weight} `, side.closed && [badge("closed", "bad", "Too many of its requests failed: it gets no more until somebody opens it again, or the configuration is read again."),
        context.can("reopen") && [" ", h("button", { type: "button", class: "small", "data-key": `reopen ${one.id} ${side.rule} ${side.to}`, "aria-label": `Try ${side.rule} ${side.to} again`, onclick: () => reopen(one.server, side, list) }, "Try again")]]]) : h("span", { class: "dim" }, "–")) },
    ],
  });
}

/** Requests go again to a side that has closed by itself. */
function reopen(server, side, list) {
  ask({
    title: h("span", {}, "Try ", short(side.rule, 40), " ", short(side.to, 60), " again"), confirm: "Try again",
    about: "It gets its share of requests again, at this gateway; others decide for themselves. If too many fail, it closes again.",
    act: async (reason) => {
      await post("/splits/reopen", { server, rule: side.rule, to: side.to, reason });
      announce("It gets requests again");
      list.refresh();
    },
  });
}

const CIRCUITS = {
  open: ["left alone", "bad", "Too many of its requests failed, or it is much slower than the others."],
  half_open: ["tried out", "warn", "A few requests find out whether it works again."],
};

/** What the server offers, filtered and in pages. */
function itemList(context, name) {
  let limit = 50;
  const kind = select([["", "Every kind"], ...Object.entries(KINDS)], "", { onchange: () => list.refresh() });
  const standing = select([["", "Every state"], ...STANDINGS.map(([word]) => [word, plain(word)])], "", { onchange: () => list.refresh() });
  const list = live(context, draw, async () => {
    try {
      return (await get(query(path`/servers/${name}/items`, { kind: kind.value, state: standing.value, limit }), { signal: context.signal })).data;
    } catch (error) {
      if (error.status === 404) return { items: [], next: null };
      throw error;
    }
  });
  function draw({ items, next }) {
    const isFiltered = kind.value || standing.value;
    return [
      table({
        caption: "Items", rows: items, key: (one) => `${one.kind} ${one.id}`,
        empty: isFiltered ? "Nothing fits the filter." : ["Nothing is known of what it offers.", "The gateway reads its lists once the server is approved, and looks at them as they pass."],
        columns: [
          { name: "Name", cell: (one) => h("a", { href: `#${path`/servers/${name}/${one.kind}/${one.id}`}`, "data-key": `${one.kind} ${one.id}` }, short(one.name, 60)) },
          { name: "Kind", cell: (one) => KINDS[one.kind] },
          { name: "State", cell: (one) => [state(one.standing), one.standing === "quarantined" && one.cause && badge(CAUSES[one.cause]?.[0] ?? one.cause, "warn", CAUSES[one.cause]?.[1])] },
          { name: "Findings", cell: (one) => (one.waiting?.findings.length > 0 ? h("span", { class: `severity ${one.waiting.findings[0].severity}` }, `${one.waiting.findings.length}, ${one.waiting.findings[0].severity}`) : h("span", { class: "dim" }, one.waiting ? "none" : "–")) },
          { name: "Approved", cell: (one) => (one.pin ? when(one.pin.at) : h("span", { class: "dim" }, "never")) },
        ],
      }),
      more(next, () => { limit = Math.min(200, limit * 2); list.refresh(); }),
    ];
  }
  const element = panel("What it offers", { about: "Tools, prompts and resources, as the server lists them.", actions: [field("Kind", kind), field("State", standing)] }, list.element);
  return { element, refresh: list.refresh };
}

/** Who did what, the latest first. */
export function acts(context, address) {
  const box = h("div", {});
  const list = live(context, (found) => table({
    caption: "History", rows: found.items, empty: "Nothing has happened yet.",
    columns: [
      { name: "What", cell: (one) => [h("strong", {}, plain(DONE[one.what] ?? one.what)), one.item && h("span", {}, " ", short(one.item.name, 40))] },
      { name: "Who", cell: (one) => person(one.actor) },
      { name: "When", cell: (one) => when(one.at) },
      { name: "Why", kind: "wide", cell: (one) => (one.reason ? h("q", {}, short(one.reason, 200)) : h("span", { class: "dim" }, "–")) },
      { name: "Of", cell: (one) => (one.digest ? h("span", { class: "digest" }, h("code", { title: one.digest }, one.digest.slice(0, 12)), copy(one.digest, "Copy the digest")) : h("span", { class: "dim" }, "–")) },
    ],
  }), async () => {
    try {
      return (await get(`${address}?limit=100`, { signal: context.signal })).data;
    } catch (error) {
      if (error.status === 404) return { items: [] };
      throw error;
    }
  });
  replace(box, list.element);
  return { element: panel("History", { about: "Who did what, when and why. The audit log has it, too." }, box), refresh: list.refresh };
}
