// The policies of a seat: what is active, trials, generations, and the upload of a file.

import { ask, badge, button, choice, count, duration, facts, field, h, keep, table, time } from "./dom.js";
import { failed, failureOf, follow, title } from "./overview.js";
import { Settings } from "./settings.js";
import { TryMessage } from "./try.js";

export const policies = { id: "policies", title: "Policies", isShown: () => true, open };

const SHARES = ["1%", "5%", "25%", "50%"];

function open(page) {
  const { session } = page;
  const seat = session.tenant ?? page.rest[0] ?? "default";
  const path = `/v1/policies/${encodeURIComponent(seat)}`;
  const read = async () => {
    const [status, generations, list] = await Promise.all([
      session.get(path),
      session.get(`${path}/generations`),
      session.isOperator ? session.get("/v1/tenants") : null,
    ]);
    const isCompared = candidate(status)?.kind === "shadow" && generations.some(({ role, calls }) => role === "candidate" && calls > 0);
    const diff = isCompared ? await session.get(`${path}/candidate`).catch(() => null) : null;
    return { status, generations, list, diff };
  };
  const act = async (method, operation, done) => {
    await page.run(async () => {
      const changed = await session.change(method, `${path}/${operation}`);
      return [done, changed.warning].filter(Boolean).join(". ");
    });
    await followed.again();
  };
  const send = new Upload(page, path, () => followed.again());
  const trying = session.has("POST", "/v1/policies/{seat}/try") && new TryMessage(page, path);
  const settings = Settings.isShown(session) && new Settings(page, seat);
  const show = (state) => {
    if (state.error) return page.show(title("Policies"), failed(state.error));
    page.show(
      title(`Policies of ${seat}`, state.list && seats(state.list, seat)),
      h("div", { class: "columns" }, inUse(state.status, state.generations, act), trial(state.status, state.diff, act)),
      differences(state.diff),
      list(state.generations, page, path, act),
      send.form(),
      settings && settings.form(),
      trying && trying.form(),
    );
  };
  const followed = follow(page, read, show, 3000);
  return followed.end;
}

function seats(list, seat) {
  const names = [...new Set([seat, ...list.map(({ name }) => name)])].sort();
  const go = (event) => { location.hash = `#/policies/${encodeURIComponent(event.target.value)}`; };
  return field("Seat", choice("seat", names.map((name) => [name, name, name === seat]), go));
}

/** "2 (canary 5%)" in parts. */
function candidate(status) {
  const [, generation, kind, share] = /^(\d+) \((shadow|canary)(?: (.+))?\)$/.exec(status.candidate ?? "") ?? [];
  return generation && { generation: Number(generation), kind, share };
}

function inUse(status, generations, act) {
  const [trying, active] = [candidate(status), status.generation];
  const rollBack = async () => {
    const yes = await ask("Roll back?", `Generation ${status.previous} becomes active instead of generation ${active}, for all workers at once.`, "Roll back");
    if (yes) await act("POST", "rollback", `Rolled back to generation ${status.previous}`);
  };
  const isMonitor = status.mode === "monitor";
  const switchMode = async () => {
    const [question, text, yes] = isMonitor
      ? ["Enforce?", "The verdicts of the policy will be carried out.", "Enforce"]
      : ["Monitor only?", "Verdicts will be logged and counted, and requests will be handled as if the seat had no policy.", "Monitor"];
    const mode = isMonitor ? "enforce" : "monitor";
    if (await ask(question, text, yes)) await act("PUT", `mode?mode=${mode}`, `Mode: ${mode}`);
  };
  const named = generations.find(({ generation }) => generation === active);
  // A rollback to what was taken out of service would bring the failures back.
  const hasFailed = generations.some(({ generation, role }) => generation === status.previous && role === "failed");
  return h(
    "section",
    { class: "panel" },
    h("h2", {}, "Active"),
    active ? share(trying, active) : h("p", { class: "nothing" }, "No policy is active. Requests get the default verdict."),
    facts([
      ["active", active && h("span", {}, h("strong", {}, `generation ${active}`), `, ${status.name}`)],
      ["since", active && time(status.loaded_at)],
      ["by", named?.author],
      ["mode", isMonitor ? badge("monitor", "warn") : status.mode],
      ["previous", status.previous && `generation ${status.previous}${hasFailed ? ", which has failed" : ""}`],
      ["calls", active && `${count(status.calls)}, ${duration(status.mean_ns)} on average`],
      ["failed calls", h("span", { class: status.failed_calls > 0 && "bad" }, count(status.failed_calls))],
      ["last failure", failureOf(status)],
      ["alert", status.alert && h("span", { class: "bad" }, status.alert)],
      ["last error", status.error && h("span", { class: "bad" }, status.error)],
    ]),
    h(
      "p",
      { class: "actions" },
      status.previous && !hasFailed && button(`Roll back to generation ${status.previous}`, rollBack, { class: "danger" }),
      button(isMonitor ? "Enforce verdicts" : "Monitor only", switchMode),
    ),
  );
}

