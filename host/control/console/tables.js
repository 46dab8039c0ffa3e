// The tables of the permissions module: rows, which of them contain a source, and what was skipped.

import { StoredRows, hasRows } from "./addresses.js";
import { button, count, facts, field, h, keep, table, time } from "./dom.js";
import { failed, title } from "./overview.js";
import { StoredPeers, hasPeers } from "./trusted.js";

export const tables = {
  id: "tables",
  title: "Tables",
  isShown: (session) => (session.isOperator ? session.hasCommand("permissions.addressDump") : hasRows(session)),
  open: (page) => (page.session.isOperator ? open(page) : openOwn(page)),
};

/** Most rows in the page. */
const SHOWN = 200;

/** The rows of a tenant's groups. */
function openOwn(page) {
  const show = () => {
    page.show(
      title("Tables"),
      h(
        "section",
        { class: "panel" },
        h("h2", {}, "Addresses"),
        stored && [keep(stored.match), stored.found(), keep(stored.filter), stored.rows(), stored.isWritable && keep(stored.adding)],
      ),
    );
  };
  let stored = null;
  stored = new StoredRows(page, show);
  show();
  return null;
}

function open(page) {
  const { session } = page;
  const state = { rows: [], peers: [], status: null, error: null, wanted: "", source: null };
  const read = async () => {
    try {
      const names = ["addressDump", "subnetDump", "domainDump", "trustedDump"];
      const calls = [session.call("portcullis.status"), ...names.map((name) => session.call(`permissions.${name}`))];
      const [status, hosts, subnets, domains, peers] = await Promise.all(calls);
      const rows = [...hosts.map(hostRow), ...subnets.map(subnetRow), ...domains.map(domainRow)];
      Object.assign(state, { status, peers: peers.map(({ item }) => item), error: null });
      state.rows = rows.sort((a, b) => a.group - b.group);
    } catch (error) {
      state.error = error;
    }
    show();
  };
  const reload = (name, what) => async () => {
    await page.run(async () => {
      const done = await session.call(`${name}.reload`);
      return `${what}: ${done.status}, generation ${done.generation}`;
    });
    await read();
  };
  const wanted = h("input", { type: "search", name: "wanted", oninput: () => { state.wanted = wanted.value.trim(); show(); } });
  const source = h("input", { name: "source", placeholder: "192.0.2.7:5060", spellcheck: "false", autocomplete: "off" });
  const match = h(
    "form",
    { onsubmit: (event) => { event.preventDefault(); state.source = source.value.trim(); show(); } },
    field("Which rows match this source?", source),
    h("button", {}, "Match"),
    field("Rows with this text", wanted),
  );
  const uri = rulesForm(page);
  const stored = hasRows(session) ? new StoredRows(page, () => show()) : null;
  const storedPeers = hasPeers(session) ? new StoredPeers(page, () => show()) : null;
  const show = () => {
    if (state.error || !state.status) return page.show(title("Tables"), state.error ? failed(state.error) : []);
    const { addresses, trusted, rules } = state.status;
    page.show(
      title("Tables", button("Read again", read)),
      h(
        "section",
        { class: "panel", "data-key": "addresses" },
        h("div", { class: "title" }, h("h2", {}, "Addresses"), h("p", { class: "actions" }, button("Reload", reload("address", "Address table"), { "aria-label": "Reload the address table" }))),
        facts([
          ["from", addresses.address_file ?? addresses.database],
          ["contents", addresses.rows],
          ["loaded", `${time(addresses.loaded_at)} in ${count(addresses.took_ms)} ms, generation ${addresses.generation}`],
          ["changes seen by", addresses.changes_seen_by],
        ]),
        entries(addresses),
        keep(match),
        matched(state),
        rowsOf(state),
      ),
      stored?.list &&
        h(
          "section",
          { class: "panel", "data-key": "stored" },
          h("h2", {}, "Stored rows"),
          h("p", { class: "muted" }, "As they are in the database, those that were skipped included."),
          keep(stored.filter),
          stored.rows(),
          stored.isWritable && keep(stored.adding),
        ),
      h(
        "section",
        { class: "panel", "data-key": "trusted" },
        h("div", { class: "title" }, h("h2", {}, "Trusted peers"), h("p", { class: "actions" }, button("Reload", reload("trusted", "Trusted peers"), { "aria-label": "Reload the trusted peers" }))),
        trusted.table_is_absent ? h("p", { class: "nothing" }, "The database has no such table.") : peersOf(state.peers),
        entries(trusted),
      ),
      storedPeers &&
        !trusted.table_is_absent &&
        h(
          "section",
          { class: "panel", "data-key": "stored-peers" },
          h("h2", {}, "Stored peers"),
          keep(storedPeers.asking),
          storedPeers.found(),
          storedPeers.rows(),
          storedPeers.isWritable && keep(storedPeers.adding),
        ),
      h(
        "section",
        { class: "panel", "data-key": "rules" },
        h("div", { class: "title" }, h("h2", {}, "Rules"), h("p", { class: "actions" }, button("Reload", reload("rules", "Rules"), { "aria-label": "Reload the rules" }))),
        facts([["files", count(rules.files)], ["sets", rules.sets.join("; ")], ["loaded", time(rules.loaded_at)]]),
        entries(rules),
        keep(uri),
      ),
    );
  };
  read();
  return null;
}

