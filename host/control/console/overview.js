// What a night shift looks at first: alerts and rates.

import { chart, spark } from "./chart.js";
import { button, count, duration, facts, h, rate, table, time } from "./dom.js";

const STATS = "/v1/stats";
/** Seconds of the past in the chart. */
const PAST = 300;

export const overview = { id: "overview", title: "Overview", isShown: () => true, open };

/** Reads again every few seconds, and with each new sample of the rates. Returns how to end this. */
export function follow(page, read, show, pause = 4000) {
  let [timer, state, turn, isEnded] = [null, null, 0, false];
  const paint = () => state && show(state);
  const tick = async () => {
    turn += 1;
    const [own, isShown] = [turn, !document.hidden || !state];
    let found = state;
    if (isShown) {
      try {
        found = await read();
      } catch (error) {
        found = state ?? { error };
      }
    }
    // `again` has begun a later turn, which reads what is newer, and goes on.
    if (isEnded || own !== turn) return;
    state = found;
    if (isShown) paint();
    timer = setTimeout(tick, pause);
  };
  page.rates.listeners.add(paint);
  tick();
  return {
    end: () => {
      isEnded = true;
      clearTimeout(timer);
      page.rates.listeners.delete(paint);
    },
    again: async () => {
      clearTimeout(timer);
      await tick();
    },
    paint,
  };
}

function open(page) {
  const { session, rates } = page;
  const optional = (path) => (session.has("GET", path) ? session.get(path) : null);
  const own = session.isOperator
    ? async () => ({ status: await session.call("portcullis.status"), list: await session.get("/v1/tenants") })
    : async () => ({ seat: await session.get(`/v1/policies/${encodeURIComponent(session.tenant)}`), self: await optional("/v1/tenants/self") });
  const read = async () => ({ ...(await own()), alerts: await optional("/v1/alerts"), past: await past(session) });
  const acknowledge = async (id) => {
    await page.run(async () => {
      await session.change("POST", `/v1/alerts/${encodeURIComponent(id)}/acknowledge`);
      return "Acknowledged";
    });
    await followed.again();
  };
  const show = (state) => page.show(title("Overview"), state.error ? failed(state.error) : parts(state, rates, session, acknowledge));
  const followed = follow(page, read, show);
  return followed.end;
}

/** The last minutes as the host remembers them, so that the chart has a past when the page is opened; null if there is none. */
async function past(session) {
  if (!session.has("GET", STATS)) return null;
  const { seconds } = await session.get(`${STATS}?seconds=${PAST}`);
  const of = (name) => seconds.map((second) => second[name]);
  return seconds.length > 1 ? [["requests", of("requests")], ["relayed", of("relay")], ["rejected", of("reject")], ["failed", of("failed")]] : null;
}

export const title = (text, ...actions) => h("div", { class: "title" }, h("h1", {}, text), h("p", { class: "actions" }, actions));

export const failed = (error) => h("p", { class: "error", role: "alert" }, error.message);

function parts({ status, list, seat, self, alerts: known, past }, rates, session, acknowledge) {
  const lasting = known?.map((alert) => lastingAlert(alert, acknowledge));
  const of = (name) => rates.series(name);
  const lines = [["requests", of("requests")], ["relayed", of("relayed")], ["rejected", of("rejected")], ["failed", of("failed")]];
  const drawn = past ? chart("Requests", past, 1000) : chart("Requests", lines);
  const traffic = h("section", { class: "panel" }, h("h2", {}, "Requests per second"), drawn);
  if (!session.isOperator) {
    const own = lasting ?? (seat.alert ? [seat.alert] : []);
    return [alerts(own, seat.error ? [seat.error] : []), tiles(rates, seat), traffic, h("div", { class: "columns" }, ownSeat(seat), self && allowed(self))];
  }
  return [
    alerts(...found(status, lasting ?? status.alerts)),
    tiles(rates, null, status),
    traffic,
    h("div", { class: "columns" }, busiest(list, rates), tablesHealth(status)),
    troubles(status),
  ];
}

