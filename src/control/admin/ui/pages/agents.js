// Which software acts here, for whom, and who vouches for it?

import { get, query } from "../lib/api.js";
import { json } from "../lib/definition.js";
import { count, h, short } from "../lib/dom.js";
import { badge, facts, heading, live, more, table, when } from "../lib/parts.js";

const ATTESTED = { verified: "ok", unverified: "off", failed: "bad" };

export function agents(context) {
  let limit = 100;
  const list = live(context, draw, async () => (await get(query("/agents", { limit }), { signal: context.signal })).data);

  function draw({ items, next }) {
    return [
      table({
        caption: "Agents", rows: items, key: (one) => one.id,
        empty: ["No agent was seen yet.", "Software that names itself appears here: by a token of its own, or by claims in the access token. See the key agents of the configuration."],
        columns: [
          { name: "Agent", cell: (one) => h("details", { "data-key": one.id }, h("summary", {}, h("strong", {}, short(one.id, 50))), about(one)) },
          { name: "Kind", cell: (one) => short([one.agent?.type, one.agent?.model].filter(Boolean).join(", ") || "–", 40) },
          { name: "Provider", cell: (one) => short(one.agent?.provider ?? "–", 40) },
          { name: "Acts for", cell: (one) => short(one.principal?.subject ?? "itself", 40) },
          { name: "Attested", cell: (one) => badge(one.agent?.attestation ?? "unverified", ATTESTED[one.agent?.attestation] ?? "off") },
          { name: "Requests", kind: "number", cell: (one) => [count(one.requests), one.refused > 0 && h("span", { class: "dim" }, ` (${count(one.refused)} refused)`)] },
          { name: "Last seen", cell: (one) => when(one.last_seen) },
        ],
      }),
      more(next, () => { limit = Math.min(1000, limit * 2); list.refresh(); }),
    ];
  }
  return [heading("Agents", "The software that called, as its issuer describes it. What an agent says of itself without an attestation is a claim."), list.element];
}

function about({ agent, first_seen: first }) {
  if (!agent) return null;
  return h("div", { class: "inner" }, facts([
    ["Issuer", agent.issuer], ["Instance", agent.instance], ["Version", agent.version], ["Trust level", agent.trust_level], ["Purpose", agent.purpose],
    ["Capabilities", agent.capabilities?.length > 0 && agent.capabilities.join(", ")],
    ["Chain", agent.chain?.length > 0 && agent.chain.map((step) => `${step.delegator} → ${step.delegatee}`).join(", ")],
    ["Chain is", agent.chain_assurance], ["Known from", agent.source], ["First seen", when(first)],
  ]), h("details", {}, h("summary", {}, "As JSON"), json(agent, "The agent as JSON")));
}
