// What are the pages made of? Headings, tables, badges, problems, dialogs: each made once, with its role and its keys.

import { Problem } from "./api.js";
import { count, h, replace, s, said, short } from "./dom.js";
import { ACTIONS, STATES } from "./words.js";

const ICONS = {
  overview: "M3 12h4l3-8 4 16 3-8h4",
  servers: "M4 5h16v6H4zM4 13h16v6H4zM8 8h.01M8 16h.01",
  approvals: "M9 12l2.5 2.5L16 9.5M12 3l7 3v5c0 5-3 8-7 10-4-2-7-5-7-10V6z",
  audit: "M7 4h10l3 3v13H4V4h3M8 10h8M8 14h8M8 18h5",
  why: "M12 21a9 9 0 1 0 0-18 9 9 0 0 0 0 18M9.6 9.2a2.5 2.5 0 1 1 3.6 2.6c-.8.4-1.2.9-1.2 1.7M12 17h.01",
  sessions: "M16 19v-1.5a3.5 3.5 0 0 0-3.5-3.5h-5A3.5 3.5 0 0 0 4 17.5V19M10 11a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7M17 4.5a3.5 3.5 0 0 1 0 6.5M20 19v-1.5a3.5 3.5 0 0 0-2.5-3.3",
  agents: "M6 9h12v9H6zM12 9V5M9 5h6M9.5 13h.01M14.5 13h.01M3 12v3M21 12v3",
  quarantines: "M8.5 3h7L21 8.5v7L15.5 21h-7L3 15.5v-7zM8 12h8",
  policy: "M12 4v16M5 7h14M5 7l-3 7h6zM19 7l-3 7h6zM8 20h8",
  config: "M4 7h10M18 7h2M4 17h2M10 17h10M16 9.5a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5M8 19.5a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5",
  copy: "M9 9h10v11H9zM5 15V4h10",
  sun: "M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8M12 2v2M12 20v2M4.2 4.2l1.5 1.5M18.3 18.3l1.5 1.5M2 12h2M20 12h2M4.2 19.8l1.5-1.5M18.3 5.7l1.5-1.5",
  moon: "M20 14.5A8.5 8.5 0 1 1 9.5 4 7 7 0 0 0 20 14.5",
  leave: "M10 4H5v16h5M14 8l4 4-4 4M18 12H9",
};

/** A small drawing that says nothing by itself. */
export function icon(name) {
  return s("svg", { class: "icon", viewBox: "0 0 24 24", "aria-hidden": "true" }, s("path", { d: ICONS[name] }));
}

/** The top of a page: what it is, and in a sentence what it is for. */
export function heading(title, about, ...actions) {
  return h("div", { class: "heading" },
    h("div", {}, h("h1", {}, title), about && h("p", { class: "about" }, about)),
    actions.length > 0 && h("div", { class: "actions" }, actions));
}

/** The way back. */
export function trail(...steps) {
  return h("nav", { class: "trail", "aria-label": "Where this page is" },
    h("ol", {}, steps.map(([text, link]) => h("li", {}, link ? h("a", { href: link }, short(text, 40)) : h("span", { "aria-current": "page" }, short(text, 60))))));
}

/** A part of a page. */
export function panel(title, ...content) {
  const { actions, about, kind } = content[0] && content[0].constructor === Object ? content.shift() : {};
  return h("section", { class: `panel ${kind ?? ""}` },
    h("header", {}, h("h2", {}, title), about && h("p", {}, about), actions && h("div", { class: "actions" }, actions)),
    content);
}

/** A word with a colour, and what it means. */
export function badge(text, tone = "off", title = null) {
  return h("span", { class: `badge ${tone}`, title }, text);
}

/** Where a thing stands. */
export function state(word) {
  const [text, tone, meaning] = STATES[word] ?? [word, "off", ""];
  return badge(text, tone, meaning);
}

/** A table. Columns are `{ name, cell, kind }`; on a narrow screen each row becomes a card with the names before the cells. */
export function table({ caption, columns, rows, key, empty }) {
  if (rows.length === 0) return nothing(...(Array.isArray(empty) ? empty : [empty ?? "There is nothing here yet."]));
  const head = h("tr", { role: "row" }, columns.map((column) => h("th", { scope: "col", role: "columnheader", class: column.kind }, column.name)));
  const body = rows.map((row) => h("tr", { role: "row", "data-key": key?.(row) },
    columns.map((column, nth) => {
      const is = nth === 0 && !column.plain ? ["th", { scope: "row", role: "rowheader" }] : ["td", { role: "cell" }];
      return h(is[0], { ...is[1], class: column.kind, "data-name": column.label ?? column.name }, h("div", {}, column.cell(row)));
    })));
  return h("div", { class: "table" }, h("table", { role: "table" }, h("caption", { class: "unseen" }, caption),
    h("thead", { role: "rowgroup" }, head), h("tbody", { role: "rowgroup" }, body)));
}

