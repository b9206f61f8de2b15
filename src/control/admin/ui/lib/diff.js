// What is different? Two texts beside each other, line by line, and in changed lines word by word.

import { add, count, h } from "./dom.js";
import { lines } from "./definition.js";

/** Two values beside each other. */
export function sideBySide(before, after, { names = ["Approved", "Now"], caption = "What has changed" } = {}) {
  const rows = pairs(lines(before), lines(after));
  const body = h("tbody", {});
  let rest = folded(rows);
  const show = () => {
    const part = rest.slice(0, ROWS_AT_ONCE);
    rest = rest.slice(ROWS_AT_ONCE);
    for (const one of part) body.append(one.hidden ? fold(one.hidden) : row(one));
    if (rest.length > 0) {
      const button = h("button", { type: "button", class: "link", onclick: () => { tail.remove(); show(); } }, `Show the other ${count(rest.length)} lines`);
      const tail = h("tr", { class: "fold" }, h("td", { colspan: "4" }, button));
      body.append(tail);
    }
  };
  show();
  return h("div", { class: "diff", role: "region", tabindex: "0", "aria-label": caption }, h("table", {}, h("caption", { class: "unseen" }, caption),
    h("colgroup", {}, h("col", { class: "n" }), h("col"), h("col", { class: "n" }), h("col")),
    h("thead", {}, h("tr", {}, h("th", { colspan: "2", scope: "col" }, names[0]), h("th", { colspan: "2", scope: "col" }, names[1]))), body));
}

function row({ kind, left, right, leftNumber, rightNumber }) {
  const [old, fresh] = kind === "changed" ? inWords(left, right) : [[{ text: left ?? "" }], [{ text: right ?? "" }]];
  const side = (number, parts, mark, has) => [
    h("td", { class: `line ${has ? mark : "none"}` }, number ? String(number) : ""),
    h("td", { class: has ? mark : "none" }, has && mark && h("span", { class: "unseen" }, mark === "old" ? "removed: " : "added: "), has && shown(parts)),
  ];
  return h("tr", { class: kind },
    side(leftNumber, old, kind === "same" ? "" : "old", left !== undefined),
    side(rightNumber, fresh, kind === "same" ? "" : "fresh", right !== undefined));
}

function shown(parts) {
  const element = h("code", {});
  let room = LINE_MAX;
  for (const { text, mark } of parts) {
    const part = text.slice(0, Math.max(0, room));
    room -= text.length;
    if (part) add(element, mark ? h(mark, {}, part) : part);
  }
  if (room < 0) add(element, h("span", { class: "cut" }, `… ${count(-room)} more characters`));
  return element;
}

/** Long stretches that are alike, folded away. */
function folded(rows) {
  const out = [];
  for (let at = 0; at < rows.length;) {
    let end = at;
    while (end < rows.length && rows[end].kind === "same") end += 1;
    const length = end - at;
    const [head, tail] = [at === 0 ? 0 : AROUND, end === rows.length ? 0 : AROUND];
    if (length > head + tail + 3) {
      out.push(...rows.slice(at, at + head), { hidden: rows.slice(at + head, end - tail) }, ...rows.slice(end - tail, end));
    } else {
      out.push(...rows.slice(at, end));
    }
    if (end < rows.length) out.push(rows[end]);
    at = end + 1;
  }
  return out;
}

function fold(hidden) {
  const element = h("tr", { class: "fold" }, h("td", { colspan: "4" },
    h("button", { type: "button", class: "link", onclick: () => element.replaceWith(...hidden.map(row)) }, `${count(hidden.length)} lines are alike`)));
  return element;
}

/** Rows of two columns: removed and added lines that follow each other face each other. */
export function pairs(before, after) {
  const rows = [];
  let [leftNumber, rightNumber, removed, added] = [0, 0, [], []];
  const flush = () => {
    for (let nth = 0; nth < Math.max(removed.length, added.length); nth += 1) {
      const [left, right] = [removed[nth], added[nth]];
      const kind = left === undefined ? "added" : right === undefined ? "removed" : "changed";
      rows.push({ kind, left: left?.text, right: right?.text, leftNumber: left?.number, rightNumber: right?.number });
    }
    [removed, added] = [[], []];
  };
  for (const { kind, text } of script(before, after)) {
    if (kind === "same") {
      flush();
      rows.push({ kind, left: text, right: text, leftNumber: (leftNumber += 1), rightNumber: (rightNumber += 1) });
    } else if (kind === "removed") removed.push({ text, number: (leftNumber += 1) });
    else added.push({ text, number: (rightNumber += 1) });
  }
  flush();
  return rows;
}

