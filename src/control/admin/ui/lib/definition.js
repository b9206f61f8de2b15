// What does a definition say? As callers' models read it, and as it stands.

import { count, excerpt, h, prose, short } from "./dom.js";
import { badge, table } from "./parts.js";
import { FINDINGS, plain } from "./words.js";

/** The lines of a value as JSON; a line end inside a string begins another line, so that texts can be read and compared. */
export function lines(value) {
  if (value === null || value === undefined) return [];
  return JSON.stringify(value, null, 2).split("\n").flatMap(broken);
}

function broken(line) {
  const parts = [];
  const indent = `${/^ */.exec(line)[0]}  `;
  let from = 0;
  for (let at = 0; at < line.length; at += 1) {
    if (line[at] !== "\\") continue;
    at += 1;
    if (line[at] === "n" && at + 1 < line.length - 2) {
      parts.push(line.slice(from, at + 1));
      from = at + 1;
    }
  }
  parts.push(line.slice(from));
  return parts.map((part, nth) => (nth === 0 ? part : indent + part));
}

/** A value as JSON. */
export function json(value, label) {
  const all = lines(value);
  const shown = all.slice(0, LINES_MAX);
  const more = all.length - shown.length;
  return h("pre", { class: "json", tabindex: "0", role: "region", "aria-label": label },
    shown.map((line) => [coloured(line), document.createElement("br")]),
    more > 0 && h("span", { class: "dim" }, `… and ${count(more)} more lines`));
}

/** Keys and values told apart. A very long line is cut. */
function coloured(line) {
  const cut = line.length > LINE_MAX ? line.slice(0, LINE_MAX) : line;
  const [, indent, key, value] = /^( *)("(?:[^"\\]|\\.)*": )?([^]*)$/.exec(cut);
  const kind = /^"/.test(value) ? "j-text" : /^[-\dtfn]/.test(value) ? "j-word" : "j-sign";
  return [document.createTextNode(indent), key && h("span", { class: "j-key" }, key), value && h("span", { class: key || /^"/.test(value) ? kind : "" }, value),
    cut.length < line.length && h("span", { class: "cut" }, `… ${count(line.length - cut.length)} more characters`)];
}

/** What a model is told: the texts, then the parameters. */
export function read(definition) {
  const schema = definition.inputSchema ?? {};
  const required = new Set(Array.isArray(schema.required) ? schema.required : []);
  const properties = plainObject(schema.properties) ? Object.entries(schema.properties) : [];
  const hints = plainObject(definition.annotations) ? Object.entries(definition.annotations) : [];
  return h("div", { class: "read" },
    typeof definition.title === "string" && h("p", { class: "title" }, h("bdi", {}, definition.title)),
    typeof definition.description === "string" ? prose(definition.description) : h("p", { class: "dim" }, "It has no description."),
    hints.length > 0 && h("p", { class: "hints" }, h("span", { class: "dim" }, "It says of itself: "),
      hints.map(([name, value]) => badge(h("bdi", {}, typeof value === "boolean" ? `${value ? "" : "not "}${words(name)}` : `${words(name)}: ${text(value, 80)}`)))),
    properties.length > 0 && table({
      caption: "Parameters",
      columns: [
        { name: "Parameter", cell: ([name]) => h("code", {}, short(name, 60)) },
        { name: "Type", cell: ([, one]) => h("code", {}, text(one?.type ?? (one?.enum ? "enum" : "any"), 40)) },
        { name: "Required", cell: ([name]) => (required.has(name) ? "yes" : "no") },
        { name: "What it says", kind: "wide", cell: ([, one]) => (typeof one?.description === "string" ? prose(one.description, 400) : h("span", { class: "dim" }, "nothing")) },
      ],
      rows: properties.slice(0, 100),
    }));
}

/** What the scan has found, the worst first. */
export function findings(list) {
  if (list.length === 0) return h("p", { class: "clean" }, "The scan has found nothing. That is no proof: read what it says.");
  const finding = (one) => h("li", { class: one.severity },
    h("span", { class: `severity ${one.severity}` }, one.severity),
    h("div", {}, h("p", {}, h("strong", {}, FINDINGS[one.code] ?? plain(one.code)), " in ", h("code", {}, one.pointer || "/")),
      one.excerpt && h("blockquote", {}, h("bdi", {}, excerpt(one.excerpt)))));
  const all = (part) => h("ul", { class: "findings", "aria-label": "What the scan has found" }, part.map(finding));
  const more = list.slice(FINDINGS_FIRST);
  return h("div", {}, all(list.slice(0, FINDINGS_FIRST)),
    more.length > 0 && h("details", {}, h("summary", {}, `${more.length} more ${more.length === 1 ? "finding" : "findings"}`), all(more)));
}

function words(name) {
  return String(name).replace(/Hint$/, "").replace(/([A-Z])/g, " $1").toLowerCase();
}

function text(value, most) {
  const whole = typeof value === "string" ? value : JSON.stringify(value);
  return whole.length > most ? `${whole.slice(0, most)}…` : whole;
}

function plainObject(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}

const FINDINGS_FIRST = 8;
const LINES_MAX = 3000;
const LINE_MAX = 4000;