/** Nothing is there, and that is well: why, and what to do. */
export function nothing(title, ...about) {
  return h("div", { class: "nothing" }, h("p", {}, h("strong", {}, title)), about.map((line) => h("p", {}, line)));
}

/** Names and values. */
export function facts(pairs) {
  return h("dl", { class: "facts" }, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "" && value !== false)
    .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

/** A refusal, in full. */
export function problem(error, again) {
  const isOurs = error instanceof Problem;
  const isText = error instanceof SyntaxError;
  if (!isOurs && !isText) console.error(error);
  const known = isOurs ? error : isText ? new Problem({ status: 0, word: "page", title: "What will be sent is not JSON", detail: error.message }) : new Problem({ status: 0, word: "page", title: "The page has made a mistake", detail: String(error?.message ?? error) });
  return h("div", { class: "problem", role: "alert" },
    h("p", {}, h("strong", {}, known.title), known.status > 0 && h("span", { class: "code" }, `${known.status} ${known.word}`)),
    known.detail && h("p", {}, known.detail),
    known.word === "precondition_failed" && h("p", {}, "Somebody was faster. What you see now is what it has become; look at it again."),
    known.problems.length > 0 && problems(known.problems),
    known.requestId && h("p", { class: "dim" }, "Request ", h("code", {}, known.requestId)),
    again && h("button", { type: "button", onclick: again }, "Try again"));
}

/** What is wrong with a configuration, by key. */
export function problems(list) {
  return h("ul", { class: "problems" }, list.map((one) => h("li", {},
    one.path && h("code", {}, one.path), one.line > 0 && h("span", { class: "dim" }, `line ${one.line}, column ${one.column}`),
    h("span", {}, one.message), one.hint && h("span", { class: "dim" }, one.hint))));
}

/** Something is on its way. */
export function waiting() {
  return h("div", { class: "skeleton", role: "status", "aria-label": "Loading" }, h("i"), h("i"), h("i"));
}

/** A part that is asked for again and again, and drawn when it is another. What is typed in it is never taken away. */
export function live(context, draw, fetch, { every = 5000 } = {}) {
  const notice = h("div", { class: "notice", role: "status" });
  const box = h("div", { class: "live", "aria-busy": "true" }, waiting());
  let drawn = null;
  let turn = 0;
  const refresh = async (isForced = false) => {
    const mine = (turn += 1);
    try {
      const found = await fetch();
      if (mine !== turn || context.signal.aborted) return;
      replace(notice);
      const text = JSON.stringify(found);
      const isTyping = box.contains(document.activeElement) && document.activeElement.matches("input:not([type=checkbox]), textarea, select");
      if (drawn === text || (isTyping && !isForced)) return;
      drawn = text;
      replace(box, draw(found));
      box.removeAttribute("aria-busy");
    } catch (error) {
      if (mine !== turn || context.signal.aborted || error.name === "AbortError" || error.status === 401) return;
      box.removeAttribute("aria-busy");
      if (drawn === null) replace(box, problem(error, () => refresh(true)));
      else replace(notice, h("p", { class: "stale" }, `What you see may be old. ${error.title ?? error.message}.`));
    }
  };
  refresh();
  if (every) context.every(every, refresh);
  return { element: h("div", {}, notice, box), refresh: () => refresh(true) };
}

/** A moment, told by how long ago it was; exactly when pointed at. */
export function when(moment) {
  if (moment === null || moment === undefined) return h("span", { class: "dim" }, "never");
  const at = new Date(typeof moment === "number" ? moment * 1000 : moment);
  const iso = at.toISOString();
  return h("time", { datetime: iso, title: iso.replace("T", " ").replace(".000", "") }, ago(at));
}

function ago(at) {
  const seconds = Math.round((Date.now() - at.getTime()) / 1000);
  if (seconds < -5) return `in ${span(-seconds)}`;
  if (seconds < 10) return "just now";
  return `${span(seconds)} ago`;
}

/** A time in words. */
export function span(seconds) {
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
  }
  return `${Math.max(0, Math.floor(seconds))} s`;
}

/** The time of day, to the millisecond. */
export function clock(moment) {
  const at = new Date(moment);
  return h("time", { datetime: at.toISOString(), title: at.toISOString() }, at.toISOString().slice(11, 23));
}

