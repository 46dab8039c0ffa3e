// The rows of the address table as they are stored: list, add, remove. The host makes the same checks as the command line.

import { ask, button, count, field, h, table } from "./dom.js";

const ROWS = "/v1/addresses";
const MATCH = "/v1/addresses/match";
const SELF = "/v1/tenants/self";
/** Rows that are read at once. */
const SHOWN = 200;

/** Whether the host lets this user see stored rows. */
export const hasRows = (session) => session.has("GET", ROWS);

/** The groups whose rows a tenant may change; null for those who may change all. */
async function editable(session) {
  if (session.isOperator || !session.has("GET", SELF)) return null;
  return (await session.get(SELF)).limits.edit_groups;
}

/** A panel with the stored rows; `changed` is called after each change. */
export class StoredRows {
  constructor(page, changed) {
    Object.assign(this, { page, changed, list: null, error: null, matches: null, groups: undefined });
    const text = (name, attributes) => h("input", { name, autocomplete: "off", spellcheck: "false", ...attributes });
    this.contains = text("wanted", { type: "search", onchange: () => this.read() });
    this.filter = h("form", { onsubmit: (event) => { event.preventDefault(); this.read(); } }, field("Stored rows with this text", this.contains), h("button", {}, "Find"));
    this.adding = h(
      "form",
      { onsubmit: (event) => { event.preventDefault(); this.add(event.target); } },
      field("Group", text("group", { type: "number", min: "1", required: true, size: "6" })),
      field("Address, network or name", text("address", { required: true, placeholder: "192.168.1.0/24" })),
      field("Port, 0 for any", text("port", { type: "number", min: "0", max: "65535", value: "0" })),
      field("Tag", text("tag", { maxlength: "64" })),
      field("Author", text("author", { maxlength: "60" })),
      h("button", { class: "first" }, "Add the row"),
    );
    this.source = text("source", { placeholder: "192.0.2.7:5060", required: true });
    this.match = h("form", { onsubmit: (event) => { event.preventDefault(); this.find(); } }, field("Which rows match this source?", this.source), h("button", {}, "Match"));
    this.read();
  }

  async read() {
    try {
      if (this.groups === undefined) this.groups = await editable(this.page.session);
      this.list = await this.pageAfter(null);
      this.error = null;
    } catch (error) {
      this.error = error;
    }
    this.changed();
  }

  /** Shows the next page, too. Only the first one tells how many rows there are. */
  async more() {
    await this.page.run(async () => {
      const { rows, next } = await this.pageAfter(this.list.next);
      this.list = { ...this.list, rows: [...this.list.rows, ...rows], next };
    });
    this.changed();
  }

  pageAfter(after) {
    const contains = this.contains.value.trim();
    const query = new URLSearchParams({ limit: SHOWN, ...(contains && { contains }), ...(after && { after }) });
    return this.page.session.get(`${ROWS}?${query}`);
  }

  async add(form) {
    const { group, address, port, tag, author } = Object.fromEntries(new FormData(form));
    const row = { group: Number(group), address: address.trim(), port: Number(port), ...(tag.trim() && { tag: tag.trim() }) };
    const query = author.trim() ? `?author=${encodeURIComponent(author.trim())}` : "";
    const isDone = await this.page.run(async () => {
      const added = await this.page.session.change("POST", ROWS + query, JSON.stringify(row), "application/json");
      return [`Added ${added.address} to group ${added.group}`, added.warning].filter(Boolean).join(". ");
    });
    if (isDone) for (const name of ["address", "tag"]) form.elements[name].value = "";
    await this.read();
  }

  async remove(row) {
    const isNetwork = row.mask !== null && !["0", "32", "128"].includes(String(row.mask)) && !row.address.includes("/");
    const address = isNetwork ? `${row.address}/${row.mask}` : row.address;
    if (!(await ask("Remove the row?", `${address} is not in group ${row.group} any more, on every host on this database.`, "Remove"))) return;
    await this.page.run(async () => {
      const done = await this.page.session.change("DELETE", `${ROWS}?${new URLSearchParams({ group: row.group, address })}`);
      return `Removed ${done.removed === 1 ? "1 row" : `${count(done.removed)} rows`}: ${address} in group ${row.group}`;
    });
    await this.read();
  }

  async find() {
    await this.page.run(async () => {
      this.matches = await this.page.session.get(`${MATCH}?${new URLSearchParams({ source: this.source.value.trim() })}`);
    });
    this.changed();
  }

  /** What is shown of the rows; the forms are shown by the caller. */
  rows() {
    if (this.error) return h("p", { class: "error", role: "alert" }, this.error.message);
    if (!this.list) return null;
    const { rows, total, next, is_writable: isWritable } = this.list;
    const canRemove = isWritable && this.page.session.has("DELETE", ROWS) && this.groups?.length !== 0;
    const remove = (row) => this.mayChange(row) && button("Remove", () => this.remove(row), { "aria-label": `Remove ${row.address} from group ${row.group}` });
    const columns = [
      { title: "group", kind: "short", cell: (row) => row.group ?? "–" },
      { title: "address", kind: "short mono", cell: (row) => row.address ?? "–" },
      { title: "mask", kind: "short", cell: (row) => row.mask ?? "–" },
      { title: "port", kind: "short", cell: (row) => (row.port === 0 ? "any" : (row.port ?? "–")) },
      { title: "tag", cell: (row) => row.tag ?? "–" },
      ...(canRemove ? [{ title: "", kind: "short", cell: remove }] : []),
    ];
    const caption = total > rows.length ? `The first ${count(rows.length)} of ${count(total)} stored rows` : `${count(total)} stored ${total === 1 ? "row" : "rows"}`;
    const shown = table(caption, columns, rows, { nothing: "No row.", key: (row) => `${row.id} ${row.group} ${row.address}` });
    const more = next && h("p", { class: "actions" }, button("More rows", () => this.more()));
    return [shown, more, !isWritable && h("p", { class: "muted" }, "The rows are in a file, and cannot be changed here.")];
  }

  get isWritable() {
    return Boolean(this.list?.is_writable) && this.page.session.has("POST", ROWS) && this.groups?.length !== 0;
  }

  /** Whether the host would let this user change a row. */
  mayChange({ group }) {
    return !this.groups || this.groups.includes(group);
  }

  /** The rows that match a source, as the host finds them. */
  found() {
    if (!this.matches) return null;
    const { source, port, rows, first_group: first } = this.matches;
    const where = port === null ? source : `${source}, port ${port},`;
    const said = first === null ? `No row matches ${where}.` : `${where} is in group ${first}.`;
    const columns = [
      { title: "group", kind: "short", cell: (row) => String(row.group) },
      { title: "port", kind: "short", cell: (row) => (row.port ? String(row.port) : "any") },
      { title: "tag", cell: (row) => row.tag ?? "–" },
      { title: "matches", cell: (row) => (row.is_match ? "yes" : "no: another port") },
    ];
    return h("div", {}, h("p", { role: "status" }, h("strong", { class: first === null ? "warn" : "good" }, said)), rows.length > 0 && table("Rows about this source, in the order of the search", columns, rows));
  }
}
