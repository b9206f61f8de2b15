// How is it going? Traffic, refusals, time taken and health, from the gateway's own counters.

import { all, get, path } from "../lib/api.js";
import { shares, timeChart } from "../lib/chart.js";
import { count, h, replace, short } from "../lib/dom.js";
import { SPAN_MS, Samples, difference, duration, percentile, rate, sum } from "../lib/numbers.js";
import { badge, heading, live, nothing, panel, problem, span, table } from "../lib/parts.js";
import { OUTCOMES, REASONS, plain } from "../lib/words.js";

const EVERY_MS = 2000;
const MINUTE = 60_000;
const samples = new Samples();

export function overview(context) {
  const up = h("span", { class: "light live" });
  const alerts = h("div", { class: "alerts" });
  const figures = h("div", { class: "figures" });
  const health = h("div", {});
  const tools = h("div", {});
  const denied = h("div", {});
  const charts = {
    requests: timeChart({ title: "Requests", about: "a second, by how they ended", format: rate, stacked: true }),
    latency: timeChart({ title: "Time taken", about: "by whole requests: half, 95 and 99 of 100", format: duration }),
    denials: timeChart({ title: "Denials of the policy", about: "a second, by reason", format: rate, stacked: true }),
    exchanges: timeChart({ title: "Token exchanges", about: "a second, by how they ended", format: rate, stacked: true }),
  };
  const refresh = async () => {
    try {
      const { data } = await get("/overview", { signal: context.signal });
      samples.add(data);
      draw(data);
      replace(alerts, warnings(data));
      replace(up, `Up for ${span(data.uptime_seconds)}, configuration ${data.config_generation}`);
    } catch (error) {
      if (error.name !== "AbortError" && error.status !== 401) replace(alerts, problem(error));
    }
  };

  function draw(data) {
    const minute = (key) => samples.added(key, MINUTE);
    const requests = minute("requests");
    const perSecond = (counts) => (counts ? rate(sum(counts) / spanOf(samples)) : "–");
    replace(figures, [
      figure("Requests", perSecond(requests), `${count(sum(data.requests))} since the start`),
      figure("Refused", perSecond(requests && { refused: requests.refused ?? 0 }), `${count(data.requests.refused ?? 0)} since the start`, (requests?.refused ?? 0) > 0 ? "warn" : ""),
      figure("Failed", perSecond(requests && { failed: requests.failed ?? 0 }), `${count(data.requests.failed ?? 0)} since the start`, (requests?.failed ?? 0) > 0 ? "bad" : ""),
      figure("Half take at most", duration(samples.percentile(0.5, MINUTE)), `99 of 100: ${duration(samples.percentile(0.99, MINUTE))}`),
      figure("The gateway's part", duration(own(0.5)), `99 of 100: ${duration(own(0.99))}`),
      figure("Open streams", count(data.streams_active), `${count(data.sessions.opened ?? 0)} sessions opened`),
    ]);
    const to = samples.list.at(-1).at;
    // Where less is known, the charts show what there is, and a minute at least.
    const from = Math.max(to - SPAN_MS, Math.min(samples.list[0].at, to - MINUTE));
    const show = (chart, series) => chart.update({ series: series.map((one) => ({ ...one, points: one.points.filter(([at]) => at >= from) })), from, to });
    const rates = (key, name) => samples.series(10_000, (a, b, seconds) => (difference(a[key], b[key])[name] ?? 0) / seconds);
    const outcomes = Object.keys(OUTCOMES).filter((name) => name === "ok" || name === "refused" || data.requests[name]);
    show(charts.requests, outcomes.map((name) => ({ name, tone: OUTCOMES[name][1], points: rates("requests", name) })));
    show(charts.latency, [["half", 0.5, "a1"], ["95 %", 0.95, "a2"], ["99 %", 0.99, "a3"]].map(([name, part, tone]) =>
      ({ name, tone, points: samples.series(30_000, (a, b) => percentile(a, b, part)) })));
    const reasons = Object.keys(data.denials).sort((a, b) => data.denials[b] - data.denials[a]).slice(0, 4);
    show(charts.denials, reasons.map((name, nth) => ({ name: plain(name), tone: `c${nth + 1}`, points: rates("denials", name) })));
    const ends = Object.keys(data.exchanges).slice(0, 4);
    show(charts.exchanges, ends.map((name, nth) => ({ name: plain(name), tone: name === "ok" ? "ok" : `c${nth + 2}`, points: rates("exchanges", name) })));
    charts.denials.element.classList.toggle("blank", reasons.length === 0);
    charts.exchanges.element.classList.toggle("blank", ends.length === 0);
    replace(health, instances(data.instances));
    replace(tools, busiest(data.tools));
    replace(denied, refusals(data));
  }

  const begin = async () => {
    try {
      samples.begin((await get("/overview/history", { signal: context.signal })).data.items);
    } catch {
      // Then the charts begin with the page.
    }
    await refresh();
  };
  begin();
  context.every(EVERY_MS, refresh);
  const waiting = live(context, pending, () => all("/servers?limit=200", { signal: context.signal }).catch((error) => {
    if (error.word === "no_registry") return { items: [] };
    throw error;
  }), { every: 10_000 });
  return [
    heading("Overview", "What passes through the gateway at this moment. Figures are of the last minute, charts of the last five at most.", up),
    alerts, waiting.element, figures,
    h("div", { class: "charts" }, Object.values(charts).map((chart) => chart.element)),
    h("div", { class: "columns" },
      panel("Instances", { about: "Every address of every server, as health checks see it." }, health),
      panel("Refused since the start", { about: "Requests that the gateway did not carry out." }, denied)),
    panel("Busiest tools", { about: "Calls since the start, by how they ended." }, tools),
  ];
}

