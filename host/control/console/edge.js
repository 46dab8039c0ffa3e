// What the host knows of others: the states of gateways, strangers that are held or banned, and its own certificates.

import { ask, badge, button, count, facts, h, table, time } from "./dom.js";
import { failed, follow, title } from "./overview.js";

const GATEWAYS = "/v1/dispatcher";
const GUARD = "/v1/guard";
const STRANGER = "/v1/guard/{address}";
const SET_STATE = "dispatcher.set_state";
const CERTIFICATES = "tls.certificates";

/** Days before the end of a certificate from which on it is marked. */
const SOON = 14;

const STATES = { A: ["active", "good"], T: ["trying", "warn"], I: ["inactive", "bad"], D: ["disabled", "warn"] };

export const edge = { id: "edge", title: "Edge", isShown: (session) => session.isOperator && session.has("GET", GATEWAYS), open };

function open(page) {
  const { session } = page;
  const read = async () => ({
    gateways: await session.get(GATEWAYS),
    strangers: session.has("GET", GUARD) ? await session.get(GUARD).catch(disabled) : null,
    certificates: session.hasCommand(CERTIFICATES) ? await session.call(CERTIFICATES) : null,
  });
  const act = async (work, done) => {
    await page.run(async () => {
      await work();
      return done;
    });
    await followed.again();
  };
  const show = ({ gateways, strangers, certificates, error }) => {
    if (error) return page.show(title("Edge"), failed(error));
    page.show(title("Edge"), gatewaysOf(session, gateways, act), strangers && strangersOf(session, strangers, act), certificates && certificatesOf(certificates));
  };
  const followed = follow(page, read, show);
  return followed.end;
}

/** A host whose guard is off says so with 409. */
function disabled(error) {
  if (error.status !== 409) throw error;
  return error.message;
}

function gatewaysOf(session, { source, loaded_at: loaded, table_is_absent: isAbsent, last_error: problem, skipped, errors, calls, is_pinging: isPinging, sets }, act) {
  const change = async (row, letter, question, text, yes) => {
    if (!(await ask(question, text, yes))) return;
    // Whether the host pings the destination stays as it is; a disabled one has lost that.
    const state = letter + (row.state[1] === "P" || row.state[0] === "D" ? "p" : "");
    await act(() => session.call(SET_STATE, [state, row.set, row.uri]), `${row.uri} of set ${row.set} is ${STATES[letter.toUpperCase()][0]}`);
  };
  const activate = (row) => change(row, "a", `Activate ${row.uri}?`, "Requests go there again at once, whatever its last answers were.", "Activate");
  const disable = (row) => change(row, "d", `Disable ${row.uri}?`, "It gets no more requests of this host, until somebody activates it or its row changes. Calls in progress go on.", "Disable");
  const named = (text, row) => ({ "aria-label": `${text} ${row.uri} of set ${row.set}` });
  const actions = (row) =>
    h(
      "div",
      { class: "actions" },
      row.state[0] !== "A" && button("Activate", () => activate(row), named("Activate", row)),
      row.state[0] !== "D" && button("Disable", () => disable(row), { ...named("Disable", row), class: "danger" }),
    );
  const columns = [
    { title: "set", kind: "short", cell: (row) => String(row.set) },
    { title: "destination", kind: "mono", cell: (row) => [row.uri, h("span", { class: "under" }, [row.description, row.attrs].filter(Boolean).join(" · "))] },
    { title: "state", kind: "short", cell: stateOf },
    { title: "last result", kind: "short", cell: (row) => (row.last_at ? [row.last_code === null ? "no answer" : String(row.last_code), h("span", { class: "under" }, time(row.last_at))] : "–") },
    { title: "ping", kind: "wide", cell: pingOf },
    { title: "calls", kind: "number", cell: (row) => count(row.calls) },
    { title: "", kind: "short", cell: session.hasCommand(SET_STATE) ? actions : () => "" },
  ];
  const rows = sets.flatMap((set) => set.destinations.map((destination, slot) => ({ ...destination, set: set.id, slot })));
  const down = sets.filter((set) => set.destinations.every((one) => !one.is_open)).map((set) => set.id);
  const nothing = isAbsent ? "The database has no table of gateways: portcullis db migrate creates it." : "There is no set: portcullis dispatcher add adds one.";
  return h(
    "section",
    { class: "panel", "data-key": "gateways" },
    h("h2", {}, "Gateways"),
    facts([
      ["from", source],
      ["loaded", time(loaded)],
      ["pings", isPinging ? "sent" : "off"],
      ["calls", count(calls)],
      ["skipped rows", skipped > 0 && h("strong", { class: "warn" }, count(skipped))],
      ["last error", problem && h("span", { class: "bad" }, problem)],
    ].map(([name, value]) => [name, value || null])),
    notes(down, errors),
    table("Destinations of the dispatcher", columns, rows, { key: (row) => `${row.set} ${row.slot} ${row.uri}`, nothing }),
  );
}

