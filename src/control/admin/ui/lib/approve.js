// How is something approved? By the digest of what was looked at, in the version that was looked at, with a reason.

import { bus, get, path, post } from "./api.js";
import { sideBySide } from "./diff.js";
import { findings, json, read } from "./definition.js";
import { h, replace, short } from "./dom.js";
import { announce, approvals, badge, digest, field, problem } from "./parts.js";
import { CAUSES, KINDS, NOT_KEPT } from "./words.js";

/** What was typed and not sent, by what it is about: a list that is drawn anew does not lose it. */
const drafts = new Map();

/** What was last refused, by the thing: told also where the thing is drawn anew, as what it has become. */
const refusals = new Map();

/** The address of a thing in the API. */
export function targetOf(thing) {
  return thing.kind ? path`/servers/${thing.server}/items/${thing.kind}/${thing.id}` : path`/servers/${thing.name}`;
}

/** The page of a thing. */
export function pageOf(thing) {
  return thing.kind ? `#${path`/servers/${thing.server}/${thing.kind}/${thing.id}`}` : `#${path`/servers/${thing.name}`}`;
}

/** Does something to a thing as it was looked at. */
export async function act(thing, action, reason, of = null) {
  const body = { action, reason, ...(of ? { digest: of } : {}) };
  const { data } = await post(`${targetOf(thing)}/actions`, body, { tag: `"${thing.version}"` });
  bus.dispatchEvent(new Event("changed"));
  return data;
}

/** Approves what was looked at. Where nothing has happened since but another's approval, what waits is still what was looked
 *  at: its digest says so, and the approval is given again for the version that there is. */
export async function approve(thing, reason, of) {
  try {
    return await act(thing, "approve", reason, of);
  } catch (error) {
    if (error.status !== 412) throw error;
    const { data } = await get(targetOf(thing));
    const isSame = data.state === thing.state && (data.kind ? data.waiting?.digest === thing.waiting?.digest : data.digest === thing.digest);
    if (!isSame) throw error;
    return act(data, "approve", reason, of);
  }
}

/** Who has approved what waits, and the way to do so. */
export function approving({ context, thing, of, given, missing, done }) {
  const key = `${targetOf(thing)} ${of}`;
  const mine = given.some((one) => one.digest === of && one.actor.subject === context.me.subject && one.actor.issuer === context.me.issuer);
  const progress = approvals(given, missing, of);
  const refused = refusals.get(targetOf(thing));
  const wrong = h("div", {}, refused && problem(refused));
  refusals.delete(targetOf(thing));
  const head = h("div", { class: "looked-at" }, h("span", {}, "What you see here: ", digest(of)), progress);
  if (!context.can("approve")) return h("div", { class: "approve" }, wrong, head, h("p", { class: "dim" }, "Approving takes the role approver."));
  if (thing.waiting?.not_kept && !thing.pin) return h("div", { class: "approve" }, wrong, head, h("p", { class: "dim" }, "It stays hidden until its server lists it so that it can be kept. Somebody may retire it."));
  if (mine) return h("div", { class: "approve" }, wrong, head, h("p", {}, "You have approved this. Somebody else must, too."));
  const why = h("textarea", { rows: 2, required: true, maxlength: 1000, "data-key": `why ${key}`, value: drafts.get(key) ?? "", oninput: () => drafts.set(key, why.value) });
  const button = h("button", { class: "primary", "data-key": `approve ${key}` }, "Approve");
  const send = async (wanted) => {
    button.disabled = true;
    try {
      const now = await approve(thing, why.value, wanted);
      drafts.delete(key);
      const left = now.approvals_missing;
      announce(left > 0 ? `Your approval counts. ${left} more ${left === 1 ? "person" : "people"} must approve.` : `${thing.name} is approved`);
      document.activeElement?.blur();
      done(now);
    } catch (error) {
      replace(wrong, problem(error));
      if (error.status === 412) {
        refusals.set(targetOf(thing), error);
        announce(error.title, "bad");
        done();
      }
    }
    button.disabled = false;
  };
  const keep = thing.pin && thing.waiting && h("button", { type: "button", class: "quiet", title: "Approves again what was approved before: for when the server lists that again",
    onclick: () => (why.reportValidity() ? send(thing.pin.digest) : undefined) }, "Go back to what was approved");
  return h("form", { class: "approve", onsubmit: (event) => { event.preventDefault(); if (!thing.waiting?.not_kept) send(of); } }, head, wrong,
    field("Why may it be used?", why), h("div", { class: "actions" }, keep, !thing.waiting?.not_kept && button));
}

/** Everything to look at before an item is approved: why it waits, what the scan has found, and what is different. */
export function itemToJudge(item) {
  const [title, about] = CAUSES[item.waiting?.cause ?? item.cause] ?? ["Waits", ""];
  const alike = item.waiting?.alike;
  return [
    h("p", { class: "cause" }, badge(title, "warn"), " ", about,
      alike && h("span", {}, " It looks like ", h("strong", {}, short(alike.name)), " of ", short(alike.server), ".")),
    item.waiting && !item.waiting.not_kept && findings(item.waiting.findings),
    item.waiting?.not_kept && h("p", { class: "alert bad" }, NOT_KEPT[item.waiting.not_kept], " It was not kept: nobody can have looked at it, and it cannot be approved."),
    !item.definition && !item.waiting?.not_kept && h("p", { class: "alert bad" }, "Its definition cannot be shown at this moment: the store does not have it, or does not answer."),
    item.pinned_definition && item.definition && item.waiting && [changed(item.changes), sideBySide(item.pinned_definition, item.definition)],
    item.definition && !(item.pinned_definition && item.waiting) && h("h3", {}, "What models are told"),
    item.definition && !(item.pinned_definition && item.waiting) && read(item.definition),
    item.definition && h("details", { "data-key": `json ${targetOf(item)}` }, h("summary", {}, "The whole definition as JSON"), json(item.definition, `Definition of ${item.name}`)),
  ];
}

/** Where it differs, in short. */
export function changed(changes) {
  const words = { added: ["added", "ok"], removed: ["removed", "bad"], changed: ["changed", "warn"] };
  return h("ul", { class: "changes", "aria-label": "What is different" }, changes.slice(0, 20).map((one) => h("li", {},
    badge(words[one.what]?.[0] ?? one.what, words[one.what]?.[1]), " ", h("code", {}, short(one.pointer || "/", 80)))),
    changes.length > 20 && h("li", { class: "dim" }, `and ${changes.length - 20} more places`));
}

/** A server to judge: what it is, and what it was. */
export function serverToJudge(server) {
  const whole = (spec) => (spec ? { server: spec.server, ...(spec.route ? { route: spec.route } : {}) } : null);
  return [
    server.change_pending
      ? h("p", { class: "cause" }, badge("Changed", "warn"), " What was approved serves until the change is approved.")
      : h("p", { class: "cause" }, badge("New", "warn"), " Nothing of it is listed or callable before it is approved. Its tools are then looked at one by one."),
    server.origin === "file" && h("p", {}, "It is declared in the configuration file; what is approved is that this name may be used."),
    server.change_pending && sideBySide(whole(server.approved_spec), whole(server.spec)),
    server.spec && !server.change_pending && json(whole(server.spec), `Settings of ${server.name}`),
  ];
}

/** What a thing is called in a sentence. */
export function nameOf(thing) {
  return thing.kind ? `${(KINDS[thing.kind] ?? thing.kind).toLowerCase()} ${thing.name}` : `server ${thing.name}`;
}