const hostRow = ({ group, item }) => ({ group, address: item.ip, mask: null, port: item.port, tag: item.tag });
const subnetRow = ({ group, item }) => ({ group, address: item.ip, mask: item.mask, port: item.port, tag: item.tag });
const domainRow = ({ group, item }) => ({ group, address: item.domain_name, mask: null, port: item.port, tag: item.tag, isName: true });

/** Rows that were skipped, and rows that were taken although they look wrong; each text says how to mend its row. */
function entries({ errors, warnings = [], skipped, warned = 0 }) {
  const lines = [...errors.map((text) => h("li", { class: "bad" }, "Skipped: ", text)), ...warnings.map((text) => h("li", {}, "Taken, but: ", text))];
  if (lines.length === 0) return null;
  const more = skipped + warned - lines.length;
  if (more > 0) lines.push(h("li", {}, `${count(more)} more; the log has them all.`));
  return h("ul", { class: "alerts", "aria-label": "Entries to mend" }, lines);
}

const columns = [
  { title: "group", kind: "short", cell: (row) => String(row.group) },
  { title: "address", kind: "short mono", cell: (row) => (row.mask === null ? row.address : `${row.address}/${row.mask}`) },
  { title: "port", kind: "short", cell: (row) => (row.port ? String(row.port) : "any") },
  { title: "tag", cell: (row) => (row.tag && row.tag !== "NULL" ? row.tag : "–") },
];

function rowsOf({ rows, wanted }) {
  const found = rows.filter((row) => !wanted || columns.some(({ cell }) => cell(row).includes(wanted)));
  const shown = found.slice(0, SHOWN);
  const caption = found.length > shown.length ? `The first ${SHOWN} of ${count(found.length)} rows` : rowCount(found.length);
  return table(caption, columns, shown, { nothing: wanted ? "No row has this text." : "The table is empty." });
}

const rowCount = (number) => (number === 1 ? "1 row" : `${count(number)} rows`);

function matched({ rows, source }) {
  if (!source) return null;
  const wanted = parse(source);
  if (!wanted) return h("p", { class: "error", role: "alert" }, "Write an address, with or without a port: 192.0.2.7, 192.0.2.7:5060 or [2001:db8::1]:5060.");
  const found = rows.filter((row) => contains(row, wanted));
  const port = wanted.port === null ? "any port" : `port ${wanted.port}`;
  const names = rows.some((row) => row.isName) ? " Rows with names are not compared." : "";
  const said = found.length === 0 ? `No row matches ${wanted.text}, ${port}: no group contains this source.${names}` : `${wanted.text}, ${port}, is in group ${[...new Set(found.map(({ group }) => group))].join(", ")}.${names}`;
  return h("div", { "data-key": "matched" }, h("p", { role: "status" }, h("strong", { class: found.length ? "good" : "warn" }, said)), found.length > 0 && table("Rows that match", columns, found));
}

