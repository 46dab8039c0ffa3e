// A message to try: what a policy would decide on it, and why. Nothing is sent.

import { button, choice, count, facts, field, h, keep, table } from "./dom.js";

const EXAMPLE = [
  "INVITE sip:bob@example.com SIP/2.0",
  "Via: SIP/2.0/UDP 192.0.2.7:5060;branch=z9hG4bKtry",
  "Max-Forwards: 70",
  "From: <sip:alice@example.com>;tag=1",
  "To: <sip:bob@example.com>",
  "Call-ID: try-1",
  "CSeq: 1 INVITE",
  "Content-Length: 0",
  "",
].join("\n");

const KINDS = { relay: "good", pass: "muted", reject: "warn", drop: "warn", failure: "bad" };

/** A form that stays as it is while the page is shown again, with the last result below. */
export class TryMessage {
  constructor(page, path) {
    Object.assign(this, { page, path });
    this.shown = h("div", { "aria-live": "polite" });
    this.whole = this.make();
  }

  form() {
    return keep(this.whole);
  }

  make() {
    const transports = choice("transport", ["udp", "tcp", "tls", "ws", "wss"].map((one) => [one, one.toUpperCase(), one === "udp"]));
    this.submit = h("button", { class: "first" }, "Try");
    const message = h("textarea", { name: "message", rows: "10", class: "code", spellcheck: "false", required: true });
    message.value = EXAMPLE;
    const form = h(
      "form",
      { onsubmit: (event) => { event.preventDefault(); this.ask(new FormData(event.target)); } },
      field("Message", message, { class: "whole" }),
      field("Received from", h("input", { name: "source", value: "192.0.2.7:5060", required: true, spellcheck: "false" })),
      field("Transport", transports),
      field("Generation", h("input", { name: "generation", inputmode: "numeric", pattern: "[0-9]*", placeholder: "active" })),
      field("Another policy", h("input", { type: "file", name: "policy", accept: ".wasm,application/wasm" })),
      this.submit,
      button("Clear the result", () => this.shown.replaceChildren()),
    );
    const how = "The policy is asked with the tables and settings of this host. Nothing is sent, kept or counted; counters of the policy begin empty.";
    return h("section", { class: "panel" }, h("h2", {}, "Try a message"), form, h("p", { class: "muted" }, how), this.shown);
  }

  async ask(form) {
    const given = { message: form.get("message"), source: form.get("source").trim(), transport: form.get("transport") };
    if (form.get("generation")) given.generation = Number(form.get("generation"));
    const file = form.get("policy");
    if (file?.size) given.policy = await base64(file);
    this.submit.disabled = true;
    try {
      this.show(await this.page.session.change("POST", `${this.path}/try`, JSON.stringify(given), "application/json"));
    } catch (error) {
      this.shown.replaceChildren(h("p", { class: "error", role: "alert" }, error.message));
    }
    this.submit.disabled = false;
  }

  show(tried) {
    const which = tried.generation === null ? "the file" : `generation ${tried.generation}`;
    const columns = [
      { title: "question", kind: "mono", cell: ({ function: name, arguments: given }) => `${name}(${given.map((one) => JSON.stringify(one)).join(", ")})` },
      { title: "answer", kind: "mono", cell: ({ answer }) => JSON.stringify(answer) },
      { title: "why", kind: "wide", cell: ({ reason }) => reason ?? "–" },
    ];
    const header = ({ name, value }) => h("div", { class: "mono" }, `${name}: ${value}`);
    const parts = [
      h("h3", { class: KINDS[tried.verdict] }, tried.verdict ? tried.decided : tried.not_called),
      facts([
        ["request", `${tried.method} ${tried.uri} from ${tried.source} over ${tried.transport}`],
        ["asked", tried.verdict && which],
        ["targets", tried.targets.join(", ")],
        ["added", tried.headers.length > 0 && tried.headers.map(header)],
        ["removed", tried.removed.join(", ")],
        ["failure", tried.failure && h("span", { class: "bad" }, tried.failure.kind)],
        ["log", tried.log.length > 0 && tried.log.map((line) => h("div", { class: "mono" }, line))],
        ["cost", tried.fuel !== null && `fuel ${count(tried.fuel)}, ${count(tried.microseconds)} µs with a new instance`],
      ].map(([name, value]) => [name, value || null])),
      tried.verdict && table("Questions of the policy", columns, tried.asked, { nothing: "The policy has asked nothing." }),
      tried.is_cut && h("p", { class: "muted" }, "… and more, which are not listed."),
    ];
    this.shown.replaceChildren(...parts.filter(Boolean));
  }
}

async function base64(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const parts = [];
  for (let at = 0; at < bytes.length; at += 32768) parts.push(String.fromCharCode(...bytes.subarray(at, at + 32768)));
  return btoa(parts.join(""));
}
