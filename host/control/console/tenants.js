// The tenants: what each has used, and the settings of those that are stored in the database.

import { ask, badge, button, count, facts, field, h, keep, rate, say, table, time } from "./dom.js";
import { failed, follow, tenantLink, title } from "./overview.js";

const ONE = "/v1/tenants/{name}";

export const tenants = {
  id: "tenants",
  title: "Tenants",
  isShown: (session) => session.isOperator && session.has("GET", "/v1/tenants"),
  open: (page) => (page.rest[0] ? openOne(page, page.rest[0]) : openList(page)),
};

function openList(page) {
  const { session, rates } = page;
  let wanted = "";
  const read = async () => ({ list: await session.get("/v1/tenants") });
  const show = ({ list, error }) => {
    if (error) return page.show(title("Tenants"), failed(error));
    const found = list.filter(({ name }) => name.includes(wanted)).map((row) => ({ ...row, rate: rates.tenant(row.name) }));
    const filter = h("input", { type: "search", oninput: (event) => { wanted = event.target.value; followed.paint(); } });
    page.show(title("Tenants", field("Name contains", filter)), listed(found, list.length), added && keep(added));
  };
  const added = session.has("PUT", ONE) && newTenant();
  const followed = follow(page, read, show);
  return followed.end;
}

function newTenant() {
  const name = h("input", { name: "name", required: true, autocomplete: "off", spellcheck: "false" });
  const go = (event) => {
    event.preventDefault();
    location.hash = `#/tenants/${encodeURIComponent(name.value.trim())}`;
  };
  const how = "A tenant can be stored in the database: every host on it has the tenant about a second later.";
  return h("section", { class: "panel" }, h("h2", {}, "Store a tenant"), h("form", { onsubmit: go }, field("Name", name), h("button", {}, "Write its settings")), h("p", { class: "muted" }, how));
}

function openOne(page, name) {
  const { session, rates } = page;
  const path = `/v1/tenants/${encodeURIComponent(name)}`;
  let editor = null;
  const read = async () => ({ row: (await session.get("/v1/tenants")).find((row) => row.name === name) });
  const edit = async (row) => {
    // A tenant that nobody knows is a new one; asking for it would be refused.
    const stored = row ? await session.get(path).catch((error) => ({ problem: error.message })) : null;
    editor = settings(page, path, name, stored, followed);
    followed.paint();
  };
  const show = ({ row, error }) => {
    if (error) return page.show(title(`Tenant ${name}`), failed(error));
    if (!editor && row?.from !== "file" && session.has("PUT", ONE)) {
      editor = h("section", { class: "panel" });
      edit(row);
    }
    const links = h("a", { href: `#/policies/${encodeURIComponent(name)}` }, "Policies of this seat");
    const where = "Its settings are in the configuration file of the host, which `portcullis tenant reload` reads again.";
    page.show(
      title(`Tenant ${name}`, h("a", { href: "#/tenants" }, "All tenants")),
      row ? used(row, rates, links) : h("p", { class: "nothing" }, "The host has no tenant of this name yet."),
      row?.from === "file" && h("section", { class: "panel" }, h("h2", {}, "Settings"), h("p", {}, name === "default" ? "default is the operator." : where)),
      editor && keep(editor),
    );
  };
  const followed = follow(page, read, show);
  return followed.end;
}

function used(row, rates, links) {
  const warn = (number) => h("span", { class: number > 0 && "warn" }, count(number));
  const pairs = [
    ["policy", row.policy ? `${row.policy}, generation ${row.generation}` : "none"],
    ["mode", row.mode === "monitor" ? badge("monitor", "warn") : row.mode],
    ["alert", row.alert && h("span", { class: "bad" }, row.alert)],
    ["requests per second", rate(rates.tenant(row.name))],
    ["requests", count(row.requests)],
    ["verdicts", `relay ${count(row.relay)}, reject ${count(row.reject)}, drop ${count(row.drop)}, none ${count(row.pass)}`],
    ["failed calls", warn(row.failed)],
    ["above a limit, shed", warn(row.shed)],
    ["yielded to other tenants", count(row.postponed)],
    ["next hops refused", warn(row.refused_relays)],
    ["queries outside its scope", warn(row.crossings)],
    ["log lines dropped", warn(row.dropped_log_lines)],
    ["active transactions", count(row.transactions)],
    ["counters of the policy", `${count(row.counters)}, ${count(row.evicted_counters)} evicted`],
  ];
  return h("section", { class: "panel" }, h("h2", {}, "Used since the start of the host"), facts(pairs), h("p", {}, links));
}

