// What happens at this moment, and what has happened? The audit log as it is written.

import { get, query } from "../lib/api.js";
import { count, h, replace } from "../lib/dom.js";
import { clock, field, heading, problem, select, waiting } from "../lib/parts.js";
import { details, outcome, what, who, why } from "../lib/records.js";
import { OUTCOMES } from "../lib/words.js";

const ROWS_MAX = 500;
const PAGE = 100;
const EVENTS = [["", "Everything"], ["mcp.", "Requests of agents"], ["auth.", "Tokens that were not believed"], ["registry.", "Registry"], ["admin.", "These pages"], ["config.", "Configuration"]];
const COLUMNS = ["When", "Who", "What", "Outcome", "Why"];

export function audit(context) {
  const now = Object.fromEntries(context.query);
  const text = (name, placeholder) => h("input", { type: "search", name, placeholder, value: now[name] ?? "", autocomplete: "off", spellcheck: "false" });
  const form = h("form", { class: "filters", role: "search", "aria-label": "Filter the records", onsubmit: (event) => { event.preventDefault(); apply(); }, onchange: () => apply() },
    field("What", select(EVENTS, now.event ?? "", { name: "event" })),
    field("Outcome", select([["", "Any"], ...Object.keys(OUTCOMES).map((word) => [word, word])], now.outcome ?? "", { name: "outcome" })),
    field("Person", text("principal", "alice")), field("Tool", text("tool", "send")), field("Server", text("server", "mail")),
    field("Agent", text("agent", "")), field("Reason", text("reason", "denied")), field("Request", text("request_id", "")),
    h("div", { class: "actions" }, h("button", {}, "Filter"), h("button", { type: "button", class: "quiet", onclick: () => { for (const control of form.elements) control.value = ""; apply(); } }, "Clear")));
  const light = h("span", { class: "light", role: "status" }, "connecting");
  const pause = h("button", { type: "button", "aria-pressed": "false", id: "pause", onclick: () => setPaused(!isPaused) }, "Pause");
  const body = h("tbody", { role: "rowgroup" });
  const holder = h("div", {}, waiting());
  const older = h("div", { class: "more" });
  let [records, buffer, isPaused, source, oldest, retry] = [new Map(), [], false, null, null, null];

  function apply() {
    const filters = filter();
    history.replaceState(null, "", `#${query("/audit", filters)}`);
    open(filters);
  }

  const filter = () => Object.fromEntries([...new FormData(form)].filter(([, value]) => value !== ""));

  /** Listens first and looks back then, so that nothing falls between. */
  async function open(filters) {
    close();
    [records, buffer, oldest] = [new Map(), [], null];
    const mine = new EventSource(`/api/v1${query("/audit/stream", filters)}`);
    source = mine;
    mine.addEventListener("open", () => tell(isPaused ? "paused" : "live"));
    mine.addEventListener("record", (event) => take(JSON.parse(event.data)));
    mine.addEventListener("gap", (event) => gap(JSON.parse(event.data).missed));
    mine.addEventListener("error", () => {
      if (source !== mine) return;
      tell("interrupted");
      if (mine.readyState !== EventSource.CLOSED) return;
      // It was refused, or the session has ended: asking for anything else tells.
      get("/me").catch(() => {});
      retry = setTimeout(() => open(filters), 5000);
    });
    try {
      const { data } = await get(query("/audit", { ...filters, limit: PAGE }), { signal: context.signal });
      if (source !== mine) return;
      replace(holder, h("div", { class: "table" }, h("table", { role: "table", class: "stream" }, h("caption", { class: "unseen" }, "Audit records, the newest first"),
        h("thead", { role: "rowgroup" }, h("tr", { role: "row" }, COLUMNS.map((name) => h("th", { scope: "col", role: "columnheader" }, name)))), body)));
      body.replaceChildren();
      const early = [...records.values()];
      records.clear();
      for (const record of [...data.items].reverse()) put(record);
      for (const record of early) put(record);
      page(data);
      blank();
    } catch (error) {
      if (error.name !== "AbortError" && error.status !== 401 && source === mine) replace(holder, problem(error, () => open(filters)));
    }
  }

  function take(record) {
    if (isPaused) {
      buffer.push(record);
      buffer = buffer.slice(-ROWS_MAX);
      pause.textContent = `Go on (${count(buffer.length)} came)`;
      return;
    }
    put(record);
  }

  function put(record) {
    if (records.has(record.seq)) return;
    records.set(record.seq, record);
    body.prepend(row(record));
    while (body.rows.length > ROWS_MAX) body.lastElementChild.remove();
    blank();
  }

  function blank() {
    holder.classList.toggle("blank", body.rows.length === 0);
    if (body.rows.length === 0) older.replaceChildren(h("div", { class: "nothing" }, h("p", {}, h("strong", {}, "No record fits.")), h("p", {}, "Records appear here as they are written. The file has those that are older than what the gateway keeps in memory.")));
    else if (older.querySelector(".nothing")) older.replaceChildren();
  }

  function page({ next }) {
    if (next === null) return older.replaceChildren();
    const button = h("button", { type: "button", onclick: async () => {
      button.disabled = true;
      try {
        const { data } = await get(query("/audit", { ...filter(), limit: PAGE, after: next }), { signal: context.signal });
        for (const record of data.items) {
          if (records.has(record.seq)) continue;
          records.set(record.seq, record);
          body.append(row(record));
        }
        page(data);
      } catch (error) {
        if (error.name !== "AbortError") older.replaceChildren(problem(error));
      }
    } }, "Show older records");
    return older.replaceChildren(button);
  }

  function row(record) {
    const cell = (name, ...content) => h("td", { role: "cell", "data-name": name }, h("div", {}, content));
    return h("tr", { role: "row", class: record.outcome, "data-seq": String(record.seq) },
      h("td", { role: "cell", "data-name": "When" }, h("div", {}, h("button", { type: "button", class: "link", "aria-haspopup": "dialog", title: "Details", onclick: () => detail(record) }, clock(record.time)))),
      cell("Who", who(record)), cell("What", what(record)), cell("Outcome", outcome(record), record.status && h("span", { class: "dim" }, ` ${record.status}`)), cell("Why", why(record) ?? h("span", { class: "dim" }, "–")));
  }

  function gap(missed) {
    body.prepend(h("tr", { role: "row", class: "gap" }, h("td", { role: "cell", colspan: String(COLUMNS.length) }, h("div", {}, `${count(missed)} records came faster than they could be shown`))));
  }

  function setPaused(value) {
    isPaused = value;
    pause.setAttribute("aria-pressed", String(value));
    pause.textContent = value ? "Go on" : "Pause";
    tell(value ? "paused" : "live");
    if (value) return;
    for (const record of buffer) put(record);
    buffer = [];
  }

  function tell(word) {
    light.textContent = word;
    light.className = `light ${word}`;
  }

  function close() {
    clearTimeout(retry);
    source?.close();
    source = null;
  }

  context.signal.addEventListener("abort", close);
  open(filter());
  return [
    heading("Audit log", "One record for every request, refusals included, and for everything that people do here. It holds no tokens and no arguments.", light, pause),
    h("details", { class: "panel filterbox", open: Object.keys(now).length > 0 || innerWidth > 900 }, h("summary", {}, "Filter"), form),
    holder, older,
  ];
}

/** All of a record, in front of the list. */
function detail(record) {
  const dialog = h("dialog", { class: "wide", "aria-label": "Audit record", onclose: () => dialog.remove(), onclick: (event) => { if (event.target === dialog || event.target.closest("a")) dialog.close(); } },
    h("div", {}, h("div", { class: "heading" }, h("h2", {}, "Audit record ", h("span", { class: "dim" }, String(record.seq))), h("button", { type: "button", class: "quiet", autofocus: true, onclick: () => dialog.close() }, "Close")), details(record)));
  document.body.append(dialog);
  dialog.showModal();
}
