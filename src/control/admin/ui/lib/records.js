// What does an audit record tell? One line of it in a list, and all of it beside.

import { path } from "./api.js";
import { h, short } from "./dom.js";
import { json } from "./definition.js";
import { badge, clock, copy, facts } from "./parts.js";
import { OUTCOMES, REASONS, plain } from "./words.js";

/** How it ended. */
export function outcome(record) {
  const [text, tone] = OUTCOMES[record.outcome] ?? [record.outcome, "off"];
  return badge(text, tone);
}

/** What was asked, or done. */
export function what(record) {
  if (record.mcp) {
    const { method, name, batch } = record.mcp;
    return h("span", { class: "what" }, h("code", {}, short(method ?? "?", 40)), name && h("strong", {}, short(name, 60)),
      batch?.length > 0 && h("span", { class: "dim" }, `${batch.length} messages`));
  }
  if (record.act) {
    const { call, target, action } = record.act;
    return h("span", { class: "what" }, h("code", {}, record.event.replace("admin.", "")), h("strong", {}, short([action, target].filter(Boolean).join(" ") || call, 60)));
  }
  if (record.registry) {
    const { kind, name, cause, state } = record.registry;
    return h("span", { class: "what" }, h("code", {}, record.event.replace("registry.", "")), h("strong", {}, short([record.server, name ?? kind].filter(Boolean).join(": "), 60)),
      h("span", { class: "dim" }, cause ? plain(cause) : state ? `→ ${state}` : ""));
  }
  return h("span", { class: "what" }, h("code", {}, record.event));
}

/** Who asked: the person, and the software that acts for them. */
export function who(record) {
  const { principal, agent } = record;
  if (!principal && !agent) return h("span", { class: "dim" }, record.event?.startsWith("registry.") || record.event?.startsWith("config.") ? "the gateway" : "nobody known");
  return h("span", { class: "who" }, principal && h("span", { title: `of ${principal.issuer}` }, short(principal.subject || "the gateway", 40)),
    agent && h("span", { class: "dim" }, "by ", short(agent.id, 30)));
}

/** Why it was refused, in a few words. */
export function why(record) {
  const word = record.reason ?? (record.decision?.effect === "deny" ? record.decision.reason : null);
  if (!word) return record.decision?.rule ? h("span", { class: "dim" }, "rule ", short(record.decision.rule, 30)) : null;
  // The rule that permitted what the registry kept back is not why it was refused.
  const rule = record.decision?.effect === "deny" ? record.decision.rule : null;
  return h("span", { title: REASONS[word]?.[0] }, plain(word), rule && h("span", { class: "dim" }, " by rule ", short(rule, 30)));
}

/** All of it. */
export function details(record) {
  const { mcp, principal, agent, decision, credential, act, registry } = record;
  return h("div", { class: "record" },
    facts([
      ["When", clock(record.time)],
      ["Request", record.request_id && h("span", {}, h("a", { href: `#/why/${encodeURIComponent(record.request_id)}` }, h("code", {}, record.request_id)), copy(record.request_id, "Copy the request id"))],
      ["Outcome", h("span", {}, outcome(record), record.status && ` HTTP ${record.status}`)],
      ["Reason", record.reason && h("span", {}, plain(record.reason), record.detail && `: ${plain(record.detail)}`)],
      ["Person", principal && h("span", {}, h("bdi", {}, principal.subject), h("span", { class: "dim" }, " of ", short(principal.issuer, 60)))],
      ["Client", principal?.client_id && h("bdi", {}, principal.client_id)],
      ["Roles", act?.roles],
      ["Agent", agent && h("span", {}, h("bdi", {}, agent.id), h("span", { class: "dim" }, ` ${[agent.type, agent.model, agent.version].filter(Boolean).join(", ")}`))],
      ["Delegation", agent?.chain?.length > 0 && agent.chain.map((step) => `${step.delegator} → ${step.delegatee}`).join(", ")],
      ["Done", act && h("span", {}, h("code", {}, act.call), act.target && h("span", {}, " ", h("bdi", {}, act.target)))],
      ["Why, in their words", (act?.note ?? registry?.note) && h("q", {}, act?.note ?? registry?.note)],
      ["Asked", mcp && h("span", {}, h("code", {}, mcp.method ?? "?"), mcp.name && h("span", {}, " ", h("bdi", {}, mcp.name)))],
      ["Protocol revision", mcp?.revision],
      ["Decided by", decision && h("span", {}, badge(decision.effect, decision.effect === "allow" ? "ok" : "warn"), " ", decision.rule ? h("span", {}, "rule ", h("bdi", {}, decision.rule)) : "the default of the route")],
      ["Route", record.route],
      ["Server", record.server && h("a", { href: `#${path`/servers/${record.server}`}` }, record.instance ? `${record.server}, instance ${record.instance}` : record.server)],
      ["Credential", credential && `${plain(credential.mode)}${credential.scope ? `, scope ${credential.scope}` : ""}${credential.cached ? ", from the cache" : ""}`],
      ["Took", record.duration_ms !== undefined && `${record.duration_ms} ms${record.upstream_ms !== undefined ? `, of which the server ${record.upstream_ms} ms` : ""}`],
      ["From", record.client_ip],
    ]),
    h("details", {}, h("summary", {}, "The record as it stands in the log"), json(record, "The record as JSON")));
}
