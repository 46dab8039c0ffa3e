// The rows of the table of trusted peers as they are stored: list, add, remove, and whether a request is trusted. The host makes the same checks as
// the command line.

import { ask, button, choice, count, field, h, table } from "./dom.js";

const PEERS = "/v1/trusted";
const MATCH = "/v1/trusted/match";
/** Most rows in the page. */
const SHOWN = 200;
const TRANSPORTS = ["any", "udp", "tcp", "tls", "sctp", "ws", "wss"];

/** Whether the host lets this user see the stored peers. */
export const hasPeers = (session) => session.has("GET", PEERS);

/** A panel with the stored peers; `changed` is called after each change. */
export class StoredPeers {
  constructor(page, changed) {
    Object.assign(this, { page, changed, list: null, error: null, answer: null });
    const text = (name, attributes) => h("input", { name, autocomplete: "off", spellcheck: "false", ...attributes });
    const transport = (all) => choice("proto", all.map((name) => [name, name === "none" ? "none: the row is disabled" : name]));
    this.adding = h(
      "form",
      { "aria-label": "Add a trusted peer", onsubmit: (event) => { event.preventDefault(); this.add(event.target); } },
      field("Source", text("source", { required: true, placeholder: "192.0.2.7" })),
      field("Transport", transport([...TRANSPORTS, "none"])),
      field("From URI, a pattern", text("from_pattern", { placeholder: "any" })),
      field("Request URI, a pattern", text("ruri_pattern", { placeholder: "any" })),
      field("Tag", text("tag", { maxlength: "64" })),
      field("Priority", text("priority", { type: "number", value: "0", size: "6" })),
      field("Author", text("author", { maxlength: "60" })),
      h("button", { class: "first" }, "Add the peer"),
    );
    this.asking = h(
      "form",
      { "aria-label": "Ask whether a request is trusted", onsubmit: (event) => { event.preventDefault(); this.ask(event.target); } },
      field("Is a request trusted from", text("source", { required: true, placeholder: "192.0.2.7" })),
      field("over", transport(TRANSPORTS)),
      field("with From URI", text("from", { placeholder: "sip:alice@example.com" })),
      field("and request URI", text("ruri", { placeholder: "sip:bob@example.com" })),
      h("button", {}, "Ask"),
    );
    this.read();
  }

  async read() {
    try {
      this.list = await this.page.session.get(PEERS);
      this.error = null;
    } catch (error) {
      this.error = error;
    }
    this.changed();
  }

  async add(form) {
    const { author, priority, ...texts } = Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, value.trim()]));
    const given = Object.entries(texts).filter(([, value]) => value !== "");
    const row = { ...Object.fromEntries(given), priority: Number(priority) };
    const query = author ? `?${new URLSearchParams({ author })}` : "";
    const isDone = await this.page.run(async () => {
      const added = await this.page.session.change("POST", PEERS + query, JSON.stringify(row), "application/json");
      return [`Added ${added.source} to the trusted peers`, added.warning].filter(Boolean).join(". ");
    });
    if (isDone) for (const name of ["source", "from_pattern", "ruri_pattern", "tag"]) form.elements[name].value = "";
    await this.read();
  }

  async remove({ source }) {
    if (!(await ask("Remove the peer?", `Requests of ${source} are not trusted any more, on every host on this database.`, "Remove"))) return;
    await this.page.run(async () => {
      const done = await this.page.session.change("DELETE", `${PEERS}?${new URLSearchParams({ source })}`);
      return `Removed ${done.removed === 1 ? "1 row" : `${count(done.removed)} rows`}: ${source}`;
    });
    await this.read();
  }

  async ask(form) {
    const query = new URLSearchParams([...new FormData(form)].map(([name, value]) => [name, value.trim()]));
    await this.page.run(async () => {
      this.answer = { source: query.get("source"), ...(await this.page.session.get(`${MATCH}?${query}`)) };
    });
    this.changed();
  }

  /** What is shown of the rows; the forms are shown by the caller. */
  rows() {
    if (this.error) return h("p", { class: "error", role: "alert" }, this.error.message);
    if (!this.list) return null;
    const canRemove = this.page.session.has("DELETE", PEERS);
    const pattern = (title, name) => ({ title, kind: "mono", cell: (row) => row[name] ?? "any" });
    const columns = [
      { title: "source", kind: "short mono", cell: (row) => row.source ?? "–" },
      { title: "transport", cell: (row) => row.proto ?? "–" },
      pattern("From", "from_pattern"),
      pattern("Request-URI", "ruri_pattern"),
      { title: "tag", cell: (row) => row.tag ?? "–" },
      { title: "priority", kind: "number", cell: (row) => row.priority ?? "–" },
      ...(canRemove ? [{ title: "", kind: "short", cell: (row) => button("Remove", () => this.remove(row), { "aria-label": `Remove ${row.source} from the trusted peers` }) }] : []),
    ];
    const shown = this.list.slice(0, SHOWN);
    const all = `${count(this.list.length)} stored ${this.list.length === 1 ? "peer" : "peers"}`;
    const caption = shown.length < this.list.length ? `The first ${SHOWN} of ${all}` : all;
    return table(caption, columns, shown, { nothing: "No peer.", key: (row) => `${row.id} ${row.source}` });
  }

  /** What the host says about a request. */
  found() {
    if (!this.answer) return null;
    const { source, is_trusted: isTrusted, tags } = this.answer;
    const rows = tags.length === 1 ? "1 row does" : `${count(tags.length)} rows do`;
    const named = tags.filter(Boolean).join(", ");
    const said = isTrusted ? `This request of ${source} is trusted: ${rows}${named && `, with tag ${named}`}.` : `This request of ${source} is not trusted.`;
    return h("p", { role: "status" }, h("strong", { class: isTrusted ? "good" : "warn" }, said));
  }

  get isWritable() {
    return this.list !== null && this.page.session.has("POST", PEERS);
  }
}
