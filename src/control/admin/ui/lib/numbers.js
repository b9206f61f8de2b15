// What do the counters say of a span of time? Samples of `/overview`, and the differences between them.
//
// The gateway counts from its start, and has noted the last minutes; the page goes on from there.

/** How far back the charts go. */
export const SPAN_MS = 5 * 60_000;

export class Samples {
  constructor() {
    this.list = [];
  }

  /** Begins with what the gateway has noted. */
  begin(noted) {
    this.list = [];
    for (const one of noted) this.add(one);
  }

  /** Takes an answer of `/overview`. Counters that went back are those of another process: what was before is forgotten. */
  add(overview) {
    const at = Date.parse(overview.at);
    const last = this.list.at(-1);
    if (last && (overview.uptime_seconds < last.uptime || at <= last.at)) this.list = [];
    this.list.push({
      at, uptime: overview.uptime_seconds, requests: overview.requests, denials: overview.denials, exchanges: overview.exchanges,
      latency: overview.latency.buckets.map((one) => one.count), bounds: overview.latency.buckets.map((one) => one.le), served: overview.latency.count,
      own: overview.gateway_latency.buckets.map((one) => one.count), ownBounds: overview.gateway_latency.buckets.map((one) => one.le), ownServed: overview.gateway_latency.count,
    });
    this.list = this.list.filter((one) => one.at > at - SPAN_MS - 60_000);
  }

  /** For each sample, what `of` makes of it and of the one that came `window` milliseconds before. */
  series(window, of) {
    const points = [];
    for (let at = 1; at < this.list.length; at += 1) {
      const now = this.list[at];
      let from = at - 1;
      while (from > 0 && this.list[from].at > now.at - window) from -= 1;
      points.push([now.at, of(this.list[from], now, (now.at - this.list[from].at) / 1000)]);
    }
    return points;
  }

  /** What was added in the last `window` milliseconds, by key; none before there are two samples. */
  added(key, window) {
    const [first, last] = this.ends(window);
    return first ? difference(first[key], last[key]) : null;
  }

  /** A percentile of the last `window` milliseconds, in seconds. */
  percentile(part, window) {
    const [first, last] = this.ends(window);
    return first ? percentile(first, last, part) : null;
  }

  ends(window) {
    const last = this.list.at(-1);
    if (this.list.length < 2) return [null, last];
    return [this.list.find((one) => one.at >= last.at - window && one !== last) ?? this.list.at(-2), last];
  }
}

/** How much each counter has grown. */
export function difference(before, after) {
  return Object.fromEntries(Object.entries(after).map(([name, value]) => [name, Math.max(0, value - (before[name] ?? 0))]));
}

/** The sum of all values. */
export function sum(counts) {
  return Object.values(counts ?? {}).reduce((total, value) => total + value, 0);
}

/** How long the fastest `part` of what ended between two samples took, in seconds; within a bucket as if evenly spread. */
export function percentile(before, after, part, [counts, bounds, served] = ["latency", "bounds", "served"]) {
  const total = after[served] - (before[served] ?? 0);
  if (total <= 0) return null;
  const wanted = total * part;
  let [below, lower] = [0, 0];
  for (let nth = 0; nth < after[bounds].length; nth += 1) {
    const upTo = after[counts][nth] - (before[counts]?.[nth] ?? 0);
    if (upTo >= wanted) {
      const within = upTo - below;
      return lower + (within > 0 ? (wanted - below) / within : 1) * (after[bounds][nth] - lower);
    }
    [below, lower] = [upTo, after[bounds][nth]];
  }
  return lower;
}

/** Seconds, as people say them. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${(seconds * 1000).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
  return `${seconds.toFixed(seconds < 10 ? 2 : 0)} s`;
}

/** So many a second. */
export function rate(value) {
  if (value === null || value === undefined) return "–";
  if (value < 0.005) return "0/s";
  return `${value >= 100 ? Math.round(value) : value >= 10 ? value.toFixed(1) : value.toFixed(2)}/s`;
}