/** What is wrong now, and what somebody should look at. */
function found(status, lasting) {
  const parts = [["address table", status.addresses], ["trusted peers", status.trusted], ["rules", status.rules]];
  const bad = [
    ...status.missing.map((what) => `Not ready: ${what}`),
    ...lasting,
    ...status.next_hops_down.map((hop) => `Next hop ${hop.next_hop} is down since ${time(hop.down_since)}: ${hop.error} (${count(hop.undelivered)} undelivered)`),
    ...parts.filter(([, part]) => part.error).map(([name, part]) => `The ${name} could not be loaded: ${part.error}`),
    ...(status.addresses.database_down_since ? [`The database is down since ${time(status.addresses.database_down_since)}`] : []),
  ];
  const rows = (number) => (number === 1 ? "1 entry is" : `${count(number)} entries are`);
  const worth = parts
    .filter(([, part]) => part.skipped > 0)
    .map(([name, part]) => h("span", {}, `${rows(part.skipped)} skipped in the ${name}: `, h("a", { href: "#/tables" }, "show")));
  return [bad, worth];
}

/** An alert that has an id, until its condition ends. */
function lastingAlert({ id, seat, since, text, acknowledged_by: by, acknowledged_at: at }, acknowledge) {
  // What can be done about it is in the view of the seat.
  const named = seat && h("a", { href: `#/policies/${encodeURIComponent(seat)}` }, seat);
  const where = named || since ? h("strong", {}, named, named && since && ", ", since && `since ${time(since)}`, ": ") : null;
  const seen = by ? h("span", { class: "muted" }, ` Seen by ${by}, ${time(at)}.`) : button("Acknowledge", () => acknowledge(id), { "aria-label": `Acknowledge: ${text}` });
  return h("span", {}, where, text, " ", seen);
}

function alerts(bad, worth) {
  if (bad.length + worth.length === 0) return h("ul", { class: "alerts", "aria-label": "Alerts" }, h("li", { class: "fine" }, "No alerts."));
  const line = (text, kind) => h("li", { class: kind }, text);
  return h("ul", { class: "alerts", "aria-label": "Alerts" }, bad.map((text) => line(text, "bad")), worth.map((text) => line(text, null)));
}

function tiles(rates, seat, status) {
  const tile = (name, value, series, more) => h("div", { class: "tile" }, h("dt", {}, name), h("dd", {}, value), more ? h("dd", { class: "more" }, more) : spark(series));
  const shown = ["requests", "relayed", "rejected", "failed", "shed"].slice(0, seat ? 4 : 5);
  const all = shown.map((name) => tile(`${name} / s`, rate(rates.last(name)), rates.series(name)));
  const [calls, spent] = [rates.last("calls"), rates.last("nanoseconds")];
  const p99 = rates.quantile(0.99);
  const within = p99 === null ? "no calls in the last minute" : `99 % within ${p99 === Infinity ? "more than 10 ms" : duration(p99 * 1e9)}`;
  all.push(tile("policy call, mean", duration(seat ? seat.mean_ns : calls > 0 ? spent / calls : null), [], seat ? "since its activation" : within));
  if (status?.transactions) {
    all.push(tile("transactions", count(status.transactions.active), [], `${count(status.transactions.lingering)} lingering`));
  }
  return h("dl", { class: "tiles" }, all);
}

function busiest(list, rates) {
  const sorted = list.map((tenant) => ({ ...tenant, rate: rates.tenant(tenant.name) })).sort((a, b) => b.rate - a.rate || b.requests - a.requests);
  const columns = [
    { title: "tenant", cell: tenantLink },
    { title: "requests / s", kind: "number", cell: (row) => rate(row.rate) },
    { title: "failed", kind: "number", cell: (row) => count(row.failed) },
    { title: "shed", kind: "number", cell: (row) => count(row.shed) },
  ];
  return h("section", { class: "panel" }, h("h2", {}, "Busiest tenants"), table("By requests per second", columns, sorted.slice(0, 8), { key: (row) => row.name }));
}

export const tenantLink = ({ name }) => h("a", { href: `#/tenants/${encodeURIComponent(name)}` }, name);