/** How the dialogs are shared between the active generation and a canary. */
function share(trying, active) {
  const canary = trying?.kind === "canary" ? parseFloat(trying.share) : 0;
  const label = canary ? `generation ${active}: ${100 - canary} % of the dialogs; generation ${trying.generation}: ${canary} %` : `generation ${active}: all dialogs`;
  return h(
    "svg",
    { class: "share", role: "img", "aria-label": label },
    h("rect", { class: "active", width: `${100 - canary}%`, height: "100%" }),
    h("rect", { class: "canary", x: `${100 - canary}%`, width: `${canary}%`, height: "100%" }),
  );
}

function trial(status, diff, act) {
  const trying = candidate(status);
  if (!trying) {
    const how = "A generation that is kept can be tried beside the active one: as a shadow, whose verdicts are only compared, or as a canary, which decides on a share of the dialogs.";
    return h("section", { class: "panel" }, h("h2", {}, "Trial"), h("p", { class: "nothing" }, how));
  }
  const { generation, kind } = trying;
  const step = (of) => button(of, () => act("POST", `canary?generation=${generation}&share=${encodeURIComponent(of)}`, `Generation ${generation} decides on ${of} of the dialogs`), { disabled: trying.share === of });
  const activate = async () => {
    if (await ask(`Activate generation ${generation}?`, "It decides on all requests of the seat, for all workers at once.", "Activate")) {
      await act("POST", `activate?generation=${generation}`, `Generation ${generation} is active`);
    }
  };
  return h(
    "section",
    { class: "panel" },
    h("h2", {}, "Trial: ", h("span", { class: "warn" }, `generation ${generation}, ${kind}${trying.share ? ` ${trying.share}` : ""}`)),
    compared(diff, kind),
    h("p", { class: "actions" }, h("span", { class: "muted" }, "Canary"), SHARES.map(step)),
    h(
      "p",
      { class: "actions" },
      button("Activate", activate, { class: "first" }),
      button("End the trial", () => act("DELETE", "candidate", "The trial has ended")),
    ),
  );
}

function compared(diff, kind) {
  if (kind === "canary") return h("p", { class: "muted" }, "A canary decides on its share of the dialogs: its verdicts are in the list of generations.");
  if (!diff) return h("p", { class: "nothing" }, "There has been no request since the trial began.");
  const left = diff.not_compared > 0 && `; ${count(diff.not_compared)} were not compared`;
  return h("p", {}, h("strong", { class: diff.different ? "warn" : "good" }, `${count(diff.different)} of ${count(diff.same + diff.different)} verdicts differ`), left);
}

/** The last requests on which a shadow would have decided otherwise; false if there are none. */
function differences(diff) {
  if (!diff?.samples.length) return false;
  const columns = [
    { title: "time", kind: "short", cell: (row) => time(row.at) },
    { title: "source", kind: "short mono", cell: (row) => row.source },
    { title: "active", cell: (row) => row.active },
    { title: "candidate", cell: (row) => row.candidate },
    { title: "request", kind: "wide mono", cell: request },
  ];
  // Numbers of the differences, so that a row that is open stays open when others come.
  const first = diff.different - diff.samples.length;
  const rows = diff.samples.map((row, at) => ({ ...row, number: first + at })).reverse();
  const shown = table("The last differences, the newest first", columns, rows, { key: (row) => String(row.number) });
  return h("section", { class: "panel", "data-key": "differences" }, h("h2", {}, "Differences"), shown);
}

function request(row) {
  const [line, ...rest] = row.request.trimEnd().split(/\r?\n/);
  return h("details", {}, h("summary", {}, line.replace(/ SIP\/2.0$/, "")), h("pre", {}, rest.join("\n")));
}

