// Messages or decisions as they are made.

import { badge, button, choice, count, duration, field, h, table, update } from "./dom.js";
import { title } from "./overview.js";

const DECISIONS = "/v1/policies/{seat}/decisions";
const TRACE = "/v1/trace";
/** Most rows in the page. */
const KEPT = 200;
const PAINT = 250;

export const live = {
  id: "live",
  title: "Live",
  isShown: (session) => session.has("GET", DECISIONS) || (session.isOperator && session.has("GET", TRACE)),
  open,
};

function open(page) {
  const followed = new Followed(page);
  followed.show();
  return () => followed.stop();
}

class Followed {
  constructor(page) {
    Object.assign(this, { page, rows: [], leftOut: 0, chosen: null, stopper: null, error: null, number: 0 });
    const { session } = page;
    const outcomes = ["relayed", "returned", "answered", "rejected", "absorbed", "dropped", "undelivered"];
    const isOfDecisions = session.has("GET", DECISIONS);
    const what = [
      ...(session.isOperator ? [["", "all messages"]] : []),
      ...(isOfDecisions ? (session.isOperator ? [["default", "decisions of default"]] : [[session.tenant, "decisions"]]) : []),
    ];
    this.what = choice("what", what, () => this.arrange());
    this.outcome = field("Outcome", choice("outcome", [["", "any"], ...outcomes.map((one) => [one, one])]));
    this.verdict = field("Verdict", choice("verdict", [["", "any"], ...["relay", "reject", "drop", "pass", "failed"].map((one) => [one, one])]));
    const text = (name, size) => h("input", { name, size, spellcheck: "false", autocomplete: "off" });
    this.tenant = field("Tenant", text("tenant", 10));
    this.form = h(
      "form",
      { onsubmit: (event) => { event.preventDefault(); this.start(); } },
      what.length > 1 && field("Show", this.what),
      this.outcome,
      this.verdict,
      session.isOperator && this.tenant,
      field("Source", text("source", 16)),
      field("Method", text("method", 9)),
      field("Call-ID", text("call_id", 16)),
      field("From, user", text("from", 8)),
      field("To, user", text("to", 8)),
      field("Code", text("code", 4)),
      h("button", { class: "first" }, "Start"),
    );
    this.pause = button("Pause", () => this.toggle(), { disabled: true });
    this.clear = button("Clear", () => this.forget());
    this.state = h("span", { class: "muted", role: "status" }, "not started");
    this.list = h("div", {});
    this.arrange();
    if (session.isOperator && isOfDecisions) this.addSeats();
  }

  async addSeats() {
    const list = await this.page.session.get("/v1/tenants").catch(() => []);
    const names = list.map(({ name }) => name).filter((name) => name !== "default");
    this.what.append(...names.map((name) => h("option", { value: name }, `decisions of ${name}`)));
  }

  show() {
    this.page.show(title("Live", this.state, this.pause, this.clear), h("section", { class: "panel", "data-key": "filters" }, this.form), this.list);
    this.paint();
  }

  /** Shows the filters that apply. */
  arrange() {
    const isTrace = this.what.value === "";
    this.outcome.hidden = !isTrace;
    this.tenant.hidden = !isTrace;
    this.verdict.hidden = isTrace;
  }

  async start() {
    this.stop();
    this.forget();
    const seat = this.what.value;
    const skipped = seat ? ["what", "outcome", "tenant"] : ["what", "verdict"];
    const given = [...new FormData(this.form)].map(([name, value]) => [name, value.trim()]);
    const query = new URLSearchParams(given.filter(([name, value]) => value && !skipped.includes(name)));
    const path = seat ? DECISIONS.replace("{seat}", encodeURIComponent(seat)) : TRACE;
    const stopper = new AbortController();
    this.stopper = stopper;
    this.isPaused = false;
    this.error = null;
    this.pause.disabled = false;
    this.tell();
    try {
      let event = "";
      for await (const line of this.page.session.lines(`${path}?${query}`, stopper.signal)) {
        if (line.startsWith("event: ")) event = line.slice(7);
        const data = line.startsWith("data: ") ? line.slice(6) : line;
        if (data.startsWith("{")) this.take(JSON.parse(data), event);
      }
      this.error = "The host has ended the stream.";
    } catch (error) {
      if (stopper.signal.aborted) return;
      this.error = error.message;
    }
    if (this.stopper === stopper) this.stopper = null;
    this.pause.disabled = true;
    this.tell();
    this.paint();
  }

