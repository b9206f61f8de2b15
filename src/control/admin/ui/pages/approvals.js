// What waits for somebody's approval? Servers and definitions, each with what there is to look at.

import { get, query } from "../lib/api.js";
import { approving, itemToJudge, pageOf, serverToJudge, targetOf } from "../lib/approve.js";
import { h, short } from "../lib/dom.js";
import { approvals as progress, badge, heading, live, more, nothing, when } from "../lib/parts.js";
import { CAUSES, KINDS } from "../lib/words.js";

export function approvals(context) {
  let limit = 25;
  const list = live(context, draw, async () => {
    try {
      return (await get(query("/approvals", { limit }), { signal: context.signal })).data;
    } catch (error) {
      if (error.word === "no_registry") return { items: [], next: null, none: true };
      throw error;
    }
  });

  function draw({ items, next, none }) {
    if (none) return nothing("There is no registry.", "Configure store: then nothing that people have not approved is listed or callable.");
    if (items.length === 0) return nothing("Nothing waits.", "Everything that servers offer is as it was approved. New and changed definitions appear here by themselves.");
    return [
      items.map((thing) => card(context, thing, items.length <= 3, list)),
      more(next, () => { limit = Math.min(200, limit * 2); list.refresh(); }),
    ];
  }
  return [heading("Approvals", "What is new or has changed since somebody approved it. Until then it is neither listed nor callable. Read what it says before you approve it: models will."), list.element];
}

function card(context, thing, isOpen, list) {
  const isItem = thing.what === "item";
  const worst = isItem ? thing.waiting?.findings[0]?.severity : null;
  const [of, given] = isItem ? [thing.waiting?.digest, thing.waiting?.approvals ?? []] : [thing.digest, thing.approvals];
  const body = h("div", { class: "body" });
  let isFilled = false;
  const fill = () => {
    if (isFilled || !element.open) return;
    isFilled = true;
    body.append(...[isItem ? itemToJudge(thing) : serverToJudge(thing)].flat(Infinity).filter(Boolean),
      approving({ context, thing, of, given, missing: thing.approvals_missing, done: () => list.refresh() }),
      h("p", {}, h("a", { href: pageOf(thing) }, isItem ? "History and earlier versions" : "The server and its history")));
  };
  const element = h("details", { class: "panel pending", "data-key": targetOf(thing), open: isOpen, ontoggle: fill },
    h("summary", {},
      h("span", { class: "kind" }, isItem ? KINDS[thing.kind] : "Server"),
      h("strong", { class: "name" }, short(thing.name)),
      isItem && h("span", { class: "dim" }, "of ", short(thing.server)),
      badge(isItem ? CAUSES[thing.waiting?.cause]?.[0] ?? "Waits" : thing.change_pending ? "Changed" : "New", "warn"),
      worst && h("span", { class: `severity ${worst}` }, `${thing.waiting.findings.length} ${thing.waiting.findings.length === 1 ? "finding" : "findings"}`),
      h("span", { class: "push" }, progress(given.map((one) => ({ ...one, reason: "" })), thing.approvals_missing, of)?.firstChild),
      h("span", { class: "dim" }, when(isItem ? thing.waiting?.since : thing.changed_at))),
    body);
  fill();
  return element;
}