function list(generations, page, path, act) {
  const inTrial = (row) => row.role === "candidate";
  const isActive = (row) => row.role === "active";
  const activate = async ({ generation }) => {
    if (await ask(`Activate generation ${generation}?`, "It decides on all requests of the seat, for all workers at once.", "Activate")) {
      await act("POST", `activate?generation=${generation}`, `Generation ${generation} is active`);
    }
  };
  const download = ({ generation, name }) =>
    page.run(async () => {
      const url = URL.createObjectURL(await page.session.blob(`${path}/generations/${generation}`));
      h("a", { href: url, download: name }).click();
      URL.revokeObjectURL(url);
    });
  const named = (text, row) => ({ "aria-label": `${text} generation ${row.generation}` });
  const actions = (row) =>
    h(
      "div",
      { class: "actions" },
      button("Activate", () => activate(row), { ...named("Activate", row), disabled: isActive(row) }),
      button("Shadow", () => act("POST", `shadow?generation=${row.generation}`, `Generation ${row.generation} is a shadow`), { ...named("Shadow", row), disabled: isActive(row) || inTrial(row) }),
      button("Canary 5%", () => act("POST", `canary?generation=${row.generation}&share=5%25`, `Generation ${row.generation} decides on 5% of the dialogs`), { ...named("Canary 5% with", row), disabled: isActive(row) || inTrial(row) }),
      button("Download", () => download(row), named("Download", row)),
    );
  // A stored generation has no statistics: no worker has it.
  const number = (title) => ({ title, kind: "number", cell: (row) => (row[title] === undefined ? "–" : count(row[title])) });
  const kinds = { active: "good", candidate: "warn", failed: "bad" };
  const columns = [
    { title: "generation", kind: "number", cell: (row) => String(row.generation) },
    { title: "role", cell: (row) => badge(row.trial ?? row.role, kinds[row.role]) },
    { title: "name, digest, note", cell: (row) => [row.name, h("span", { class: "under" }, h("code", { title: row.digest }, digest(row)), row.note ? ` ${row.note}` : "")] },
    { title: "loaded, by", kind: "short", cell: (row) => [time(row.loaded_at), h("span", { class: "under" }, row.author || "–")] },
    { title: "", kind: "short", cell: actions },
    number("calls"),
    number("relay"),
    number("reject"),
    number("drop"),
    number("pass"),
    { title: "failures", cell: (row) => (row.failures?.length ? h("span", { class: "bad" }, row.failures.join(", ")) : row.failures ? "0" : "–") },
    { title: "mean", kind: "number", cell: (row) => duration(row.mean_ns) },
  ];
  const rows = [...generations].reverse();
  return h(
    "section",
    { class: "panel" },
    h("h2", {}, "Generations"),
    table("The newest first", columns, rows, { key: (row) => String(row.generation), nothing: "No policy has been pushed to this seat.", chosen: isActive }),
  );
}

const digest = (row) => row.digest.replace("sha256:", "").slice(0, 12);

/** A file that is chosen, shown, and pushed. */
class Upload {
  constructor(page, path, done) {
    Object.assign(this, { page, path, done, file: null, seen: null });
    this.input = h("input", { type: "file", name: "file", accept: ".wasm,application/wasm", onchange: () => this.take(this.input.files[0]) });
    this.shown = h("div", {});
    this.whole = this.make();
  }

  form() {
    return keep(this.whole);
  }

  make() {
    const arrivals = [
      ["keep", "check and keep"],
      ["shadow", "start a shadow trial"],
      ["canary", "start a canary trial with 5%"],
      ["activate", "activate"],
    ];
    const arrival = ([value, text]) => h("label", { class: "choice" }, h("input", { type: "radio", name: "arrival", value, checked: value === "keep" }), text);
    const drop = (event) => {
      event.preventDefault();
      this.zone.classList.remove("over");
      if (event.type === "drop") this.take(event.dataTransfer.files[0]);
      if (event.type === "dragover") this.zone.classList.add("over");
    };
    this.zone = h("div", { class: "drop", ondrop: drop, ondragover: drop, ondragleave: drop }, field("A .wasm file; it can be dropped here", this.input), this.shown);
    this.submit = h("button", { class: "first", disabled: true }, "Upload");
    const author = this.page.session.isOperator || this.page.session.tenant;
    const all = h(
      "form",
      { onsubmit: (event) => { event.preventDefault(); this.push(new FormData(event.target)); } },
      this.zone,
      author && field("Author", h("input", { name: "author", maxlength: "60" })),
      field("Note", h("input", { name: "note", maxlength: "200" }), { class: "grow" }),
      h("fieldset", {}, h("legend", {}, "Then"), h("div", {}, arrivals.map(arrival))),
      this.submit,
    );
    const how = "The host validates and compiles the file, and tests it with one request, before it is used.";
    return h("section", { class: "panel" }, h("h2", {}, "Upload"), all, h("p", { class: "muted" }, how));
  }

