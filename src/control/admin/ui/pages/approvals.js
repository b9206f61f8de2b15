// What waits for somebody's approval? Servers and definitions, each with what there is to look at.

import { get, query } from "../lib/api.js";
import { approve, approving, itemToJudge, nameOf, pageOf, serverToJudge, targetOf } from "../lib/approve.js";
import { add, h, replace, short } from "../lib/dom.js";
import { announce, approvals as progress, ask, badge, heading, live, more, nothing, when } from "../lib/parts.js";
import { CAUSES, KINDS, NOT_KEPT } from "../lib/words.js";

export function approvals(context) {
  let limit = 25;
  // What somebody has looked at and wants to approve together: each is approved by its own digest all the same.
  const together = new Map();
  const bar = h("div", { class: "together", hidden: true });
  const choose = (key, thing) => {
    if (thing) together.set(key, thing);
    else together.delete(key);
    bar.hidden = together.size === 0;
    replace(bar, h("strong", {}, `${together.size} chosen`), h("button", { type: "button", class: "primary", "data-key": "together", onclick: approveTogether }, "Approve together"));
  };

  function approveTogether() {
    const things = [...together];
    ask({
      title: `Approve ${things.length} definitions`, confirm: "Approve together",
      about: "You have opened each of them. Your reason is kept with each.",
      more: h("ul", {}, things.map(([, thing]) => h("li", {}, short(nameOf(thing), 80)))),
      act: async (reason) => {
        try {
          for (const [key, thing] of things) {
            await approve(thing, reason, thing.waiting.digest);
            choose(key, null);
          }
          announce(`${things.length} approvals count`);
        } finally {
          list.refresh();
        }
      },
    });
  }

  const list = live(context, draw, async () => {
    try {
      return (await get(query("/approvals", { limit }), { signal: context.signal })).data;
    } catch (error) {
      if (error.word === "no_registry") return { items: [], next: null, none: true };
      throw error;
    }
  }, { every: 10_000 });

  function draw({ items, next, none }) {
    if (none) return nothing("There is no registry.", "Configure store: then nothing that people have not approved is listed or callable.");
    if (items.length === 0) return nothing("Nothing waits.", "Everything that servers offer is as it was approved. New and changed definitions appear here by themselves.");
    return [
      items.map((thing) => card(context, thing, items.length <= 3, list, together, choose)),
      more(next, () => { limit = Math.min(200, limit * 2); list.refresh(); }),
    ];
  }
  return [heading("Approvals", "What is new or has changed since somebody approved it. Until then it is neither listed nor callable. Read what it says before you approve it: models will."), list.element, bar];
}

function card(context, thing, isOpen, list, together, choose) {
  const isItem = thing.what === "item";
  const worst = isItem ? thing.waiting?.findings[0]?.severity : null;
  const [of, given] = isItem ? [thing.waiting?.digest, thing.waiting?.approvals ?? []] : [thing.digest, thing.approvals];
  const body = h("div", { class: "body" });
  const key = `${targetOf(thing)} ${of}`;
  const mine = given.some((one) => one.actor.subject === context.me.subject && one.actor.issuer === context.me.issuer);
  if (mine) together.delete(key);
  let isFilled = false;
  const fill = () => {
    if (isFilled || !element.open) return;
    isFilled = true;
    add(body, [isItem ? itemToJudge(thing) : serverToJudge(thing),
      approving({ context, thing, of, given, missing: thing.approvals_missing, done: () => list.refresh() }),
      isItem && thing.definition && context.can("approve") && !mine && h("label", { class: "choose" }, h("input", { type: "checkbox", "data-key": `choose ${key}`, checked: together.has(key), onchange: (event) => choose(key, event.target.checked ? thing : null) }), " Approve it together with others"),
      h("p", {}, h("a", { href: pageOf(thing) }, isItem ? "History and earlier versions" : "The server and its history"))]);
  };
  const element = h("details", { class: "panel pending", "data-key": targetOf(thing), open: isOpen, ontoggle: fill },
    h("summary", {},
      h("span", { class: "kind" }, isItem ? KINDS[thing.kind] : "Server"),
      h("strong", { class: "name" }, short(thing.name)),
      isItem && h("span", { class: "dim" }, "of ", short(thing.server)),
      badge(isItem ? CAUSES[thing.waiting?.cause]?.[0] ?? "Waits" : thing.change_pending ? "Changed" : "New", "warn"),
      isItem && thing.waiting?.not_kept && badge("cannot be approved", "bad", NOT_KEPT[thing.waiting.not_kept]),
      worst && h("span", { class: `severity ${worst}` }, `${thing.waiting.findings.length} ${thing.waiting.findings.length === 1 ? "finding" : "findings"}`),
      h("span", { class: "push" }, progress(given.map((one) => ({ ...one, reason: "" })), thing.approvals_missing, of)?.firstChild),
      h("span", { class: "dim" }, when(isItem ? thing.waiting?.since : thing.changed_at))),
    body);
  fill();
  return element;
}
