// The hosts on the same database: their stages, what differs among them, and the way out for one of them.

import { ask, badge, button, count, facts, h, table, time } from "./dom.js";
import { failed, follow, title } from "./overview.js";
import { ROLLOUTS, rollouts } from "./rollouts.js";

const FLEET = "/v1/fleet";
const DRAIN = "/v1/fleet/{host}/drain";
const FORGET = "/v1/fleet/{host}";

/** Milliseconds after which a host counts as lagging, and by which its clock may differ. */
const LAGS = 10000;
const CLOCK = 5000;

const STAGES = { serving: "good", starting: "warn", draining: "warn", ended: "muted", gone: "bad", unreadable: "bad" };

export const fleet = { id: "fleet", title: "Fleet", isShown: (session) => session.isOperator && session.has("GET", FLEET), open };

function open(page) {
  const { session } = page;
  const read = async () => {
    const status = await session.get(FLEET);
    // Roll-outs need hosts that announce themselves.
    const isRead = status.announced && session.has("GET", ROLLOUTS);
    const steps = isRead ? await session.get(ROLLOUTS).catch((error) => ({ error })) : null;
    return { ...status, steps };
  };
  let chosen = null;
  const choose = (row) => {
    chosen = chosen === row.host ? null : row.host;
    followed.again();
  };
  const act = async (work, done) => {
    await page.run(async () => {
      await work();
      return done;
    });
    await followed.again();
  };
  const path = (form, row) => form.replace("{host}", encodeURIComponent(row.host));
  const drain = async (row) => {
    const text = "It refuses new calls, finishes those in set-up, and ends. Its service manager may start it again.";
    if (!(await ask(`Drain ${row.host}?`, text, "Drain"))) return;
    await act(() => session.change("POST", path(DRAIN, row)), `${row.host} is asked to drain`);
  };
  const forget = (row) => act(() => session.change("DELETE", path(FORGET, row)), `${row.host} is forgotten`);
  const actions = (row) =>
    h(
      "div",
      { class: "actions" },
      button(chosen === row.host ? "Less" : "More", () => choose(row), { "aria-label": `More of ${row.host}`, "aria-expanded": String(chosen === row.host) }),
      ["serving", "starting"].includes(row.stage) && !row.wish && session.has("POST", DRAIN) && button("Drain", () => drain(row), { "aria-label": `Drain ${row.host}`, class: "danger" }),
      ["gone", "ended"].includes(row.stage) && session.has("DELETE", FORGET) && button("Forget", () => forget(row), { "aria-label": `Forget ${row.host}` }),
    );
  const columns = [
    { title: "host", kind: "short", cell: (row) => [row.host, h("span", { class: "under" }, row.address)] },
    { title: "stage", kind: "short", cell: stageOf },
    { title: "requests/s", kind: "number", cell: (row) => count(row.requests_per_second) },
    { title: "calls", kind: "number", cell: (row) => count(row.calls) },
    { title: "busy", kind: "number", cell: (row) => `${row.busy_percent} %` },
    { title: "lag", kind: "number", cell: lagOf },
    { title: "rows", kind: "number", cell: (row) => (row.addresses ? count(row.addresses.rows) : "–") },
    { title: "alerts", cell: alertsOf },
    { title: "", kind: "short", cell: actions },
  ];
  const show = (status) => {
    if (status.error && !status.hosts) return page.show(title("Fleet"), failed(status.error));
    const { hosts, host, announced, error, differing, steps } = status;
    const nothing = announced ? "No host has announced itself yet." : "No host announces itself: announce in [fleet].";
    const caption = `${count(hosts.length)} ${hosts.length === 1 ? "host" : "hosts"}, as ${host} sees them`;
    const options = { key: (row) => row.host, nothing, chosen: (row) => row.host === chosen, detail };
    page.show(
      title("Fleet"),
      error && h("p", { class: "bad" }, `${host} does not announce itself: ${error}`),
      h("section", { class: "panel", "data-key": "hosts" }, h("h2", {}, "Hosts"), table(caption, columns, hosts, options)),
      steps && rollouts(session, steps, act),
      generations(hosts, differing),
    );
  };
  const followed = follow(page, read, show);
  return followed.end;
}

function stageOf({ stage, wish, silent_ms: silent, twin }) {
  const more = [
    stage === "gone" && `silent for ${count(Math.floor(silent / 1000))} s`,
    stage === "serving" && wish && `asked to ${wish.wish} by ${wish.by}`,
    twin && `its name is taken twice, also at ${twin.address}`,
  ].filter(Boolean);
  return [badge(stage, STAGES[stage] ?? "muted"), more.length > 0 && h("span", { class: "under" }, more.join("; "))];
}

function lagOf({ lag_ms: lag, stage }) {
  if (lag === null || stage === "gone" || stage === "ended") return "–";
  const text = lag < LAGS ? `${count(lag)} ms` : `${count(Math.floor(lag / 1000))} s`;
  return lag < LAGS ? text : h("strong", { class: "bad" }, text);
}

function alertsOf({ alerts }) {
  const all = Object.entries(alerts).map(([kind, number]) => (number === 1 ? kind : `${number} ${kind}`));
  return all.length > 0 ? h("span", { class: "bad" }, all.join(", ")) : "–";
}

function detail(row) {
  const clock = Math.abs(row.clock_ahead_ms) > CLOCK && `${(Math.abs(row.clock_ahead_ms) / 1000).toFixed(0)} s ${row.clock_ahead_ms < 0 ? "behind" : "ahead of"} the database's`;
  const tables = ({ generation, rows, error }) => [`${count(rows)} rows, load ${generation}`, error && h("span", { class: "bad" }, ` ${error}`)];
  return facts([
    ["version", row.version],
    ["announced since", time(row.started_at)],
    ["last seen", time(row.seen_at)],
    ["listens on", row.listen.join(", ")],
    ["control", row.control.join(", ")],
    ["addresses", row.addresses && tables(row.addresses)],
    ["trusted peers", row.trusted && tables(row.trusted)],
    ["clock", clock && h("span", { class: "bad" }, clock)],
    ["seats", count(row.seats_total)],
  ].map(([name, value]) => [name, value || null]));
}

/** The generations of each seat on each host; those that differ come first. */
function generations(hosts, differing) {
  const shown = hosts.filter(({ stage }) => ["serving", "starting", "draining"].includes(stage));
  const names = [...new Set(shown.flatMap(({ seats }) => Object.keys(seats)))].sort();
  const rows = [...names.filter((name) => differing.includes(name)), ...names.filter((name) => !differing.includes(name))].slice(0, 100);
  const columns = [
    { title: "seat", kind: "short", cell: (name) => [name, differing.includes(name) && [" ", badge("differs", "bad")]] },
    ...shown.map((host) => ({ title: host.host, cell: (name) => generation(host.seats[name], differing.includes(name)) })),
  ];
  const more = names.length > rows.length ? `, the first ${rows.length} of ${count(names.length)}` : "";
  return h(
    "section",
    { class: "panel", "data-key": "generations" },
    h("h2", {}, "Generations"),
    table(`Of each seat on each host${more}`, columns, rows, { key: (name) => name, nothing: "No host has a policy." }),
  );
}

function generation(seat, differs) {
  if (!seat) return "–";
  const { active, candidate, share, digest, is_file: isFile } = seat;
  const trial = candidate === null ? "" : share === null ? `, shadow ${candidate}` : `, canary ${candidate} at ${share / 100} %`;
  const text = isFile ? "file" : `${active ?? "none"}${trial}`;
  return [differs ? h("strong", { class: "bad" }, text) : text, h("span", { class: "under" }, digest)];
}
