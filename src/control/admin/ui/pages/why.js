// Why was this denied? From the id in the refusal to the rule that decided, and to what would help.

import { get, path, query } from "../lib/api.js";
import { h, replace, short } from "../lib/dom.js";
import { field, heading, live, nothing, panel, problem, table, waiting, when } from "../lib/parts.js";
import { details, outcome, what, who, why as reasonOf } from "../lib/records.js";
import { REASONS, plain } from "../lib/words.js";

const KIND_OF = { "tools/call": "tool", "prompts/get": "prompt", "resources/read": "resource", "resources/subscribe": "resource" };

export function why(context) {
  const [wanted] = context.params;
  const input = h("input", { type: "search", id: "request-id", value: wanted ?? "", required: true, autocomplete: "off", spellcheck: "false", placeholder: "902e8bf1-0000001e, or the whole refusal" });
  const found = h("div", { "aria-live": "polite" });
  const form = h("form", { class: "row", role: "search", onsubmit: (event) => {
    event.preventDefault();
    const id = /[0-9a-z]{6,}-[0-9a-f]{6,}/i.exec(input.value)?.[0] ?? input.value.trim();
    location.hash = `#${path`/why/${id}`}`;
    if (id === wanted) look(id);
  } }, field("Request id", input, "It stands in data.request_id of every refusal, and in the header X-Request-Id. Paste either."), h("button", { class: "primary" }, "Explain"));

  async function look(id) {
    replace(found, waiting());
    try {
      const { data } = await get(query("/audit", { request_id: id, limit: 20 }), { signal: context.signal });
      replace(found, data.items.length > 0 ? data.items.map(explained)
        : nothing("No record has this id.", "The gateway keeps the latest records in memory (admin.recent). Older ones are in the audit file.", "A request that never reached this gateway has none."));
    } catch (error) {
      if (error.name !== "AbortError") replace(found, problem(error, () => look(id)));
    }
  }
  if (wanted) look(wanted);

  const latest = live(context, (page) => table({
    caption: "The latest refusals", rows: page.items, key: (one) => String(one.seq), empty: ["Nothing was refused.", "Refused requests appear here."],
    columns: [
      { name: "When", plain: true, cell: (one) => when(one.time) },
      { name: "Who", cell: (one) => who(one) },
      { name: "What", kind: "wide", cell: (one) => what(one) },
      { name: "Why", cell: (one) => reasonOf(one) },
      { name: "Request", cell: (one) => (one.request_id ? h("a", { href: `#${path`/why/${one.request_id}`}`, "data-key": `why ${one.seq}` }, h("code", {}, one.request_id)) : h("span", { class: "dim" }, "–")) },
    ],
  }), async () => (await get(query("/audit", { outcome: "refused", limit: 15 }), { signal: context.signal })).data);
  return [heading("Why was this denied?", "Every refusal carries the id of its audit record. The client sees a fixed word; here is the rest."), form, found,
    panel("The latest refusals", latest.element)];
}

/** One record, told as a story. */
function explained(record) {
  const word = record.reason ?? record.decision?.reason;
  const [title, advice] = REASONS[word] ?? [plain(word ?? record.outcome), ""];
  const name = record.mcp?.name;
  const kind = KIND_OF[record.mcp?.method];
  const links = [];
  if ((word === "tool_quarantined" || word === "denied") && record.server && name && kind) links.push(h("a", { href: `#${path`/servers/${record.server}/${kind}/${idOf(name)}`}` }, "Look at the ", kind));
  if (word === "server_suspended" && record.server) links.push(h("a", { href: `#${path`/servers/${record.server}`}` }, "Look at the server"));
  if ((word === "insufficient_scope" || word === "denied") && record.route) {
    links.push(h("a", { href: `#${query("/policy", { route: record.route, sub: record.principal?.subject, iss: record.principal?.issuer, tool: kind === "tool" ? name : "" })}` }, "Ask the policy explorer"));
  }
  return h("section", { class: "panel verdict" },
    h("header", {}, h("h2", {}, record.outcome === "ok" ? "It was permitted" : title), outcome(record)),
    advice && h("p", { class: "advice" }, advice),
    h("ol", { class: "story" },
      h("li", {}, h("b", {}, "Who"), h("span", {}, who(record), record.principal && h("span", { class: "dim" }, " of ", short(record.principal.issuer, 60)))),
      h("li", {}, h("b", {}, "Asked"), h("span", {}, what(record), record.server && h("span", { class: "dim" }, ` at the server ${record.server}`))),
      h("li", {}, h("b", {}, "Decided by"), h("span", {}, decidedBy(record))),
      h("li", {}, h("b", {}, "Answer"), h("span", {}, `HTTP ${record.status ?? "–"}, `, h("code", {}, word ?? record.outcome), record.detail && h("span", {}, ": ", plain(record.detail).toLowerCase())))),
    links.length > 0 && h("p", { class: "links" }, links),
    h("details", {}, h("summary", {}, "Everything on record"), details(record)));
}

function decidedBy(record) {
  const { decision } = record;
  if (["tool_quarantined", "server_suspended"].includes(record.reason)) {
    return ["the registry", decision?.effect === "allow" && h("span", {}, ": the rules would have permitted it", decision.rule && h("span", {}, " (", h("strong", {}, short(decision.rule, 60)), ")"))];
  }
  if (decision?.rule) return ["the rule ", h("strong", {}, short(decision.rule, 60)), ` of the route ${record.route}`];
  if (decision) return `the default of the route ${record.route}: no rule matched`;
  return "the gateway, before any rule was asked";
}

/** A name as addresses have it. */
export function idOf(name) {
  const bytes = new TextEncoder().encode(name);
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
}
