// Who and what is stopped, and how is somebody or something stopped at once?

import { get, path, post, query } from "../lib/api.js";
import { h, replace, short } from "../lib/dom.js";
import { announce, ask, badge, field, heading, live, more, panel, problem, select, table, when } from "../lib/parts.js";

const KINDS = {
  principal: ["A person or service", "subject", "issuer", "The subject of their tokens.", "Its issuer; empty: at any."],
  agent: ["An agent", "name", "issuer", "The name of the software that acts.", "Its issuer; empty: at any."],
  tool: ["A tool", "name", "server", "The tool's name.", "Its server; empty: at any."],
};

const TIMES = [["", "until it is let go"], ["3600", "for an hour"], ["28800", "for eight hours"], ["86400", "for a day"], ["604800", "for a week"]];

export function quarantines(context) {
  let limit = 100;
  const list = live(context, draw, async () => (await get(query("/quarantines", { limit }), { signal: context.signal })).data);

  function draw(found) {
    return [
      table({
        caption: "What is stopped", rows: found.items, key: (one) => one.id,
        empty: ["Nothing is stopped.", "Whoever or whatever is stopped appears here, whoever has stopped it, and by which way."],
        columns: [
          { name: "What", cell: (one) => named(one.stopped) },
          { name: "Since", cell: (one) => when(one.since) },
          { name: "Until", cell: (one) => (one.until ? when(one.until) : "it is let go") },
          { name: "Why", kind: "wide", cell: (one) => (one.reason ? short(one.reason, 200) : h("span", { class: "dim" }, "–")) },
          { name: "By", cell: (one) => short(one.by, 60) },
          { name: h("span", { class: "unseen" }, "Let go"), label: "", kind: "end", cell: (one) => h("button", { type: "button", class: "small", "data-key": `lift ${one.id}`, onclick: () => lift(one) }, "Let go") },
        ],
      }),
      more(found.next, () => { limit = Math.min(1000, limit * 2); list.refresh(); }),
    ];
  }

  function lift(one) {
    ask({
      title: h("span", {}, "Let go ", named(one.stopped)), confirm: "Let go", reason: false,
      about: "What is let go may call, or be called, again from this moment on, at every gateway.",
      act: async () => {
        await post(path`/quarantines/${one.id}`, null, { method: "DELETE" });
        announce("It is let go");
        list.refresh();
      },
    });
  }

  const kind = select(Object.entries(KINDS).map(([word, [text]]) => [word, text]), "principal", { id: "stop-kind" });
  const text = (id) => h("input", { type: "text", id, autocomplete: "off", spellcheck: "false", maxlength: 4096 });
  const name = text("stop-name");
  const place = text("stop-place");
  name.required = true;
  const time = select(TIMES, "", { id: "stop-time" });
  const reason = h("textarea", { id: "stop-reason", rows: 2, required: true, maxlength: 1000 });
  const wrong = h("div", { role: "alert" });
  const button = h("button", { class: "primary danger" }, "Stop");
  const fields = h("div", {});
  const describe = () => {
    const [, , , about, where] = KINDS[kind.value];
    replace(fields, field("Name", name, about), field(kind.value === "tool" ? "Server" : "Issuer", place, where));
  };
  kind.addEventListener("change", describe);
  describe();

  const form = h("form", { onsubmit: async (event) => {
    event.preventDefault();
    replace(wrong);
    button.disabled = true;
    const [, nameKey, placeKey] = KINDS[kind.value];
    const stopped = { [kind.value]: { [nameKey]: name.value, ...(place.value ? { [placeKey]: place.value } : {}) } };
    try {
      const { data } = await post("/quarantines", { stopped, reason: reason.value, ...(time.value ? { for_seconds: Number(time.value) } : {}) });
      announce(data.is_kept ? "It is stopped, at every gateway" : "It is stopped here; without a store no other gateway knows", data.is_kept ? "ok" : "bad");
      for (const one of [name, place, reason]) one.value = "";
      list.refresh();
    } catch (error) {
      replace(wrong, problem(error));
    }
    button.disabled = false;
  } }, field("What", kind), fields, field("How long", time), field("Why", reason, "Kept with your name in the audit log."), wrong, h("div", { class: "actions" }, button));

  return [heading("Kill switch", "What is stopped gets nothing any more: no request passes, open streams end within a second, and a stopped tool is in no list. The same as `portcullis quarantine`."),
    list.element, panel("Stop somebody or something", form)];
}

/** What is stopped, in words. */
function named(stopped) {
  const [kind, names] = Object.entries(stopped)[0] ?? ["", {}];
  const [, nameKey, placeKey] = KINDS[kind] ?? ["", "name", "server"];
  return h("span", { class: "who" }, h("span", {}, badge(kind, "bad"), " ", short(names[nameKey] ?? "", 60)),
    names[placeKey] && h("span", { class: "dim" }, kind === "tool" ? "at " : "of ", short(names[placeKey], 60)));
}
