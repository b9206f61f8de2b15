// What may somebody call, and which rule says so?

import { get, post } from "../lib/api.js";
import { count, h, replace, short } from "../lib/dom.js";
import { badge, field, heading, nothing, panel, problem, select, table, waiting } from "../lib/parts.js";
import { plain } from "../lib/words.js";

const VERDICTS = { allow: ["may", "ok"], deny: ["may not", "bad"], depends: ["depends on arguments", "warn"] };

export function policy(context) {
  const asked = context.query;
  const text = (properties) => h("input", { type: "text", autocomplete: "off", spellcheck: "false", ...properties });
  const route = select([], "", { id: "policy-route" });
  const subject = text({ id: "policy-sub", placeholder: "alice", value: asked.get("sub") ?? "" });
  const scopes = text({ id: "policy-scopes", placeholder: "tools:read tools:write" });
  const claims = h("textarea", { id: "policy-claims", rows: 3, class: "code", spellcheck: "false", placeholder: '{ "groups": ["engineering"] }' });
  const call = text({ id: "policy-tool", placeholder: "echo", value: asked.get("tool") ?? "" });
  const args = h("textarea", { id: "policy-args", rows: 2, class: "code", spellcheck: "false", placeholder: '{ "text": "hello" }' });
  const agent = {
    agent: text({ id: "agent-id", placeholder: "mail-assistant", list: "agents-seen" }), type: text({ id: "agent-type", placeholder: "assistant" }),
    provider: text({ id: "agent-provider", placeholder: "agents.example" }), model: text({ id: "agent-model" }), instance: text({ id: "agent-instance" }),
    trust_level: text({ id: "agent-trust", placeholder: "certified" }), capabilities: text({ id: "agent-capabilities", placeholder: "email:draft email:send" }),
    attestation: select([["unverified", "not attested"], ["verified", "attested"]], "unverified", { id: "agent-attestation" }),
  };
  const seen = h("datalist", { id: "agents-seen" });
  const found = h("div", { "aria-live": "polite" }, nothing("Ask.", "The answer names every tool that rules or the registry know, and for each the rule that decides."));

  get("/health", { signal: context.signal }).then(({ data }) => {
    replace(route, data.routes.map((one) => h("option", { value: one, selected: one === asked.get("route") }, one)));
    if (data.routes.length > 0) explain();
  }).catch((error) => { if (error.name !== "AbortError") replace(found, problem(error)); });
  get("/agents?limit=50", { signal: context.signal }).then(({ data }) => {
    replace(seen, data.items.map((one) => h("option", { value: one.id })));
    agent.agent.addEventListener("change", () => {
      const known = data.items.find((one) => one.id === agent.agent.value)?.agent;
      if (!known) return;
      for (const key of ["type", "provider", "model", "instance", "trust_level"]) agent[key].value = known[key] ?? "";
      agent.capabilities.value = (known.capabilities ?? []).join(" ");
      agent.attestation.value = known.attestation === "verified" ? "verified" : "unverified";
    });
  }).catch(() => {});

  function question() {
    const words = (control) => control.value.split(/[\s,]+/).filter(Boolean);
    const object = (control, name) => {
      if (control.value.trim() === "") return {};
      try {
        return JSON.parse(control.value);
      } catch (error) {
        throw new Error(`${name}: ${error.message}`);
      }
    };
    const body = { route: route.value, scopes: words(scopes), claims: { ...object(claims, "Claims") } };
    if (subject.value) body.claims.sub = subject.value;
    if (asked.get("iss") && subject.value === asked.get("sub")) body.claims.iss = asked.get("iss");
    if (call.value) body.tools = { [call.value]: args.value.trim() ? object(args, "Arguments") : null };
    if (agent.agent.value) {
      body.agent = Object.fromEntries(Object.entries(agent).map(([key, control]) => [key, control.value]).filter(([, value]) => value !== ""));
      body.agent.capabilities = words(agent.capabilities);
    }
    return body;
  }

  async function explain() {
    try {
      const body = question();
      replace(found, waiting());
      const { data } = await post("/policy/explain", body, { signal: context.signal });
      replace(found, answer(data, call.value));
    } catch (error) {
      if (error.name === "AbortError") return;
      replace(found, error.status === undefined ? h("div", { class: "problem", role: "alert" }, h("p", {}, error.message)) : problem(error));
    }
  }

  const form = h("form", { onsubmit: (event) => { event.preventDefault(); explain(); } },
    h("div", { class: "columns three" },
      panel("Who calls", { about: "What their access token would hold." }, field("Route", route), field("Subject", subject), field("Scopes", scopes), field("Other claims as JSON", claims)),
      panel("Which agent", { about: "Leave it out when nobody acts for them." }, field("Name", agent.agent, "Agents that were seen are offered."), field("Type", agent.type), field("Provider", agent.provider),
        h("details", {}, h("summary", {}, "More of the agent"), field("Model", agent.model), field("Instance", agent.instance), field("Trust level", agent.trust_level), field("Capabilities", agent.capabilities), field("Attestation", agent.attestation))),
      panel("Which call", { about: "Rules may read arguments: with them, the answer is certain." }, field("Tool", call), field("Arguments as JSON", args),
        h("div", { class: "actions" }, h("button", { class: "primary", id: "explain" }, "What may they call?")))), seen);
  return [heading("Policy explorer", "What may somebody call, and which rule decides? Nothing is sent to a server; the question is written to the audit log."), form, panel("The answer", found)];
}

