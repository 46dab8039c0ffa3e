// Rates of the last minutes, from counters that are read every two seconds, and their charts.

import { h, rate } from "./dom.js";

const INTERVAL = 2000;
const LARGE_INTERVAL = 10000;
/** A page of metrics of many tenants; it is read less often. */
const LARGE = 256 << 10;
const KEPT = 150;
/** Fewest intervals that a chart is wide. */
const LEAST = 30;

/** Counters over time: `read` returns {total: {name: number}, tenants: {name: number}, buckets: [[le, number]]}. */
export class Rates {
  constructor(read) {
    this.read = read;
    this.samples = [];
    this.listeners = new Set();
    this.failure = null;
    this.tick();
  }

  stop() {
    clearTimeout(this.timer);
    this.isStopped = true;
  }

  async tick() {
    let pause = INTERVAL;
    if (!document.hidden) {
      try {
        const sample = await this.read();
        this.samples = [...this.samples, { at: performance.now(), ...sample }].slice(-KEPT - 1);
        if (sample.size > LARGE) pause = LARGE_INTERVAL;
        this.failure = null;
      } catch (error) {
        this.failure = error;
      }
    }
    if (this.isStopped) return;
    for (const listener of this.listeners) listener();
    this.timer = setTimeout(() => this.tick(), pause);
  }

  /** The rate of a counter between each two samples. A counter that falls was reset: the host has restarted. */
  series(name) {
    return this.pairs().map(([old, now]) => perSecond(old.total[name], now.total[name], old, now));
  }

  /** The last rate of a counter; null before the second sample. */
  last(name) {
    return this.series(name).at(-1) ?? null;
  }

  tenant(name) {
    const pair = this.pairs().at(-1);
    return pair ? perSecond(pair[0].tenants[name] ?? 0, pair[1].tenants[name] ?? 0, ...pair) : null;
  }

  /** The bucket of the histogram that has this quantile of what came in the last minute, in seconds. */
  quantile(share) {
    const [old, now] = [this.samples.at(-31) ?? this.samples[0], this.samples.at(-1)];
    if (!now?.buckets?.length) return null;
    const grown = now.buckets.map(([bound, value], at) => [bound, value - (old.buckets[at]?.[1] ?? 0)]);
    const all = grown.at(-1)[1];
    return all > 0 ? grown.find(([, value]) => value >= all * share)[0] : null;
  }

  pairs() {
    return this.samples.slice(1).map((now, at) => [this.samples[at], now]);
  }
}

function perSecond(old, now, { at: from }, { at: to }) {
  return now >= old ? ((now - old) * 1000) / (to - from) : 0;
}

/** Reads what the console needs of a page in the text format of Prometheus. */
export function metrics(text) {
  const total = { requests: 0, relayed: 0, rejected: 0, failed: 0, shed: 0, calls: 0, nanoseconds: 0 };
  const [tenants, buckets] = [{}, []];
  const names = {
    portcullis_requests_total: () => "requests",
    // As in `/v1/stats`: what policies have decided. A request within its dialog has no verdict.
    portcullis_verdicts_total: ({ verdict }) => ({ relay: "relayed", reject: "rejected" })[verdict],
    portcullis_policy_failures_total: () => "failed",
    portcullis_tenant_shed_total: () => "shed",
    portcullis_transactions_shed_total: () => "shed",
    portcullis_policy_calls_total: () => "calls",
  };
  for (const [, name, given, number] of text.matchAll(/^(portcullis_\w+)(?:\{([^\n]*)\})? ([\d.eE+-]+)/gm)) {
    const labels = () => Object.fromEntries([...(given ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, label, value]) => [label, value]));
    const counter = names[name]?.(labels());
    if (counter) total[counter] += Number(number);
    else if (name === "portcullis_tenant_requests_total") tenants[labels().tenant] = Number(number);
    else if (name === "portcullis_policy_duration_seconds_sum") total.nanoseconds = Number(number) * 1e9;
    else if (name === "portcullis_policy_duration_seconds_bucket") buckets.push([Number(labels().le.replace("+Inf", "Infinity")), Number(number)]);
  }
  return { total, tenants, buckets, size: text.length };
}

/** A line without axes, for a tile. */
export function spark(values) {
  const points = line(values, Math.max(...values, 1e-9));
  return h(
    "svg",
    { viewBox: "0 0 100 100", preserveAspectRatio: "none", "aria-hidden": "true" },
    h("polygon", { class: "area", points: points && `${points} 100,100 ${start(values)},100` }),
    h("polyline", { class: "series s0", points }),
  );
}

/** Lines with a scale. `series`: [[title, values]], a value for each `interval` in milliseconds. */
export function chart(title, series, interval = INTERVAL) {
  const top = scale(Math.max(...series.flatMap(([, values]) => values), 0));
  const seconds = (width(series[0][1]) * interval) / 1000;
  const now = series.map(([name, values]) => `${name} ${rate(values.at(-1) ?? 0)}`).join(", ");
  const grid = [0, 50, 100].map((y) => h("line", { class: "grid", x1: 0, x2: 100, y1: y, y2: y, "vector-effect": "non-scaling-stroke" }));
  const lines = series.map(([, values], at) => h("polyline", { class: `series s${at}`, points: line(values, top) }));
  const legend = series.map(([name, values], at) => h("span", {}, key(at), `${name} ${rate(values.at(-1) ?? null)}`));
  return h(
    "div",
    { class: "chart" },
    h("p", { class: "axis" }, h("span", {}, `${rate(top)} per second`)),
    h("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "img", "aria-label": `${title} per second: ${now}` }, grid, lines),
    h("p", { class: "axis" }, h("span", {}, seconds < 120 ? `${Math.round(seconds)} seconds ago` : `${Math.round(seconds / 60)} minutes ago`), h("span", {}, "now")),
    h("p", { class: "legend" }, legend),
  );
}

function key(at) {
  return h("svg", { class: "key", viewBox: "0 0 14 10", "aria-hidden": "true" }, h("line", { class: `s${at}`, x1: 0, x2: 14, y1: 5, y2: 5 }));
}

const width = (values) => Math.max(LEAST, values.length - 1);

const start = (values) => 100 - ((values.length - 1) * 100) / width(values);

function line(values, top) {
  const x = (at) => (start(values) + (at * 100) / width(values)).toFixed(2);
  return values.map((value, at) => `${x(at)},${(98 - (value / top) * 94).toFixed(2)}`).join(" ");
}

/** The next of 1, 2, 5, 10, 20, 50, … */
function scale(most) {
  if (most <= 1) return 1;
  const ten = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 5, 10].map((step) => step * ten).find((step) => step >= most);
}