/** Reads "ADDRESS", "ADDRESS:PORT" or "[ADDRESS]:PORT"; null if it is none of these. */
export function parse(text) {
  const [, bracketed, plain, port] = /^(?:\[([^\]]+)\]|([^:]+|[^:]*:[^:]*:.*?))(?::(\d{1,5}))?$/.exec(text) ?? [];
  const isPlain6 = !bracketed && (text.match(/:/g) ?? []).length > 1;
  const address = bracketed ?? (isPlain6 ? text : plain);
  const bits = address && bitsOf(address);
  if (!bits || Number(port) > 65535) return null;
  return { text: address, bits, port: port && !isPlain6 ? Number(port) : null };
}

/** Whether a row contains a source. A row with port 0 contains every port, and so does a source without a port. */
export function contains(row, { bits, port }) {
  if (port !== null && row.port !== 0 && row.port !== port) return false;
  const own = row.isName ? null : bitsOf(row.address);
  if (!own || own.length !== bits.length) return false;
  const length = row.mask ?? bits.length;
  return own.slice(0, length) === bits.slice(0, length);
}

/** The bits of an address, as text; null if it is no address. IPv4-mapped IPv6 addresses are IPv4 addresses. */
export function bitsOf(address) {
  const binary = (number, width) => number.toString(2).padStart(width, "0");
  if (/^\d{1,3}(\.\d{1,3}){3}$/.test(address)) {
    const parts = address.split(".").map(Number);
    return parts.every((part) => part < 256) ? parts.map((part) => binary(part, 8)).join("") : null;
  }
  let host;
  try {
    host = new URL(`http://[${address}]/`).hostname.slice(1, -1);
  } catch {
    return null;
  }
  const [head, tail] = host.split("::").map((half) => (half ? half.split(":") : []));
  const groups = tail ? [...head, ...Array(8 - head.length - tail.length).fill("0"), ...tail] : head;
  const bits = groups.map((group) => binary(parseInt(group, 16), 16)).join("");
  const mapped = `${"0".repeat(80)}${"1".repeat(16)}`;
  return bits.startsWith(mapped) ? bits.slice(96) : bits;
}

function peersOf(peers) {
  const text = (title, name) => ({ title, kind: "mono", cell: (row) => (row[name] && row[name] !== "NULL" ? row[name] : "any") });
  const all = [
    { title: "source", kind: "short mono", cell: (row) => row.ip },
    { title: "protocol", cell: (row) => ({ 0: "any", 1: "udp", 2: "tcp", 3: "tls", 4: "sctp", 5: "ws", 6: "wss" })[row.proto] ?? String(row.proto) },
    text("From", "pattern"),
    text("Request-URI", "ruri_pattern"),
    { title: "tag", cell: (row) => (row.tag && row.tag !== "NULL" ? row.tag : "–") },
    { title: "priority", kind: "number", cell: (row) => String(row.priority) },
  ];
  const shown = peers.slice(0, SHOWN);
  return table(peers.length > shown.length ? `The first ${SHOWN} of ${count(peers.length)} peers` : `${count(peers.length)} ${peers.length === 1 ? "peer" : "peers"}`, all, shown, { nothing: "The table is empty." });
}

function rulesForm(page) {
  const [set, uri, contact] = ["set", "uri", "contact"].map((name) => h("input", { name, spellcheck: "false", autocomplete: "off", required: true }));
  set.value = "permissions";
  uri.placeholder = "sip:bob@example.com";
  contact.placeholder = "sip:alice@192.0.2.7";
  const answer = h("p", { role: "status" });
  return h(
    "form",
    {
      onsubmit: async (event) => {
        event.preventDefault();
        answer.textContent = "";
        await page.run(async () => {
          const given = [set, uri, contact].map(({ value }) => value.trim());
          answer.textContent = await page.session.call("permissions.testUri", given);
        });
      },
    },
    field("Set", set),
    field("URI", uri, { class: "grow" }),
    field("Contact", contact, { class: "grow" }),
    h("button", {}, "Test"),
    answer,
  );
}
