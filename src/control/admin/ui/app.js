// Where are we, who looks, and what may they see? The frame around the pages.

import { all, bus, get, post, proveWith } from "./lib/api.js";
import { h, replace, said, short } from "./lib/dom.js";
import { announce, icon, problem } from "./lib/parts.js";
import { ROLES } from "./lib/words.js";
import { agents } from "./pages/agents.js";
import { approvals } from "./pages/approvals.js";
import { audit } from "./pages/audit.js";
import { config } from "./pages/config.js";
import { item } from "./pages/item.js";
import { overview } from "./pages/overview.js";
import { policy } from "./pages/policy.js";
import { quarantines } from "./pages/quarantines.js";
import { register } from "./pages/register.js";
import { server } from "./pages/server.js";
import { servers } from "./pages/servers.js";
import { sessions } from "./pages/sessions.js";
import { signIn } from "./pages/signin.js";
import { why } from "./pages/why.js";

/** Every page: its address, its place in the menu, and what it takes to see it. */
const PAGES = [
  { at: /^\/overview$/, show: overview, menu: ["Watch", "overview", "Overview"] },
  { at: /^\/audit$/, show: audit, menu: ["Watch", "audit", "Audit log"], needs: "audit" },
  { at: /^\/why(?:\/([^/]+))?$/, show: why, menu: ["Watch", "why", "Why denied?"], needs: "audit" },
  { at: /^\/approvals$/, show: approvals, menu: ["Govern", "approvals", "Approvals"] },
  { at: /^\/servers$/, show: servers, menu: ["Govern", "servers", "Servers"] },
  { at: /^\/register$/, show: register, needs: "register", under: "servers" },
  { at: /^\/servers\/([^/]+)$/, show: server, under: "servers" },
  { at: /^\/servers\/([^/]+)\/(tool|prompt|resource|resource_template)\/([^/]*)$/, show: item, under: "servers" },
  { at: /^\/policy$/, show: policy, menu: ["Govern", "policy", "Policy explorer"] },
  { at: /^\/sessions$/, show: sessions, menu: ["Who", "sessions", "Sessions"] },
  { at: /^\/agents$/, show: agents, menu: ["Who", "agents", "Agents"] },
  { at: /^\/quarantines$/, show: quarantines, menu: ["Who", "quarantines", "Kill switch"], needs: "stop" },
  { at: /^\/config$/, show: config, menu: ["Gateway", "config", "Configuration"], needs: "config" },
];

/** Which roles allow what; the gateway asks again. */
const RIGHTS = {
  approve: ["approver"], resume: ["approver"], suspend: ["admin", "approver"], retire: ["admin"], register: ["admin"],
  revoke: ["admin"], stop: ["admin"], reopen: ["admin"], config: ["admin"], audit: ["admin", "auditor"],
};

const [main, nav, self, side, menu] = ["main", "nav", "self", "side", "menu"].map((id) => document.getElementById(id));
let me = null;
let leave = null;
let isFirst = true;

const can = (right) => RIGHTS[right].some((role) => me?.roles.includes(role));
const address = () => location.hash.slice(1).split("?")[0] || "/overview";