/** The parts of two lines, those that differ marked. */
function inWords(left, right) {
  const split = (text) => text.match(/[\p{L}\p{N}_]+|\s+|[^]/gu) ?? [];
  const [old, fresh] = [split(left), split(right)];
  if (old.length + fresh.length > WORDS_MAX) return [[{ text: left, mark: "del" }], [{ text: right, mark: "ins" }]];
  const sides = [[], []];
  const push = (side, text, mark) => {
    const last = sides[side].at(-1);
    if (last && last.mark === mark) last.text += text;
    else sides[side].push({ text, mark });
  };
  const steps = script(old, fresh);
  const words = (list) => list.filter((part) => /[\p{L}\p{N}]/u.test(part)).length;
  const alike = words(steps.filter((step) => step.kind === "same").map((step) => step.text));
  // Two lines that share few words are two lines: coloured confetti helps nobody.
  if (alike * 3 < Math.min(words(old), words(fresh))) return [[{ text: left, mark: "del" }], [{ text: right, mark: "ins" }]];
  for (const { kind, text } of steps) {
    if (kind !== "added") push(0, text, kind === "removed" ? "del" : undefined);
    if (kind !== "removed") push(1, text, kind === "added" ? "ins" : undefined);
  }
  return sides;
}

/** The shortest way from one list to the other (Myers, "An O(ND) Difference Algorithm", 1986); beyond a bound, everything is
 *  removed and added. */
export function script(before, after) {
  let head = 0;
  while (head < before.length && head < after.length && before[head] === after[head]) head += 1;
  let tail = 0;
  while (tail < before.length - head && tail < after.length - head && before.at(-1 - tail) === after.at(-1 - tail)) tail += 1;
  const same = (list) => list.map((text) => ({ kind: "same", text }));
  const [a, b] = [before.slice(head, before.length - tail), after.slice(head, after.length - tail)];
  return [...same(before.slice(0, head)), ...between(a, b), ...same(before.slice(before.length - tail))];
}

function between(a, b) {
  const replaced = () => [...a.map((text) => ({ kind: "removed", text })), ...b.map((text) => ({ kind: "added", text }))];
  if (a.length === 0 || b.length === 0) return replaced();
  const furthest = new Map([[1, 0]]);
  const trace = [];
  for (let d = 0; d <= Math.min(a.length + b.length, STEPS_MAX); d += 1) {
    trace.push(new Map(furthest));
    for (let k = -d; k <= d; k += 2) {
      const down = k === -d || (k !== d && furthest.get(k - 1) < furthest.get(k + 1));
      let x = down ? furthest.get(k + 1) : furthest.get(k - 1) + 1;
      while (x < a.length && x - k < b.length && a[x] === b[x - k]) x += 1;
      furthest.set(k, x);
      if (x >= a.length && x - k >= b.length) return backwards(a, b, trace);
    }
  }
  return replaced();
}

function backwards(a, b, trace) {
  const steps = [];
  let [x, y] = [a.length, b.length];
  for (let d = trace.length - 1; d >= 0; d -= 1) {
    const furthest = trace[d];
    const k = x - y;
    const down = k === -d || (k !== d && furthest.get(k - 1) < furthest.get(k + 1));
    const from = furthest.get(down ? k + 1 : k - 1) ?? 0;
    const fromY = from - (down ? k + 1 : k - 1);
    while (x > from && y > fromY && x > 0 && y > 0 && a[x - 1] === b[y - 1]) {
      steps.push({ kind: "same", text: a[(x -= 1)] });
      y -= 1;
    }
    if (d > 0) steps.push(down ? { kind: "added", text: b[(y -= 1)] } : { kind: "removed", text: a[(x -= 1)] });
  }
  return steps.reverse();
}

const AROUND = 3;
const ROWS_AT_ONCE = 400;
const LINE_MAX = 6000;
const WORDS_MAX = 4000;
const STEPS_MAX = 800;
