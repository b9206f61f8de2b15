// What does this tool say of itself, what has it said before, and who has approved what?

import { get, path } from "../lib/api.js";
import { act, approving, changed, itemToJudge, nameOf } from "../lib/approve.js";
import { json, read } from "../lib/definition.js";
import { sideBySide } from "../lib/diff.js";
import { count, h, replace, short } from "../lib/dom.js";
import { announce, approvals, badge, digest, facts, field, heading, lifecycle, live, panel, problem, select, state, table, trail, when } from "../lib/parts.js";
import { CAUSES, DONE, KINDS } from "../lib/words.js";
import { acts } from "./server.js";

export function item(context) {
  const [serverName, kind, id] = context.params;
  const address = path`/servers/${serverName}/items/${kind}/${id}`;
  const name = named(id);
  context.title(name);
  const versions = versionList(context, address);
  const history = acts(context, `${address}/acts`);
  const head = live(context, draw, async () => (await get(address, { signal: context.signal })).data);
  const refresh = () => [head, versions, history].forEach((part) => part.refresh());

  function draw(item) {
    const { waiting, pin } = item;
    return [
      heading(h("span", {}, short(item.name, 80), " ", state(item.standing), !waiting && item.cause && badge(CAUSES[item.cause]?.[0] ?? item.cause, "warn", CAUSES[item.cause]?.[1]),
        item.deployed && badge("callable", "ok", "Callers may use it, if their rules permit")),
        `${KINDS[item.kind]} of the server ${item.server}.`,
        lifecycle({ context, standing: item.standing, what: nameOf(item), act: async (action, reason) => {
          await act(item, action, reason);
          announce(`${item.name} is ${DONE[action]}`);
          refresh();
        } })),
      item.missing_since && h("p", { class: "alert warn" }, "Its server has not listed it since ", when(item.missing_since), "."),
      waiting && item.standing === "quarantined" && panel("Waits for approval", { kind: "waits" }, itemToJudge(item),
        approving({ context, thing: item, of: waiting.digest, given: waiting.approvals, missing: item.approvals_missing, done: refresh })),
      panel("What was approved", pin
        ? [facts([["Definition", digest(pin.digest)], ["Approved", when(pin.at)]]), approvals(pin.approvals, 0, pin.digest),
          item.pinned_definition && [read(item.pinned_definition), h("details", { "data-key": "pinned" }, h("summary", {}, "The whole definition as JSON"), json(item.pinned_definition, "Approved definition"))]]
        : h("p", { class: "dim" }, "Nothing yet: nobody may use it.")),
      panel("About", facts([
        ["Kind", KINDS[item.kind]], ["Server", h("a", { href: `#${path`/servers/${item.server}`}` }, short(item.server))],
        ["First seen", when(item.registered_at)], ["Last change", when(item.changed_at)], ["Version", item.version],
      ])),
    ];
  }
  return [trail(["Servers", "#/servers"], [serverName, `#${path`/servers/${serverName}`}`], [name]), head.element, versions.element, history.element];
}

/** Every definition it has had, and the difference between any two. */
function versionList(context, address) {
  const difference = h("div", {});
  const list = live(context, draw, async () => (await get(`${address}/versions`, { signal: context.signal })).data);
  function draw({ items }) {
    if (items.length < 2) return [versionTable(items)];
    const options = items.map((one, nth) => [one.digest, `${one.digest.slice(0, 12)} ${nth === 0 ? "(the latest)" : ""}`]);
    const [from, to] = [select(options, items[1].digest, { "data-key": "from" }), select(options, items[0].digest, { "data-key": "to" })];
    const compare = async (event) => {
      event.preventDefault();
      try {
        const { data } = await get(`${address}/diff?from=${from.value}&to=${to.value}`, { signal: context.signal });
        replace(difference, data.changes.length === 0 ? h("p", {}, "They are alike.") : [changed(data.changes),
          sideBySide(data.from_definition, data.to_definition, { names: [data.from.slice(0, 12), data.to.slice(0, 12)], caption: "Difference between two versions" })]);
      } catch (error) {
        replace(difference, problem(error));
      }
    };
    return [versionTable(items), h("form", { class: "row", onsubmit: compare }, field("From", from), field("To", to), h("button", { "data-key": "compare" }, "Compare"))];
  }
  return { element: panel("Versions", { about: "Every definition that was seen, the latest first." }, list.element, difference), refresh: list.refresh };
}

function versionTable(items) {
  return table({
    caption: "Versions", rows: items, key: (one) => one.digest, empty: "None is kept.",
    columns: [
      { name: "Definition", cell: (one) => digest(one.digest) },
      { name: "First seen", cell: (one) => when(one.first_seen) },
      { name: "Last seen", cell: (one) => when(one.last_seen) },
      { name: "Bytes", kind: "number", cell: (one) => count(one.bytes) },
    ],
  });
}

/** The name that an id in an address stands for. */
function named(id) {
  try {
    const bytes = Uint8Array.from(atob(id.replaceAll("-", "+").replaceAll("_", "/")), (character) => character.charCodeAt(0));
    return new TextDecoder().decode(bytes);
  } catch {
    return id;
  }
}