const AGENTS = {
  ignored: "The route looks for no agent, so the agent changes nothing.",
  missing: "The route requires an agent: without one, every call is refused before any rule is asked.",
};

function answer({ tools, default: fallback, route, server, agent }, first) {
  const isKept = (one) => one.registry !== null && one.registry !== "open";
  const may = tools.filter((one) => one.verdict === "allow" && !isKept(one)).length;
  const order = { allow: 0, depends: 1, deny: 2 };
  const rows = tools.toSorted((a, b) => (b.tool === first) - (a.tool === first) || order[a.verdict] - order[b.verdict] || a.tool.localeCompare(b.tool));
  return [
    h("p", {}, `On ${route}, at the server ${server}: ${count(may)} of ${count(tools.length)} known tools may be called. What no rule decides is ${fallback === "allow" ? "permitted" : "denied"}.`),
    AGENTS[agent] && h("p", { class: "alert warn" }, AGENTS[agent]),
    table({
      caption: "Tools and the rules that decide", rows, key: (one) => one.tool, empty: ["No tool is known.", "Neither rules nor the registry name one. Name it above."],
      columns: [
        { name: "Tool", cell: (one) => h("strong", {}, short(one.tool, 60)) },
        { name: "Verdict", cell: (one) => (isKept(one) && one.verdict !== "deny" ? [badge("may not", "bad"), " ", badge(plain(one.registry), "warn", "The rules would permit it; the registry refuses it")] : badge(...VERDICTS[one.verdict])) },
        { name: "Rule that decides", cell: (one) => [one.rule ? h("code", {}, short(one.rule, 60)) : h("span", { class: "dim" }, "the default"), h("span", { class: "dim" }, ` ${one.effect === "allow" ? "permits" : "denies"}`)] },
        { name: "Depends on", cell: (one) => (one.depends_on.length > 0 ? one.depends_on.map((rule) => h("div", {}, h("code", {}, short(rule.rule, 60)), h("span", { class: "dim" }, ` would ${rule.effect === "allow" ? "permit" : "deny"}`))) : h("span", { class: "dim" }, one.with_arguments ? "nothing: arguments were given" : "–")) },
        { name: "Scopes that would help", cell: (one) => (one.missing_scopes?.length > 0 ? h("code", {}, one.missing_scopes.join(" ")) : h("span", { class: "dim" }, "–")) },
      ],
    }),
  ];
}