  take(entry) {
    if (typeof entry.left_out === "number") this.leftOut += entry.left_out;
    else if (this.isPaused) this.leftOut += 1;
    else this.rows = [{ ...entry, number: ++this.number }, ...this.rows].slice(0, KEPT);
    this.timer ??= setTimeout(() => {
      this.timer = null;
      this.tell();
      this.paint();
    }, PAINT);
  }

  toggle() {
    this.isPaused = !this.isPaused;
    this.pause.textContent = this.isPaused ? "Continue" : "Pause";
    this.tell();
  }

  forget() {
    Object.assign(this, { rows: [], leftOut: 0, chosen: null });
    this.paint();
  }

  stop() {
    this.stopper?.abort();
    this.stopper = null;
    clearTimeout(this.timer);
    this.timer = null;
    this.pause.textContent = "Pause";
  }

  tell() {
    const state = !this.stopper ? "stopped" : this.isPaused ? "paused" : "running";
    const left = this.leftOut > 0 ? `, ${count(this.leftOut)} left out` : "";
    this.state.textContent = state + left;
  }

  paint() {
    const error = this.error && h("p", { class: "error", role: "alert" }, this.error);
    const nothing = this.stopper ? "Nothing yet. Rows appear here as messages come." : "Start shows what the host does from now on.";
    const columns = [
      { title: "", kind: "short", cell: (row) => this.more(row) },
      { title: "time", kind: "short mono", cell: (row) => row.time.slice(11, 23) },
      { title: "source", kind: "short mono", cell: (row) => row.source ?? "–" },
      { title: "message", kind: "wide mono", cell: (row) => row.first_line.replace(/ SIP\/2.0$/, "") },
      { title: "tenant", cell: (row) => row.tenant ?? "–" },
      { title: "policy", kind: "short", cell: (row) => calls(row) },
      { title: "outcome", kind: "short", cell: (row) => [badge(row.outcome, KINDS[row.outcome]), row.code ? ` ${row.code}` : "", why(row)] },
    ];
    const isChosen = (row) => row.number === this.chosen;
    const shown = table("The newest first", columns, this.rows, { key: (row) => String(row.number), nothing, chosen: isChosen, detail });
    update(this.list, [error, shown]);
  }

  more(row) {
    const isChosen = row.number === this.chosen;
    const choose = () => {
      this.chosen = isChosen ? null : row.number;
      this.paint();
    };
    return button(isChosen ? "Less" : "More", choose, { "aria-expanded": String(isChosen), "aria-label": `${isChosen ? "Less" : "More"} of ${row.first_line}` });
  }
}

const KINDS = { relayed: "good", rejected: "warn", dropped: "bad", undelivered: "bad" };

/** Why the host has not done what the policy said. */
function why(row) {
  const isOdd = ["rejected", "dropped", "undelivered"].includes(row.outcome) && row.cause && row.cause !== "policy";
  return isOdd && h("span", { class: "under" }, row.cause.replaceAll("_", " "));
}

/** A message has a list of policy calls; a decision is one. */
function callsOf(row) {
  return row.asked ?? [{ seat: row.seat, generation: row.generation, verdict: row.verdict, microseconds: row.microseconds, policy: row.policy }];
}

function calls(row) {
  const all = callsOf(row);
  if (all.length === 0) return "–";
  return all.map((call) => h("div", {}, `${call.seat} ${call.generation}: ${call.verdict}, `, h("span", { class: "muted" }, duration(call.microseconds * 1000))));
}

function detail(row) {
  const names = ["time", "source", "local", "transport", "first_line", "from", "to", "call_id", "cseq", "tenant", "outcome", "code", "reason", "cause", "detail", "next", "decision"];
  const shown = names.filter((name) => row[name] !== null && row[name] !== undefined);
  const asked = callsOf(row).map((call) => [h("dt", {}, `policy of ${call.seat}`), h("dd", {}, `${call.policy}, generation ${call.generation}: ${call.verdict}, ${call.microseconds} µs`)]);
  return h("dl", { class: "facts" }, shown.map((name) => [h("dt", {}, name.replace("_", " ")), h("dd", { class: "mono" }, String(row[name]))]), asked);
}