/** A digest, by its beginning; the whole of it can be copied. */
export function digest(hex) {
  return h("span", { class: "digest" }, h("code", { title: hex }, hex.slice(0, 12)), copy(hex, "Copy the digest"));
}

/** Takes a text to the clipboard. */
export function copy(text, label) {
  const button = h("button", { type: "button", class: "icon-only", "aria-label": label, title: label, onclick: async () => {
    try {
      await navigator.clipboard.writeText(text);
      announce("Copied");
    } catch {
      announce("The browser does not let the page copy");
    }
  } }, icon("copy"));
  return button;
}

/** Who somebody is. */
export function person(actor) {
  if (!actor || actor.subject === "gateway" && !actor.issuer) return h("span", {}, "the gateway");
  const name = actor.name ?? actor.subject;
  return h("span", { class: "person", title: `${actor.subject} of ${actor.issuer}` }, short(name, 40));
}

/** Says something to everybody: on the screen, and to screen readers. */
export function announce(text, tone = "ok") {
  document.getElementById("status").textContent = said(text);
  const toast = h("div", { class: `toast ${tone}` }, text);
  document.getElementById("toasts").append(toast);
  setTimeout(() => toast.remove(), 5000);
}

let serial = 0;

/** A field with its label, its help, and its problem. */
export function field(label, control, help = null) {
  serial += 1;
  control.id ||= `field-${serial}`;
  if (help) control.setAttribute("aria-describedby", `${control.id}-help`);
  return h("div", { class: "field" }, h("label", { for: control.id }, label), control, help && h("p", { class: "help", id: `${control.id}-help` }, help));
}

/** A choice of words. */
export function select(options, value, properties = {}) {
  const element = h("select", properties, options.map(([word, text]) => h("option", { value: word, selected: word === value }, text)));
  return element;
}

/** Asks why, then does it. `act` is given the reason; what it throws is shown and the dialog stays. */
export function ask({ title, about, confirm, tone = "", act, more = null, reason: wantsReason = true }) {
  const wrong = h("div", {});
  const reason = h("textarea", { rows: 3, required: true, maxlength: 1000, autofocus: true });
  const go = h("button", { class: `primary ${tone}` }, confirm);
  const dialog = h("dialog", { "aria-labelledby": "ask-title", onclose: () => dialog.remove() },
    h("form", { onsubmit: async (event) => {
      event.preventDefault();
      go.disabled = true;
      try {
        await act(reason.value);
        dialog.close();
      } catch (error) {
        replace(wrong, problem(error));
        go.disabled = false;
      }
    } },
    h("h2", { id: "ask-title" }, title), about && h("p", {}, about), more, wrong,
    wantsReason && field("Why", reason, "Kept with your name in the history and the audit log."),
    h("div", { class: "actions" }, h("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, "Cancel"), go)));
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}

/** The buttons of a lifecycle: those that the state offers and the person's roles allow. */
export function lifecycle({ context, standing, what, act }) {
  const offered = { registered: ["suspend", "retire"], approved: ["suspend", "retire"], quarantined: ["suspend", "retire"], missing: ["suspend", "retire"], suspended: ["resume", "retire"], retired: [] };
  return (offered[standing] ?? []).filter((action) => context.can(action)).map((action) => {
    const [text, about] = ACTIONS[action];
    const tone = action === "retire" ? "danger" : "";
    return h("button", { type: "button", class: tone, "data-key": `do-${action}`, onclick: () => ask({
      title: h("span", {}, `${text} `, short(what, 60)), about, confirm: text, tone, act: (reason) => act(action, reason),
    }) }, text);
  });
}

/** Who has approved, and how many are still needed. */
export function approvals(given, missing, digestOf) {
  const counted = given.filter((one) => one.digest === digestOf);
  const wanted = counted.length + missing;
  if (wanted === 0) return null;
  return h("div", { class: "approved" },
    h("span", { class: "pips", role: "img", "aria-label": `${counted.length} of ${wanted} approvals` },
      Array.from({ length: wanted }, (_, nth) => h("i", { class: nth < counted.length ? "on" : "" }))),
    h("span", {}, `${count(counted.length)} of ${count(wanted)} approvals`),
    counted.length > 0 && h("ul", {}, counted.map((one) => h("li", {}, person(one.actor), " ", when(one.at), one.reason && h("q", {}, short(one.reason, 120))))));
}

/** Leads to another part of a list. */
export function more(next, load) {
  if (!next) return null;
  return h("div", { class: "more" }, h("button", { type: "button", "data-key": "more", onclick: (event) => { event.target.disabled = true; load(next); } }, "Show more"));
}