/** The settings of a stored tenant, as text. The host checks them before it stores them. */
function settings(page, path, name, stored, followed) {
  const text = h("textarea", { name: "settings", rows: "12", spellcheck: "false", class: "code" });
  text.value = stored?.config ?? `uri-domains = ["${name}.example"]\n`;
  const author = h("input", { name: "author", maxlength: "60", autocomplete: "off" });
  const query = () => (author.value.trim() ? `?author=${encodeURIComponent(author.value.trim())}` : "");
  const refused = h("p", { class: "error", role: "alert" });
  const save = async (event) => {
    event.preventDefault();
    refused.textContent = "";
    try {
      await page.session.change("PUT", path + query(), text.value, "application/toml");
      say(`Tenant ${name} is stored`);
    } catch (error) {
      refused.textContent = error.message;
    }
    await followed.again();
  };
  const remove = async () => {
    if (!(await ask(`Remove ${name}?`, "Its traffic belongs to no tenant any more, on every host on this database.", "Remove"))) return;
    const isDone = await page.run(async () => {
      await page.session.change("DELETE", path + query());
      return `Tenant ${name} is removed`;
    });
    if (isDone) location.hash = "#/tenants";
  };
  const last = stored?.changed_by && h("p", { class: "muted" }, `Changed by ${stored.changed_by}, ${time(stored.changed_at)}`);
  return h(
    "section",
    { class: "panel" },
    h("h2", {}, "Settings"),
    stored?.problem && h("p", { class: "error" }, stored.problem),
    last,
    h(
      "form",
      { onsubmit: save },
      h("label", { class: "full" }, h("span", {}, "The content of its section, in TOML"), text),
      refused,
      field("Author", author),
      h("button", { class: "first" }, "Check and store"),
      stored?.config && button("Remove the tenant", remove, { class: "danger" }),
    ),
  );
}

function listed(found, all) {
  const alerting = found.some(({ alert }) => alert);
  const number = (title, value) => ({ title, kind: "number", cell: (row) => count(row[value]) });
  const notZero = (title, value) => ({ title, kind: "number", cell: (row) => (row[value] ? h("strong", { class: "warn" }, count(row[value])) : "0") });
  // Columns of what is rare take no room while there is none of it.
  const rare = (title, value) => (found.some((row) => row[value]) ? [notZero(title, value)] : []);
  const columns = [
    { title: "tenant", kind: "short", cell: tenantLink },
    { title: "policy", kind: "short", cell: (row) => (row.policy ? [row.policy, h("span", { class: "under" }, `generation ${row.generation}`)] : "none") },
    { title: "mode", cell: (row) => (row.mode === "monitor" ? badge("monitor", "warn") : row.mode) },
    ...(alerting ? [{ title: "alert", kind: "wide", cell: (row) => (row.alert ? h("span", { class: "bad" }, row.alert) : "–") }] : []),
    { title: "requests / s", kind: "number", cell: (row) => rate(row.rate) },
    number("requests", "requests"),
    number("relay", "relay"),
    number("reject", "reject"),
    number("drop", "drop"),
    number("pass", "pass"),
    notZero("failed", "failed"),
    notZero("shed", "shed"),
    ...rare("crossings", "crossings"),
    ...rare("refused relays", "refused_relays"),
    number("transactions", "transactions"),
    number("counters", "counters"),
    ...rare("log lines dropped", "dropped_log_lines"),
    { title: "from", cell: (row) => row.from ?? "–" },
  ];
  const caption = found.length === all ? `${count(all)} tenants; default is the operator` : `${count(found.length)} of ${count(all)} tenants`;
  const most = found.slice(0, 500);
  return h("section", { class: "panel" }, table(caption, columns, most, { key: (row) => row.name, nothing: "No tenant has such a name." }), more(found.length - most.length));
}

const more = (number) => number > 0 && h("p", { class: "muted" }, `${count(number)} more: narrow the name.`);

