// Which servers are there, and where does each stand?

import { all, path } from "../lib/api.js";
import { shares } from "../lib/chart.js";
import { h, short } from "../lib/dom.js";
import { badge, heading, live, nothing, state, table, when } from "../lib/parts.js";

export const STANDINGS = [["approved", "ok"], ["quarantined", "warn"], ["suspended", "bad"], ["missing", "off"], ["retired", "off"]];

export function servers(context) {
  const list = live(context, draw, () => known(context.signal));
  return [
    heading("Servers", "Every MCP server behind the gateway. A governed server serves what people have approved, and nothing else.",
      context.can("register") && h("a", { class: "button primary", href: "#/register" }, "Register a server")),
    list.element,
  ];

  function draw({ governed, instances, hasRegistry }) {
    const others = [...new Set(instances.map((one) => one.server))].filter((name) => !governed.some((one) => one.name === name));
    const rows = [...governed, ...others.map((name) => ({ name, state: "ungoverned" }))];
    return [
      !hasRegistry && nothing("There is no registry.", "Configure store to have servers and their tools approved by people. Until then servers are those of the configuration file."),
      table({
        caption: "Servers", rows, key: (one) => one.name, empty: "No server is configured.",
        columns: [
          { name: "Server", cell: (one) => h("a", { href: `#${path`/servers/${one.name}`}`, "data-key": one.name }, short(one.name)) },
          { name: "State", cell: (one) => [state(one.state), one.change_pending && badge("change waits", "warn"), one.deployed && badge("serving", "ok", "Approved, and part of what serves")] },
          { name: "Instances", cell: (one) => healthOf(instances.filter((instance) => instance.server === one.name)) },
          { name: "Items", kind: "wide", cell: (one) => itemsOf(one) },
          { name: "Lists read", cell: (one) => (one.last_read ? h("span", {}, one.last_read.outcome === "ok" ? "" : badge(one.last_read.outcome, "bad"), " ", when(one.last_read.at)) : h("span", { class: "dim" }, "–")) },
        ],
      }),
    ];
  }
}

async function known(signal) {
  const instances = (await all("/instances", { signal })).items;
  try {
    return { governed: (await all("/servers?limit=200", { signal })).items, instances, hasRegistry: true };
  } catch (error) {
    if (error.word !== "no_registry") throw error;
    return { governed: [], instances, hasRegistry: false };
  }
}

/** How its instances are. */
export function healthOf(instances) {
  if (instances.length === 0) return h("span", { class: "dim" }, "–");
  const well = instances.filter((one) => one.healthy).length;
  return badge(`${well} of ${instances.length} healthy`, well === instances.length ? "ok" : well > 0 ? "warn" : "bad");
}

function itemsOf(server) {
  if (!server.items) return h("span", { class: "dim" }, "not looked at");
  const parts = STANDINGS.map(([name, tone]) => [name, server.items[name] ?? 0, tone]).filter(([, value]) => value > 0);
  if (parts.length === 0) return h("span", { class: "dim" }, "none yet");
  return h("span", { class: "shared" }, shares(parts, "Items"), h("span", { class: "dim" }, parts.map(([name, value]) => `${value} ${name}`).join(", ")));
}