/** Sets without a way out, and rows that cannot be used; each text says how to mend its row. */
function notes(down, errors) {
  const lines = [...down.map((set) => `No destination of set ${set} gets requests.`), ...errors.map((text) => `Skipped: ${text}`)];
  return lines.length > 0 && h("ul", { class: "alerts", "aria-label": "Gateways to mend" }, lines.map((text) => h("li", { class: "bad" }, text)));
}

function stateOf({ state, failures, paused_until: paused }) {
  const [name, kind] = STATES[state[0]] ?? [state, "muted"];
  const more = paused ? `until ${time(paused)}, as it has asked` : failures > 0 && `${count(failures)} ${failures === 1 ? "failure" : "failures"} in a row`;
  return [badge(name, kind), more && h("span", { class: "under" }, more)];
}

function pingOf({ is_pinged: isPinged, ping_failure: failure, latency_ms: latency, ping_timeouts: timeouts }) {
  if (failure) return h("span", { class: "bad" }, failure);
  if (!isPinged) return "not pinged";
  const answered = latency > 0 ? `${latency.toFixed(1)} ms on average` : "no answer yet";
  return [answered, timeouts > 0 && h("span", { class: "under" }, `${count(timeouts)} unanswered`)];
}

function strangersOf(session, strangers, act) {
  const panel = (...content) => h("section", { class: "panel", "data-key": "strangers" }, h("h2", {}, "Strangers held or banned"), content);
  if (typeof strangers === "string") return panel(h("p", { class: "nothing" }, strangers));
  // An address of an IPv6 /64 stands for all of them.
  const path = ({ source }) => STRANGER.replace("{address}", encodeURIComponent(source.split("/")[0]));
  const release = (row) => act(() => session.change("DELETE", path(row)), `${row.source} is released`);
  const columns = [
    { title: "source", kind: "short mono", cell: (row) => row.source },
    { title: "state", kind: "short", cell: (row) => badge(row.state, row.state === "banned" ? "bad" : "warn") },
    { title: "reason", cell: (row) => row.reason },
    { title: "released in", kind: "number", cell: (row) => `${count(row.seconds)} s` },
    { title: "dropped", kind: "number", cell: (row) => count(row.dropped) },
    { title: "", kind: "short", cell: (row) => session.has("DELETE", STRANGER) && button("Release", () => release(row), { "aria-label": `Release ${row.source}` }) },
  ];
  const how = "A customer or a trunk belongs into the address table: it is never held or banned then.";
  return panel(table("Whose requests are limited or dropped", columns, strangers, { key: (row) => row.source, nothing: "Nobody is held or banned." }), h("p", { class: "muted" }, how));
}

function certificatesOf(certificates) {
  const expires = ({ not_after: end, days_left: days }) => {
    const kind = days < 0 ? "bad" : days < SOON ? "warn" : "good";
    const left = days < 0 ? "expired" : days === 1 ? "1 day left" : `${count(days)} days left`;
    return [badge(left, kind), h("span", { class: "under" }, time(end))];
  };
  const columns = [
    { title: "section", kind: "short mono", cell: (row) => row.section },
    { title: "names", cell: (row) => row.names.join(", ") || "–" },
    { title: "issuer", cell: (row) => row.issuer },
    { title: "expires", kind: "short", cell: expires },
    { title: "clients", kind: "short", cell: (row) => (row.client_auth === "none" ? "show none" : `${row.client_auth}`) },
    { title: "last reload", kind: "wide", cell: (row) => (row.fault ? h("span", { class: "bad" }, row.fault) : "done") },
  ];
  return h(
    "section",
    { class: "panel", "data-key": "certificates" },
    h("h2", {}, "Certificates"),
    table("Of SIP over TLS", columns, certificates, { key: (row) => `${row.section} ${row.sha256}`, nothing: "There is none: no section [tls.NAME] or [relay.tls] has a certificate." }),
  );
}
