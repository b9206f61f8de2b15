// Are the parts of the pages that reckon right? Differences, characters that nobody sees, percentiles: without a browser.

import assert from "node:assert/strict";
import test from "node:test";

const lib = (name) => import(new URL(`../../src/control/admin/ui/lib/${name}.js`, import.meta.url).href);
const [{ pairs, script }, { said }, { lines }, { difference, percentile }, { path, query }] = await Promise.all(["diff", "dom", "definition", "numbers", "api"].map(lib));

/** Numbers that are the same in every run. */
function dice(seed) {
  let state = seed;
  return (sides) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * sides);
  };
}

test("a difference leads from one list to the other, and back", () => {
  const roll = dice(7);
  for (let round = 0; round < 500; round += 1) {
    const list = () => Array.from({ length: roll(30) }, () => "abcd"[roll(4)]);
    const [before, after] = [list(), list()];
    const steps = script(before, after);
    assert.deepEqual(steps.filter((one) => one.kind !== "added").map((one) => one.text), before);
    assert.deepEqual(steps.filter((one) => one.kind !== "removed").map((one) => one.text), after);
  }
});

test("what is alike is not told as different", () => {
  const steps = script([..."abcabba"], [..."cbabac"]);
  assert.equal(steps.filter((one) => one.kind !== "same").length, 5, "the shortest way of Myers' own example");
});

test("what is too different to compare is removed and added, in bounded time", () => {
  const [before, after] = [0, 1].map((which) => Array.from({ length: 20_000 }, (_, nth) => `${which} ${nth}`));
  const began = Date.now();
  assert.equal(script(before, after).length, 40_000);
  assert.ok(Date.now() - began < 5000, `${Date.now() - began} ms`);
});

test("rows face each other with the numbers of their lines", () => {
  const rows = pairs(["a", "b", "c"], ["a", "x", "y", "c"]);
  assert.deepEqual(rows.map((row) => [row.kind, row.leftNumber, row.rightNumber]), [["same", 1, 1], ["changed", 2, 2], ["added", undefined, 3], ["same", 3, 4]]);
});

test("no character is left that nobody sees", () => {
  const unseen = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Cn}\p{Zl}\p{Zp}\p{DI}]|[^\S ]/u;
  for (let code = 0; code <= 0x10ffff; code += code < 0x3000 ? 1 : 7) {
    const shown = said(`a${String.fromCodePoint(code)}b`);
    assert.ok(!unseen.test(shown), code.toString(16));
    assert.ok(shown.startsWith("a") && shown.endsWith("b"), "and nothing else is touched");
  }
  assert.equal(said("\u202Ee"), "⟨U+202E⟩e");
  assert.equal(said("\ud800"), "⟨U+D800⟩");
  for (const plain of ["mail_send", "größer", "日本語", "नमस्ते", "a b"]) assert.equal(said(plain), plain);
});

test("a definition in lines is the definition", () => {
  const value = { description: "one\ntwo\\n three\n", "a\nb": ["\\", "\"\n\"", 1e21, null], deep: { "__proto__x": "\u202E" } };
  const joined = lines(value).map((line) => line.trimStart()).join("");
  assert.deepEqual(JSON.parse(joined), JSON.parse(JSON.stringify(value)));
  assert.ok(lines(value).length > 10);
});

test("percentiles are of what happened in between", () => {
  const bounds = [0.1, 0.2, 0.4];
  const [before, after] = [{ latency: [10, 10, 10], bounds, served: 10 }, { latency: [10, 20, 30], bounds, served: 30 }];
  assert.ok(Math.abs(percentile(before, after, 0.5) - 0.2) < 1e-9);
  assert.ok(Math.abs(percentile(before, after, 0.75) - 0.3) < 1e-9);
  assert.equal(percentile(after, after, 0.5), null, "nothing happened");
  assert.equal(percentile(before, { latency: [10, 10, 10], bounds, served: 12 }, 0.5), 0.4, "all took longer than the last bound");
  assert.deepEqual(difference({ ok: 3 }, { ok: 5, refused: 1 }), { ok: 2, refused: 1 });
});

test("names are data in addresses", () => {
  assert.equal(path`/servers/${"../x?y#z"}/items`, "/servers/..%2Fx%3Fy%23z/items");
  assert.equal(query("/audit", { tool: "a&b=c", limit: 5, none: "" }), "/audit?tool=a%26b%3Dc&limit=5");
});