/** Shows the page that the address names. */
function go() {
  leave?.abort();
  leave = new AbortController();
  const { signal } = leave;
  document.body.classList.remove("menu-open");
  menu.setAttribute("aria-expanded", "false");
  for (const open of document.querySelectorAll("dialog")) open.remove();
  if (!me) return show("Sign in", () => signIn(context(signal, [])));
  const at = address();
  const page = PAGES.find((one) => one.at.test(at));
  for (const link of nav.querySelectorAll("a")) {
    const isHere = link.dataset.page === (page?.menu?.[1] ?? page?.under);
    if (isHere) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (!page) return show("Not found", () => h("div", { class: "nothing" }, h("h1", {}, "There is no such page"), h("p", {}, h("a", { href: "#/overview" }, "Go to the overview"))));
  if (page.needs && !can(page.needs)) {
    return show("Not for you", () => h("div", { class: "nothing" }, h("h1", {}, "Your roles do not allow this"),
      h("p", {}, `It takes the role ${RIGHTS[page.needs].join(" or ")}; you are ${me.roles.join(", ")}.`)));
  }
  const params = page.at.exec(at).slice(1).map((part) => (part === undefined ? undefined : decoded(part)));
  return show(page.menu?.[2] ?? "Portcullis", () => page.show(context(signal, params)));
}

function show(title, make) {
  setTitle(title);
  let content;
  try {
    content = make();
  } catch (error) {
    content = problem(error, go);
  }
  replace(main, content);
  scrollTo(0, 0);
  if (!isFirst) main.focus({ preventScroll: true });
  isFirst = false;
}

function setTitle(title) {
  document.title = said(`${title} · Portcullis`);
}

/** What a page is given. */
function context(signal, params) {
  const every = (ms, act) => {
    const timer = setInterval(() => { if (!document.hidden) act(); }, ms);
    signal.addEventListener("abort", () => clearInterval(timer));
  };
  return { signal, params, me, can, every, go, title: setTitle, query: new URLSearchParams(location.hash.split("?")[1] ?? "") };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Menu and person, by what the roles allow. */
function frame() {
  document.body.classList.toggle("signed-out", !me);
  menu.hidden = !me;
  if (!me) return replace(nav), replace(self);
  const groups = new Map();
  for (const { menu: entry, needs } of PAGES) {
    if (entry && (!needs || can(needs))) groups.set(entry[0], [...(groups.get(entry[0]) ?? []), entry]);
  }
  replace(nav, [...groups].map(([group, entries]) => h("div", { class: "group" }, h("h2", { id: `nav-${group}` }, group),
    h("ul", { "aria-labelledby": `nav-${group}` }, entries.map(([, page, text]) => h("li", {},
      h("a", { href: `#/${page}`, "data-page": page }, icon(page), h("span", {}, text), page === "approvals" && h("b", { id: "pending", hidden: true }))))))));
  replace(self,
    h("div", { class: "me" }, h("strong", {}, short(me.name ?? me.subject, 24)), h("span", { title: me.roles.map((role) => `${role}: ${ROLES[role]}`).join("; ") }, me.roles.join(", "))),
    h("div", { class: "buttons" }, themeButton(),
      h("button", { type: "button", class: "quiet", onclick: signOut }, icon("leave"), "Sign out")));
}

function themeButton() {
  const names = { system: "System", light: "Light", dark: "Dark" };
  const button = h("button", { type: "button", class: "quiet", id: "theme" });
  const draw = () => {
    const now = document.documentElement.dataset.theme ?? "system";
    button.setAttribute("aria-label", `${names[now]} theme. Change it`);
    replace(button, icon(now === "dark" ? "moon" : "sun"), `${names[now]} theme`);
  };
  button.addEventListener("click", () => {
    const order = Object.keys(names);
    const next = order[(order.indexOf(document.documentElement.dataset.theme ?? "system") + 1) % order.length];
    if (next === "system") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = next;
    try {
      localStorage.setItem("theme", next);
    } catch {
      // It holds for this page.
    }
    draw();
  });
  draw();
  return button;
}

async function signOut() {
  try {
    const { data } = await post("/signout", {});
    me = null;
    if (data.end_session) return location.assign(data.end_session);
  } catch (error) {
    if (error.status !== 401) return announce(error.title, "bad");
    me = null;
  }
  frame();
  location.hash = "#/overview";
  go();
}

/** How much waits for somebody's approval, beside the menu's entry. */
async function countWaiting() {
  const mark = document.getElementById("pending");
  if (!me || !mark || document.hidden) return;
  try {
    const { items } = await all("/servers?limit=200");
    const used = items.filter((one) => one.state !== "retired");
    const waiting = used.reduce((sum, one) => sum + one.items.quarantined + (one.state === "registered" || one.change_pending ? 1 : 0), 0);
    mark.hidden = waiting === 0;
    mark.textContent = waiting > 999 ? "999+" : String(waiting);
    mark.setAttribute("aria-label", `${waiting} waiting`);
  } catch {
    mark.hidden = true;
  }
}

async function begin() {
  try {
    me = (await get("/me")).data;
    proveWith(me.csrf_token);
  } catch (error) {
    if (error.status !== 401) {
      replace(main, problem(error, begin));
      return;
    }
  }
  frame();
  go();
  countWaiting();
}

bus.addEventListener("signed-out", () => {
  if (!me) return;
  me = null;
  frame();
  go();
  announce("Your session has ended", "bad");
});
bus.addEventListener("changed", countWaiting);
addEventListener("hashchange", go);
menu.addEventListener("click", () => {
  const isOpen = document.body.classList.toggle("menu-open");
  menu.setAttribute("aria-expanded", String(isOpen));
  if (isOpen) nav.querySelector("a")?.focus();
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && document.body.classList.contains("menu-open")) menu.click(), menu.focus();
});
side.addEventListener("click", (event) => {
  if (event.target === side) menu.click();
});
document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
setInterval(countWaiting, 10_000);
begin();
