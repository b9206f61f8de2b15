// What is configured, would this file do, and read it again.

import { get, post } from "../lib/api.js";
import { json } from "../lib/definition.js";
import { h, replace } from "../lib/dom.js";
import { announce, ask, badge, field, heading, live, panel, problem, problems } from "../lib/parts.js";

export function config(context) {
  let tag = null;
  const now = live(context, draw, async () => {
    const found = await get("/config", { signal: context.signal });
    tag = found.tag;
    return found.data;
  }, { every: 10_000 });
  const text = h("textarea", { id: "config-yaml", rows: 12, class: "code", spellcheck: "false", required: true, placeholder: "listen:\n  - address: 127.0.0.1:8080\n…" });
  const checked = h("div", { "aria-live": "polite" });
  const check = async (event) => {
    event.preventDefault();
    try {
      const { data } = await post("/config/check", { yaml: text.value }, { signal: context.signal });
      replace(checked, data.ok ? h("p", {}, badge("no problem", "ok"), " The gateway would take it. Files and secrets that it names were not looked at.") : [h("p", {}, badge(`${data.problems.length} ${data.problems.length === 1 ? "problem" : "problems"}`, "bad")), problems(data.problems)]);
    } catch (error) {
      if (error.name !== "AbortError") replace(checked, problem(error));
    }
  };

  function draw({ generation, document }) {
    return panel("In force", { about: `Generation ${generation}. Comments are left out; secrets are named, never shown.` }, json(document, "The configuration in force"));
  }

  const reload = h("button", { type: "button", id: "reload", onclick: () => ask({
    title: "Read the configuration again", confirm: "Read it again", reason: false,
    about: "The file is read and checked as a whole. If anything in it is wrong, what is in force stays, and you are told what is wrong. Requests under way are not disturbed.",
    act: async () => {
      const { data } = await post("/config/reload", {}, { tag });
      announce(`Configuration ${data.generation} is in force`);
      now.refresh();
    },
  }) }, "Read it again");
  return [heading("Configuration", "What the gateway was told. The file is the truth: it is changed there, checked here or with portcullis check, and read again.", reload), now.element,
    panel("Check a file", { about: "Paste a configuration: every problem is told at once. Nothing is put in force." }, h("form", { onsubmit: check }, field("YAML", text), h("div", { class: "actions" }, h("button", { class: "primary" }, "Check"))), checked)];
}