function tablesHealth({ addresses, trusted, rules }) {
  const rows = [
    { name: "address", entries: addresses.rows, part: addresses },
    { name: "trusted", entries: `${count(trusted.rows)} ${trusted.rows === 1 ? "peer" : "peers"}`, part: trusted },
    { name: "rules", entries: `${count(rules.files)} ${rules.files === 1 ? "file" : "files"}`, part: rules },
  ];
  const columns = [
    { title: "table", cell: (row) => h("a", { href: "#/tables" }, row.name) },
    { title: "contents", cell: (row) => row.entries },
    { title: "skipped", kind: "number", cell: (row) => (row.part.skipped ? h("strong", { class: "warn" }, count(row.part.skipped)) : "0") },
    { title: "loaded", kind: "short", cell: (row) => time(row.part.loaded_at) },
  ];
  return h("section", { class: "panel" }, h("h2", {}, "Tables"), table("What is loaded", columns, rows));
}

function troubles({ troubles: all, policy_failures: failures }) {
  const rows = [
    ...Object.entries(failures).map(([name, number]) => ({ name: `policy failure: ${name}`, count: number, last: null })),
    ...Object.entries(all).map(([name, { count: number, last }]) => ({ name, count: number, last })),
  ].filter((row) => row.count > 0);
  if (rows.length === 0) return null;
  const columns = [
    { title: "what", cell: (row) => h("code", {}, row.name) },
    { title: "count", kind: "number", cell: (row) => count(row.count) },
    { title: "last", kind: "wide", cell: (row) => lastOf(row.last) },
  ];
  return h("section", { class: "panel" }, h("h2", {}, "Troubles"), table("Counted since the start", columns, rows, { key: (row) => row.name }));
}

function lastOf(last) {
  if (last === null || last === undefined) return "–";
  return typeof last === "object" ? Object.values(last).filter((part) => part !== null).join(", ") : String(last);
}

function ownSeat(seat) {
  const pairs = [
    ["active", seat.generation ? `generation ${seat.generation}, ${seat.name}` : "none: requests get the default verdict"],
    ["active since", seat.loaded_at && time(seat.loaded_at)],
    ["mode", seat.mode],
    ["candidate", seat.candidate],
    ["previous", seat.previous && `generation ${seat.previous}`],
    ["failed calls", count(seat.failed_calls)],
    ["last failure", failureOf(seat)],
  ];
  return h("section", { class: "panel" }, h("h2", {}, "Policy"), facts(pairs), h("p", {}, h("a", { href: "#/policies" }, "Generations and trials")));
}

/** What a tenant may do. */
function allowed({ limits, shed, crossings, refused_relays: refused }) {
  const list = (values) => (values?.length ? values.join(", ") : "none");
  const most = (number, unit) => (number === null || number === undefined ? "no limit" : `${count(number)} ${unit}`);
  const pairs = [
    ["domains of request URIs", list(limits.uri_domains)],
    ["groups of its sources", list(limits.source_groups)],
    ["groups to query", list(limits.groups)],
    ["groups to change", `${list(limits.edit_groups)}${limits.edit_groups?.length ? `, at most ${count(limits.edit_rows)} rows of at least ${limits.edit_prefix_v4} bits (IPv6: ${limits.edit_prefix_v6})` : ""}`],
    ["settings", limits.edit_settings ? "may be changed" : "are changed by the operator"],
    ["next hops", list(limits.next_hops)],
    ["header fields", list(limits.headers)],
    ["requests", limits.requests_per_second === null ? "no limit" : `${most(limits.requests_per_second, "per second")}, ${most(limits.requests_burst, "at once")}`],
    ["requests above a limit, shed", count(shed)],
    ["share of processor time", limits.cpu_share],
    ["log lines", most(limits.log_rate, "per second")],
    ["queries outside of its groups", count(crossings)],
    ["requests to other next hops, refused", count(refused)],
  ];
  return h("section", { class: "panel" }, h("h2", {}, "Allowed"), facts(pairs));
}

export function failureOf({ last_failure: last }) {
  return last && `${time(last.at)}, generation ${last.generation}, ${last.kind}: ${last.text} (Call-ID ${last.call_id})`;
}
