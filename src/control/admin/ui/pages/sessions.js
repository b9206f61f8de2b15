// Who talks to the gateway, and how is that ended?

import { get, post, query } from "../lib/api.js";
import { count, h, short } from "../lib/dom.js";
import { announce, ask, facts, heading, live, more, table, when } from "../lib/parts.js";

export function sessions(context) {
  let limit = 100;
  const list = live(context, draw, async () => (await get(query("/sessions", { limit }), { signal: context.signal })).data);

  function draw(found) {
    return [
      h("div", { class: "figures small" }, [["Opened", found.opened], ["Closed", found.closed], ["Lost", found.lost], ["Refused", found.refused], ["Open streams", found.streams_active]]
        .map(([name, value]) => h("div", { class: "figure" }, h("span", {}, name), h("strong", {}, count(value)), h("small", {}, name === "Open streams" ? "at this moment" : "since the start")))),
      table({
        caption: "People and their sessions", rows: found.items, key: (one) => `${one.issuer} ${one.subject}`,
        empty: ["Nobody has called yet.", "Whoever calls with a token that is believed appears here."],
        columns: [
          { name: "Who", cell: (one) => h("span", { class: "who" }, short(one.subject, 50), h("span", { class: "dim" }, short(one.issuer, 60))) },
          { name: "Sessions", kind: "number", cell: (one) => count(one.sessions) },
          { name: "Requests", kind: "number", cell: (one) => count(one.requests) },
          { name: "Refused", kind: "number", cell: (one) => count(one.refused) },
          { name: "Last seen", cell: (one) => when(one.last_seen) },
          { name: "Ended by hand", cell: (one) => (one.revoked_at ? when(one.revoked_at) : h("span", { class: "dim" }, "–")) },
          ...(context.can("revoke") ? [{ name: h("span", { class: "unseen" }, "End"), label: "", kind: "end", cell: (one) => h("button", { type: "button", class: "danger small", "data-key": `end ${one.issuer} ${one.subject}`, "aria-label": `End sessions of ${one.subject}`, onclick: () => revoke(one) }, "End sessions") }] : []),
        ],
      }),
      more(found.next, () => { limit = Math.min(1000, limit * 2); list.refresh(); }),
    ];
  }

  function revoke(one) {
    ask({
      title: h("span", {}, "End the sessions of ", short(one.subject, 50)), confirm: "End sessions", tone: "danger",
      about: "Every session of theirs is refused from this moment on, also those of these pages, and open streams are closed. Their tokens stay valid: to lock somebody out, disable them at their issuer, too.",
      more: facts([["Issuer", one.issuer], ["Sessions", count(one.sessions)]]),
      act: async (reason) => {
        await post("/sessions/revoke", { issuer: one.issuer, subject: one.subject, reason });
        announce(`The sessions of ${one.subject} are ended`);
        list.refresh();
      },
    });
  }
  return [heading("Sessions", "Who was seen calling, and how many sessions each has. Ending them is for a lost laptop, or an agent that has run away."), list.element];
}