function spanOf(samples) {
  const [first, last] = samples.ends(MINUTE);
  return Math.max(1, (last.at - first.at) / 1000);
}

function own(part) {
  const [first, last] = samples.ends(MINUTE);
  return first ? percentile(first, last, part, ["own", "ownBounds", "ownServed"]) : null;
}

function figure(name, value, about, tone = "") {
  return h("div", { class: `figure ${tone}` }, h("span", {}, name), h("strong", {}, value), h("small", {}, about));
}

function warnings(data) {
  const down = data.instances.filter((one) => !one.healthy);
  return [
    !data.ready && h("p", { class: "alert bad" }, h("strong", {}, "Not ready."), " Keys, instances or the store are missing: load balancers send nothing here."),
    down.length > 0 && h("p", { class: "alert bad" }, h("strong", {}, `${down.length} of ${data.instances.length} instances ${down.length === 1 ? "is" : "are"} unhealthy.`)),
    data.audit_queue_records > 1000 && h("p", { class: "alert warn" }, h("strong", {}, `${count(data.audit_queue_records)} audit records wait to be written.`)),
  ];
}

function pending({ items }) {
  const used = items.filter((one) => one.state !== "retired");
  const toApprove = used.filter((one) => one.state === "registered" || one.change_pending).length;
  const kept = used.reduce((total, one) => total + one.items.quarantined, 0);
  if (toApprove + kept === 0) return null;
  const parts = [toApprove > 0 && `${toApprove} ${toApprove === 1 ? "server" : "servers"}`, kept > 0 && `${kept} quarantined ${kept === 1 ? "item" : "items"}`].filter(Boolean);
  return h("p", { class: "alert warn" }, h("strong", {}, `${parts.join(" and ")} ${toApprove + kept === 1 ? "waits" : "wait"} for approval.`), " ", h("a", { href: "#/approvals" }, "Look at what waits"));
}

function instances(list) {
  return table({
    caption: "Instances and their health", rows: list, key: (one) => `${one.server}/${one.instance}`, empty: "No server is configured.",
    columns: [
      { name: "Server", cell: (one) => h("a", { href: `#${path`/servers/${one.server}`}` }, short(one.server)) },
      { name: "Instance", cell: (one) => h("code", {}, one.instance) },
      { name: "Health", cell: (one) => (one.healthy ? badge("healthy", "ok") : badge("unhealthy", "bad")) },
    ],
  });
}

function busiest(list) {
  return table({
    caption: "Busiest tools", rows: list.slice(0, 10), key: (one) => `${one.server}/${one.tool}`,
    empty: ["No tool was called yet.", "Calls are counted here from the first one on."],
    columns: [
      { name: "Tool", cell: (one) => h("strong", {}, short(one.tool)) },
      { name: "Server", cell: (one) => short(one.server) },
      { name: "Calls", kind: "number", cell: (one) => count(sum(one.calls)) },
      { name: "How they ended", kind: "wide", cell: (one) => h("span", { class: "shared" }, shares(Object.entries(one.calls).map(([name, value]) => [name, value, OUTCOMES[name]?.[1] ?? "off"]), "Calls"),
        h("span", { class: "dim" }, Object.entries(one.calls).map(([name, value]) => `${count(value)} ${plain(name).toLowerCase()}`).join(", "))) },
    ],
  });
}

function refusals(data) {
  const rows = [
    ...Object.entries(data.denials).map(([reason, value]) => ({ reason, value, by: "the policy" })),
    ...Object.entries(data.authentications).filter(([result]) => result !== "ok").map(([reason, value]) => ({ reason, value, by: "authentication" })),
  ].filter((row) => row.value > 0).sort((a, b) => b.value - a.value);
  if (rows.length === 0) return nothing("Nothing was refused.", "Refusals of the policy and tokens that were not believed are counted here.");
  return table({
    caption: "Refusals by reason", rows: rows.slice(0, 8), key: (row) => row.reason,
    columns: [
      { name: "Reason", cell: (row) => h("span", { title: REASONS[row.reason]?.[1] }, REASONS[row.reason]?.[0] ?? plain(row.reason)) },
      { name: "By", cell: (row) => row.by },
      { name: "Times", kind: "number", cell: (row) => count(row.value) },
    ],
  });
}
