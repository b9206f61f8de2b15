// How does another server come behind the gateway? By its address, how callers reach it, and who may call what.

import { all, bus, get, path, post } from "../lib/api.js";
import { h, replace } from "../lib/dom.js";
import { announce, field, heading, panel, problem, select, trail } from "../lib/parts.js";

export function register(context) {
  const text = (properties) => h("input", { type: "text", autocomplete: "off", spellcheck: "false", ...properties });
  const name = text({ id: "server-name", required: true, pattern: "[A-Za-z0-9][A-Za-z0-9_.\\-]*", placeholder: "mail" });
  const urls = h("textarea", { id: "server-urls", rows: 2, required: true, spellcheck: "false", placeholder: "http://10.0.0.7:3001" });
  const at = text({ id: "server-path", value: "/mcp", required: true });
  const secret = text({ id: "server-secret", placeholder: "none" });
  const route = text({ id: "route-path", required: true, placeholder: "/mail" });
  const issuers = select([], "", { id: "route-issuer" });
  const scope = text({ id: "route-scope", placeholder: "mail:use" });
  const fallback = select([["deny", "is denied"], ["allow", "is permitted"]], "deny", { id: "route-default" });
  const agents = select([["", "nobody looks for one"], ["optional", "who is named is verified"], ["required", "one must be named"]], "", { id: "route-agents" });
  const whole = h("textarea", { id: "server-json", rows: 18, spellcheck: "false", class: "code", required: true });
  const reason = h("textarea", { id: "server-reason", rows: 2, required: true, maxlength: 1000 });
  const wrong = h("div", { role: "alert" });
  let isOwn = false;

  const compose = () => {
    if (isOwn) return;
    const instances = urls.value.split(/\s+/).filter(Boolean).map((url, nth) => ({ id: "abcdefghijklmnopqrstuvwxyz"[nth] ?? `i${nth}`, url }));
    const scopes = scope.value.split(/[\s,]+/).filter(Boolean);
    const rules = scopes.length === 0 ? [] : [{ name: `${name.value || "server"}-users`, source: { jwt: { scopes } } }];
    whole.value = JSON.stringify({
      server: { name: name.value, path: at.value, instances, credential: secret.value ? { static: { secret: { credential: secret.value }, prefix: "Bearer " } } : "none" },
      route: { path: route.value, servers: [name.value], issuers: issuers.value ? [issuers.value] : [], scopes_supported: scopes, ...(agents.value ? { agents: agents.value } : {}), authorization: { default: fallback.value, rules } },
    }, null, 2);
  };
  name.addEventListener("input", () => {
    if (!route.dataset.own) route.value = name.value ? `/${name.value}` : "";
  });
  route.addEventListener("input", () => { route.dataset.own = "1"; });
  const again = h("button", { type: "button", class: "link", hidden: true, onclick: () => { isOwn = false; again.hidden = true; compose(); } }, "Take it from the fields again");
  whole.addEventListener("input", () => { isOwn = true; again.hidden = false; });

  all("/servers?limit=1", { signal: context.signal, most: 1 }).catch((error) => {
    if (error.word === "no_registry") replace(wrong, problem(error));
  });
  get("/health", { signal: context.signal }).then(({ data }) => {
    replace(issuers, data.issuers.map((one) => h("option", { value: one.name }, one.name)));
    compose();
  }).catch(() => {});
  compose();

  const button = h("button", { class: "primary" }, "Register");
  const form = h("form", { oninput: (event) => { if (event.target !== whole && event.target !== reason) compose(); }, onsubmit: async (event) => {
    event.preventDefault();
    replace(wrong);
    button.disabled = true;
    try {
      const { data } = await post("/servers", { ...JSON.parse(whole.value), reason: reason.value });
      announce(`${data.name} is registered. ${data.approvals_missing} ${data.approvals_missing === 1 ? "person" : "people"} must approve it.`);
      bus.dispatchEvent(new Event("changed"));
      location.hash = `#${path`/servers/${data.name}`}`;
    } catch (error) {
      replace(wrong, problem(error));
      button.disabled = false;
      wrong.scrollIntoView({ block: "center" });
    }
  } },
  h("div", { class: "columns" },
    panel("The server", { about: "Where it is. Nothing goes there before people have approved it." },
      field("Name", name, "What rules, metrics and logs call it."),
      field("Addresses", urls, "One instance a line."),
      field("Path at the server", at),
      field("Credential for the server", secret, "The name of a credential of the service, listed in registry.credentials. Secrets are never typed in here.")),
    panel("How callers reach it", { about: "The public path, whose tokens count, and who may call." },
      field("Public path", route),
      field("Issuer of the callers' tokens", issuers),
      field("Callers need the scopes", scope, "Separated by spaces. Finer rules can be written in what will be sent."),
      field("What no rule permits", fallback),
      field("Agents", agents, "The software that acts for the callers: needs the key agents of the configuration."))),
  panel("What will be sent", { about: "The same shape as in the configuration file. You may write in it.", actions: [again] }, field("Server and route as JSON", whole)),
  panel("Register", wrong, field("Why is it needed?", reason, "Kept with your name in the history and the audit log."), h("div", { class: "actions" }, h("a", { class: "button quiet", href: "#/servers" }, "Cancel"), button)));
  return [trail(["Servers", "#/servers"], ["Register"]), heading("Register a server", "Another MCP server behind the gateway. After this, people approve the server, and then each of its tools."), form];
}