  async take(file) {
    this.file = file ?? null;
    this.submit.disabled = !file;
    if (!file) return this.shown.replaceChildren();
    const seen = inspect(new Uint8Array(await file.arrayBuffer()));
    this.shown.replaceChildren(
      facts([
        ["file", `${file.name}, ${count(file.size)} bytes`],
        ["kind", seen.kind],
        ["made by", seen.makers.join(", ")],
        ["memory", seen.memory],
        ["imports", seen.imports.join(", ")],
        ["exports", seen.exports.join(", ")],
        ["problem", seen.problem && h("span", { class: "bad" }, seen.problem)],
      ]),
    );
  }

  async push(form) {
    const query = new URLSearchParams({ name: this.file.name, arrival: form.get("arrival") });
    for (const name of ["author", "note"]) if (form.get(name)) query.set(name, form.get(name));
    if (form.get("arrival") === "canary") query.set("share", "5%");
    if (form.get("arrival") === "activate" && !(await ask("Activate at once?", "The policy decides on all requests of the seat as soon as it has been checked.", "Activate"))) return;
    this.submit.disabled = true;
    const isDone = await this.page.run(async () => {
      const pushed = await this.page.session.change("POST", `${this.path}?${query}`, this.file, "application/wasm");
      return [`Generation ${pushed.generation}: ${pushed.arrival}`, pushed.warning].filter(Boolean).join(". ");
    });
    this.submit.disabled = !this.file;
    if (isDone) {
      this.input.value = "";
      await this.take(null);
    }
    await this.done();
  }
}

/** What a file says about itself, without asking the host: kind, imports, exports, memory, producers. */
export function inspect(bytes) {
  const seen = { kind: null, imports: [], exports: [], memory: null, makers: [], problem: null };
  if (String.fromCharCode(...bytes.subarray(0, 4)) !== "\0asm") return { ...seen, problem: "The file is not WebAssembly." };
  if (bytes[6] !== 0) return { ...seen, kind: "component" };
  seen.kind = "core module";
  try {
    const file = new Reader(bytes, 8, bytes.length);
    while (!file.isAtEnd()) {
      const id = file.byte();
      const section = file.part(file.number());
      if (id === 0 && section.name() === "producers") producers(section, seen);
      if (id === 2) imports(section, seen);
      if (id === 5 && section.number() > 0) memory(section, seen);
      if (id === 7) exports(section, seen);
    }
  } catch {
    seen.problem = "The file is damaged: a section ends too early.";
  }
  return seen;
}

class Reader {
  constructor(bytes, at, end) {
    Object.assign(this, { bytes, at, end });
  }

  isAtEnd() {
    return this.at >= this.end;
  }

  byte() {
    if (this.isAtEnd()) throw new RangeError();
    return this.bytes[this.at++];
  }

  /** LEB128, unsigned, of up to 32 bits. */
  number() {
    let [value, shift] = [0, 1];
    for (;;) {
      const byte = this.byte();
      value += (byte & 127) * shift;
      shift *= 128;
      if (byte < 128) return value;
      if (shift > 2 ** 35) throw new RangeError();
    }
  }

  part(length) {
    if (this.at + length > this.end) throw new RangeError();
    const part = new Reader(this.bytes, this.at, this.at + length);
    this.at += length;
    return part;
  }

  name() {
    const { at, end } = this.part(this.number());
    return new TextDecoder().decode(this.bytes.subarray(at, end));
  }
}

function imports(section, seen) {
  const modules = new Map();
  for (let left = section.number(); left > 0; left--) {
    const [module, name, kind] = [section.name(), section.name(), section.byte()];
    modules.set(module, [...(modules.get(module) ?? []), name]);
    if (kind === 0) section.number();
    else if (kind === 1) { section.byte(); limits(section); }
    else if (kind === 2) limits(section);
    else if (kind === 3) { section.byte(); section.byte(); }
    else { section.byte(); section.number(); }
  }
  seen.imports = [...modules].map(([module, names]) => `${module} (${names.join(", ")})`);
}

function limits(section) {
  const flags = section.byte();
  const least = section.number();
  return [least, flags & 1 ? section.number() : null];
}

function memory(section, seen) {
  const [least, most] = limits(section);
  seen.memory = `${count(least * 64)} KiB at first${most === null ? "" : `, at most ${count(most * 64)} KiB`}`;
}

function exports(section, seen) {
  for (let left = section.number(); left > 0; left--) {
    seen.exports.push(section.name());
    section.byte();
    section.number();
  }
}

function producers(section, seen) {
  for (let fields = section.number(); fields > 0; fields--) {
    section.name();
    for (let left = section.number(); left > 0; left--) seen.makers.push(`${section.name()} ${section.name()}`.trim());
  }
}
