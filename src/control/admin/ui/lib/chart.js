// How is it going? Lines and areas over time, drawn as SVG: no library, no canvas, and every number is there as text, too.

import { h, s } from "./dom.js";

/** A chart over time. `update` is given series `{ name, tone, points: [[ms, value or null], …] }` and what the axis means. */
export function timeChart({ title, about, format, stacked = false }) {
  const legend = h("ul", { class: "legend" });
  const plot = s("svg", { viewBox: "0 0 1000 100", preserveAspectRatio: "none", role: "img", "aria-label": title });
  const marks = h("div", { class: "axis", "aria-hidden": "true" });
  const span = h("div", { class: "span", "aria-hidden": "true" });
  const tip = h("div", { class: "tip", hidden: true });
  const cursor = h("div", { class: "cursor", hidden: true });
  const area = h("div", { class: "plot" }, plot, marks, cursor, tip);
  const element = h("figure", { class: "chart" }, h("figcaption", {}, h("strong", {}, title), about && h("span", { class: "dim" }, about)), legend, area, span);
  let current = { series: [], from: 0, to: 1 };

  area.addEventListener("pointermove", (event) => {
    const { left, width } = area.getBoundingClientRect();
    const at = current.from + ((event.clientX - left) / width) * (current.to - current.from);
    const values = current.series.map((one) => ({ ...one, point: nearest(one.points, at) }));
    const moment = values.find((one) => one.point)?.point[0];
    if (moment === undefined) return;
    const x = ((moment - current.from) / (current.to - current.from)) * 100;
    cursor.hidden = tip.hidden = false;
    cursor.style.left = `${x}%`;
    tip.style.left = `${Math.min(x, 70)}%`;
    tip.replaceChildren(h("div", { class: "dim" }, new Date(moment).toLocaleTimeString("en-GB")),
      ...values.map((one) => h("div", {}, h("i", { class: `swatch ${one.tone}` }), one.name, h("b", {}, shown(one.point?.[1])))));
  });
  area.addEventListener("pointerleave", () => { cursor.hidden = tip.hidden = true; });

  const shown = (value) => (value === null || value === undefined ? "–" : format(value));

  function update({ series, from, to }) {
    current = { series, from, to };
    const drawn = stacked ? stack(series) : series.map((one) => ({ ...one, top: one.points }));
    const most = nice(Math.max(...drawn.flatMap((one) => one.top.map(([, value]) => value ?? 0)), 0));
    const x = (at) => ((at - from) / (to - from)) * 1000;
    const y = (value) => 100 - (value / most) * 94;
    plot.replaceChildren(...[0, 0.5, 1].map((part) => s("line", { class: "grid", x1: 0, x2: 1000, y1: y(part * most), y2: y(part * most) })),
      ...drawn.toReversed().flatMap((one) => [
        stacked && s("path", { class: `area ${one.tone}`, d: areaPath(one.top, one.bottom, x, y) }),
        s("path", { class: `stroke ${one.tone}`, d: linePath(one.top, x, y) }),
      ]).filter(Boolean));
    marks.replaceChildren(...[0.5, 1].map((part) => {
      const mark = h("span", {}, format(part * most));
      mark.style.top = `${y(part * most)}%`;
      return mark;
    }));
    span.replaceChildren(h("span", {}, to - from < 120_000 ? `${Math.round((to - from) / 1000)} s ago` : `${Math.round((to - from) / 60_000)} min ago`), h("span", {}, "now"));
    legend.replaceChildren(...series.map((one) => h("li", {}, h("i", { class: `swatch ${one.tone}` }), one.name, h("b", {}, shown(one.points.at(-1)?.[1])))));
    plot.setAttribute("aria-label", `${title}. ${series.map((one) => `${one.name} ${shown(one.points.at(-1)?.[1])}`).join(", ")}`);
    element.classList.toggle("blank", series.every((one) => one.points.length < 2));
  }
  return { element, update };
}

/** A bar that says how much of what there is. */
export function shares(parts, label) {
  const total = parts.reduce((sum, [, value]) => sum + value, 0);
  const bar = h("span", { class: "shares", role: "img", "aria-label": `${label}: ${parts.filter(([, value]) => value > 0).map(([name, value]) => `${value} ${name}`).join(", ") || "none"}` });
  for (const [, value, tone] of parts) {
    if (value === 0) continue;
    const part = h("i", { class: tone });
    part.style.flexGrow = String(value / total);
    bar.append(part);
  }
  return bar;
}

function stack(series) {
  let below = null;
  return series.map((one) => {
    const bottom = below ?? one.points.map(([at]) => [at, 0]);
    const top = one.points.map(([at, value], nth) => [at, (value ?? 0) + (bottom[nth]?.[1] ?? 0)]);
    below = top;
    return { ...one, top, bottom };
  });
}

function linePath(points, x, y) {
  let path = "";
  let isDown = false;
  for (const [at, value] of points) {
    if (value === null) {
      isDown = false;
      continue;
    }
    path += `${isDown ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(2)}`;
    isDown = true;
  }
  return path;
}

function areaPath(top, bottom, x, y) {
  if (top.length < 2) return "";
  const back = bottom.toReversed().map(([at, value]) => `L${x(at).toFixed(1)} ${y(value).toFixed(2)}`).join("");
  return `${linePath(top, x, y)}${back}Z`;
}

function nearest(points, at) {
  let best = null;
  for (const point of points) {
    if (best === null || Math.abs(point[0] - at) < Math.abs(best[0] - at)) best = point;
  }
  return best;
}

/** The next number that people like: 1, 2, 5, 10, … */
function nice(value) {
  if (!(value > 0)) return 1;
  const size = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * size).find((step) => step >= value) ?? 10 * size;
}
