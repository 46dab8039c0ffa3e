// The settings that the policies of a seat read: shown when asked for, and replaced.

import { button, field, h, keep } from "./dom.js";

const SETTINGS = "/v1/policies/{seat}/settings";
const SELF = "/v1/tenants/self";

/** The parts of a text in JSON: numbers stay as they are written, which a browser would change (1.0, 12345678901234567890). */
const PARTS = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s{}[\],:"]+/g;

/** A form that stays as it is while the page is shown again. */
export class Settings {
  constructor(page, seat) {
    Object.assign(this, { page, tag: null, path: SETTINGS.replace("{seat}", encodeURIComponent(seat)) });
    this.shown = h("div", {});
    this.whole = h("section", { class: "panel" }, h("h2", {}, "Settings"), this.shown);
    this.close();
  }

  static isShown = (session) => session.has("GET", SETTINGS);

  form() {
    return keep(this.whole);
  }

  close() {
    const how = "What the policies of this seat read, without a new file. Settings may contain passwords and keys; the audit says who has read them.";
    this.shown.replaceChildren(h("p", { class: "muted" }, how), h("p", { class: "actions" }, button("Show the settings", () => this.read())));
  }

  /** Reads the settings and shows them. They are not read again while they are edited. */
  async read() {
    await this.page.run(async () => {
      const { session } = this.page;
      const { text, tag } = await session.tagged(this.path);
      const { origin } = JSON.parse(text);
      const self = !session.isOperator && session.has("GET", SELF) ? await session.get(SELF) : null;
      this.tag = tag;
      this.show(written(ofSettings(text)), refusal(session, origin, self));
    });
  }

  show(text, reason) {
    const area = h("textarea", { name: "settings", rows: String(Math.min(24, Math.max(4, text.split("\n").length + 1))), class: "code", spellcheck: "false", readonly: Boolean(reason) });
    area.value = text;
    const author = h("input", { name: "author", maxlength: "60", autocomplete: "off" });
    const refused = h("p", { class: "error", role: "alert" });
    const save = async (event) => {
      event.preventDefault();
      refused.textContent = "";
      await this.save(area.value, author.value.trim(), refused);
    };
    this.shown.replaceChildren(
      h(
        "form",
        { onsubmit: save },
        h("label", { class: "full" }, h("span", {}, reason ? "The settings" : "All settings, in JSON"), area),
        refused,
        !reason && field("Author", author),
        !reason && h("button", { class: "first" }, "Check and store"),
        button("Read again", () => this.read()),
        button("Close", () => this.close()),
      ),
      h("p", { class: "muted" }, reason ?? "The host stores them only if the policies in use accept them, on all hosts of the database."),
    );
    area.focus();
  }

  async save(text, author, refused) {
    const problem = problemOf(text);
    if (problem) {
      refused.textContent = problem;
      return;
    }
    const query = author ? `?author=${encodeURIComponent(author)}` : "";
    try {
      // The text itself is sent: it is one object in JSON.
      const changed = await this.page.session.change("PUT", this.path + query, `{"settings": ${text}}`, "application/json", this.tag);
      const state = changed.live_on_all_workers ? "all workers use them" : "not all workers use them yet";
      await this.page.run(async () => `The settings of ${changed.seat} are stored; ${state}`);
    } catch (error) {
      refused.textContent = error.status === 412 ? "Somebody else has changed the settings since they were shown here. Copy your text, and read them again." : error.message;
      return;
    }
    await this.read();
  }
}

/** Why this user cannot change the settings here; null if nothing is known against it. */
function refusal(session, origin, self) {
  if (origin === "configuration") {
    return session.isOperator
      ? "They are in the configuration file of the host, and are changed there."
      : "They are in the configuration file of the host: its operator changes them there.";
  }
  if (!session.has("PUT", SETTINGS)) return "This host does not let them be changed over HTTP.";
  if (self && !self.limits.edit_settings) return "The operator changes them: this tenant has no `edit-settings`.";
  return null;
}

/** Why a text cannot be sent; null if it can. */
function problemOf(text) {
  let parsed;
  try {
    parsed = JSON.parse(text);
  } catch (error) {
    return `This is not JSON: ${error.message}`;
  }
  const isObject = typeof parsed === "object" && parsed !== null && !Array.isArray(parsed);
  return isObject ? null : 'Settings have names: write an object, such as {"limit": 5}.';
}

/** The parts of the member `settings` of an answer. */
function ofSettings(text) {
  const parts = text.match(PARTS) ?? [];
  let depth = 0;
  let begin = null;
  for (const [at, part] of parts.entries()) {
    if (depth === 1 && part === '"settings"' && parts[at + 1] === ":") begin = at + 2;
    if (part === "{" || part === "[") depth += 1;
    if (part === "}" || part === "]") depth -= 1;
    if (begin !== null && at >= begin && depth === 1) return parts.slice(begin, at + 1);
  }
  return ["{", "}"];
}

/** A value in JSON on several lines. */
function written(parts) {
  const lines = (depth) => `\n${"  ".repeat(depth)}`;
  let depth = 0;
  let text = "";
  for (const [at, part] of parts.entries()) {
    const isOpen = part === "{" || part === "[";
    const isClosed = part === "}" || part === "]";
    const wasOpen = ["{", "["].includes(parts[at - 1]);
    if (isClosed) depth -= 1;
    if ((isClosed && !wasOpen) || (!isClosed && wasOpen) || parts[at - 1] === ",") text += lines(depth);
    text += part === ":" ? ": " : part;
    if (isOpen) depth += 1;
  }
  return text;
}
