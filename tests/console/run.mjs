// The console in a real browser, against a host that the caller has started: flows of the operator and of a tenant.
//
// node run.mjs '{"url", "tables", "tablesSip", "gateway", "sip", "known", "unknown", "operator", "tenant", "secret", "other", "stored": {"operator", "tenant", "secret"}, "policies": {"observe", "acl"}, "modules", "pictures"}'
//
// Each flow has a browser context of its own, and must leave no error in the console and no violation of the page's policy.

import { strict as assert } from "node:assert";
import { createSocket } from "node:dgram";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const given = JSON.parse(process.argv[2]);
const modules = createRequire(given.modules);
const { chromium } = modules("playwright-core");
const axe = readFileSync(modules.resolve("axe-core/axe.min.js"), "utf8");

/** A limit that only a flow that fails reaches. */
const PATIENCE = 30000;
const WIDE = { width: 1280, height: 860 };
const NARROW = { width: 390, height: 844 };

/** Sends SIP requests from one address. */
class Caller {
  constructor(ip) {
    this.ip = ip;
    this.socket = createSocket("udp4");
    this.number = 0;
  }

  async begin() {
    await new Promise((resolve) => this.socket.bind(0, this.ip, resolve));
    return this;
  }

  /** Sends a request. */
  send(domain, method = "MESSAGE", user = "bob", host = given.sip) {
    const [ip, port] = host.split(":");
    const id = `${process.pid}-${this.ip}-${++this.number}`;
    const lines = [
      `${method} sip:${user}@${domain} SIP/2.0`,
      `Via: SIP/2.0/UDP ${this.ip}:${this.socket.address().port};branch=z9hG4bK${id}`,
      "Max-Forwards: 70",
      `From: <sip:alice@example.com>;tag=${id}`,
      `To: <sip:${user}@${domain}>`,
      `Call-ID: ${id}`,
      `CSeq: 1 ${method}`,
      "Content-Length: 0",
      "",
      "",
    ];
    this.socket.send(lines.join("\r\n"), Number(port), ip);
    return id;
  }
}

const known = await new Caller(given.known).begin();
const unknown = await new Caller(given.unknown).begin();

/** Sends requests for as long as `work` takes. */
async function under(traffic, work) {
  const timer = setInterval(traffic, 50);
  try {
    return await work();
  } finally {
    clearInterval(timer);
  }
}

async function signIn(page, token, name, url = given.url) {
  await page.goto(url);
  await page.getByLabel("Token").fill(token);
  await page.getByRole("button", { name: "Sign in" }).click();
  if (name) {
    const field = page.getByLabel("Name of the tenant");
    const heading = page.getByRole("heading", { name: "Overview" });
    await field.or(heading).waitFor();
    if (await field.isVisible()) {
      await field.fill(name);
      await page.getByRole("button", { name: "Sign in" }).click();
    }
  }
  await page.getByRole("heading", { level: 1, name: "Overview" }).waitFor();
}

const asOperator = (page, url) => signIn(page, given.operator, null, url);
const asTenant = (page, url) => signIn(page, given.secret, given.tenant, url);

async function view(page, name) {
  await page.getByRole("navigation").getByRole("link", { name, exact: true }).click();
  await page.locator("nav a[aria-current=page]", { hasText: name }).waitFor();
  await page.locator("main h1").waitFor();
}

async function seat(page, name) {
  await view(page, "Policies");
  await page.getByLabel("Seat").selectOption(name);
  await page.getByRole("heading", { level: 1, name: `Policies of ${name}` }).waitFor();
}

const said = (page, text) => page.getByRole("status").filter({ hasText: text }).first().waitFor();
const row = (page, text) => page.getByRole("row").filter({ hasText: text });
const agree = (page, name) => page.getByRole("dialog").getByRole("button", { name, exact: true }).click();

async function upload(page, file, arrival, said_) {
  await page.getByLabel("A .wasm file").setInputFiles(file);
  await page.locator("dl", { hasText: "core module" }).or(page.locator("dl", { hasText: "component" })).first().waitFor();
  await page.getByLabel("Note").fill(`ticket 4711: ${arrival}`);
  await page.getByRole("radio", { name: arrival, exact: true }).check();
  await page.getByRole("button", { name: "Upload" }).click();
  if (arrival === "activate") await agree(page, "Activate");
  await said(page, said_);
}

async function accessible(page, what) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run({ runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"] }));
  const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" | ")}`);
  assert.deepEqual(found, [], what);
}

async function fits(page, what) {
  const [width, room] = await page.evaluate(() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]);
  assert.ok(width <= room, `${what} is ${width} pixels wide in ${room}`);
}

async function views(page) {
  return page.locator("nav a").allTextContents();
}

const panel = (page, name) => page.locator("section.panel", { has: page.getByRole("heading", { level: 2, name, exact: true }) });

/** Fills the fields of a form, by their names, and sends it. */
async function fillIn(form, values, name) {
  for (const [field, value] of Object.entries(values)) await form.getByLabel(field, { exact: true }).fill(value);
  await form.getByRole("button", { name, exact: true }).click();
}

/** Adds a stored row to a group that the user may change, finds it, and removes it. */
async function lifeOfARow(page, rows, group, author) {
  await fillIn(rows, { Group: group, "Address, network or name": "10.1.2.0/24", Tag: `Branch ${group}`, Author: author }, "Add the row");
  await said(page, `Added 10.1.2.0 to group ${group}`);
  await rows.getByLabel("Stored rows with this text").fill(`Branch ${group}`);
  await rows.getByRole("button", { name: "Find" }).click();
  await rows.getByText("1 stored row", { exact: true }).waitFor();
  await rows.getByRole("button", { name: `Remove 10.1.2.0 from group ${group}` }).click();
  await page.getByRole("dialog").getByText("on every host on this database").waitFor();
  await agree(page, "Remove");
  await said(page, `Removed 1 row: 10.1.2.0/24 in group ${group}`);
  await rows.getByText("No row.").waitFor();
}

/** Presses Tab until an element with this text has the focus. */
async function tabTo(page, text) {
  for (let press = 0; press < 60; press++) {
    await page.keyboard.press("Tab");
    const focused = await page.evaluate(() => {
      const element = document.activeElement;
      return element.getAttribute("aria-label") ?? element.labels?.[0]?.textContent ?? element.textContent;
    });
    if (focused.trim().startsWith(text)) return;
  }
  assert.fail(`Tab does not reach ${text}`);
}

async function eachView(page, check) {
  for (const name of await views(page)) {
    await view(page, name);
    await page.locator("main .panel").first().waitFor();
    await check(name);
  }
}

/** From a file to a rollback, in a seat whose view is open. */
async function lifeOfAPolicy(page, seat) {
  await upload(page, given.policies.acl, "activate", "active");
  await upload(page, given.policies.observe, "start a shadow trial", "shadow");
  await page.getByRole("heading", { name: /Trial: generation \d+, shadow/ }).waitFor();
  await under(() => unknown.send(`${seat}.example`), async () => {
    await page.getByText(/[1-9]\d* of \d+ verdicts differ/).waitFor();
    await page.getByRole("region", { name: "The last differences" }).waitFor();
  });
  await page.getByRole("button", { name: "25%", exact: true }).click();
  await page.getByRole("heading", { name: /Trial: generation \d+, canary 25%/ }).waitFor();
  await page.locator("section.panel", { has: page.getByRole("heading", { name: /Trial:/ }) }).getByRole("button", { name: "Activate" }).click();
  await agree(page, "Activate");
  await said(page, "is active");
  await page.getByRole("button", { name: /^Roll back to generation/ }).click();
  await page.getByRole("dialog").getByText("for all workers at once").waitFor();
  await agree(page, "Roll back");
  await said(page, "Rolled back");
}

/** A message that the active policy rejects, and that a file relays, in a seat whose view is open. */
async function triesAMessage(page) {
  const panel = page.locator("section.panel", { has: page.getByRole("heading", { name: "Try a message" }) });
  const field = (name) => panel.getByLabel(name, { exact: true });
  await field("Received from").fill("203.0.113.9:5060");
  await panel.getByRole("button", { name: "Try", exact: true }).click();
  await panel.getByRole("heading", { name: /^reject 401 / }).waitFor();
  await panel.getByRole("cell", { name: "no row has 203.0.113.9" }).first().waitFor();
  await field("Another policy").setInputFiles(given.policies.observe);
  await panel.getByRole("button", { name: "Try", exact: true }).click();
  await panel.getByRole("heading", { name: /^relay$/ }).waitFor();
  await field("Message").fill("no message");
  await panel.getByRole("button", { name: "Try", exact: true }).click();
  await panel.getByRole("alert").filter({ hasText: "message: line 1" }).waitFor();
  await accessible(page, "a tried message");
  await fits(page, "a tried message");
}

/** Waits until a field contains a text. */
async function holds(page, field, text) {
  const end = Date.now() + PATIENCE;
  while (!(await field.inputValue()).includes(text)) {
    assert.ok(Date.now() < end, `${text} is not in ${await field.inputValue()}`);
    await page.waitForTimeout(50);
  }
}

/** Settings that are shown, refused, and stored, in a seat whose view is open. `collides` changes them elsewhere. */
async function lifeOfSettings(page, seat, collides) {
  const settings = panel(page, "Settings");
  await settings.getByRole("button", { name: "Show the settings" }).click();
  const text = settings.getByLabel("All settings, in JSON");
  await text.waitFor();
  const before = await text.inputValue();
  assert.deepEqual(JSON.parse(before), { hours: { monday: ["08:00-18:00"] }, zone: "Europe/Berlin" });
  const isRefused = async (wrong, why) => {
    await text.fill(wrong);
    await settings.getByRole("button", { name: "Check and store" }).click();
    await settings.getByRole("alert").filter({ hasText: why }).waitFor();
  };
  await isRefused(before.slice(1), "This is not JSON");
  await isRefused("[1]", "Settings have names");
  await isRefused(before.replace("Europe/Berlin", "Mars/Olympus"), "unknown time zone Mars/Olympus");
  await text.fill(before.replace("Europe/Berlin", "Europe/Paris"));
  await settings.getByLabel("Author").fill("ann");
  await settings.getByRole("button", { name: "Check and store" }).click();
  await said(page, `The settings of ${seat} are stored`);
  await holds(page, text, "Europe/Paris");
  if (collides) {
    await collides();
    await isRefused(before, "Somebody else has changed the settings");
    await settings.getByRole("button", { name: "Read again" }).click();
    await holds(page, text, "Europe/Rome");
  }
  await accessible(page, "settings");
  await fits(page, "settings");
  await settings.getByRole("button", { name: "Close" }).click();
  await settings.getByRole("button", { name: "Show the settings" }).waitFor();
}

/** Requests with an unknown method, until their sender is held. */
async function isHeld(page) {
  const scan = () => unknown.send("example.com", "SCAN", "bob", given.tablesSip);
  const stranger = row(page, given.unknown).filter({ hasText: /malformed|refusals/ });
  await under(scan, () => stranger.getByText("held", { exact: true }).waitFor());
}

async function cancelled(page) {
  await page.getByRole("button", { name: "Monitor only" }).click();
  await page.getByRole("dialog").waitFor();
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "hidden" });
  await page.getByRole("button", { name: "Monitor only" }).click();
  await agree(page, "Cancel");
  await page.getByRole("button", { name: "Monitor only" }).waitFor();
}

const operator = {
  "signs in, and sees rates and alerts": async (page) => {
    await asOperator(page);
    await under(() => known.send("example.com"), async () => {
      await page.locator(".tile", { hasText: "requests / s" }).getByText(/^[1-9]/).waitFor();
      await page.locator(".tile", { hasText: "relayed / s" }).getByText(/^[1-9]/).waitFor();
    });
    await page.getByText("1 entry is skipped in the address table").waitFor();
    await page.getByText("ready", { exact: true }).waitFor();
    const stored = await page.evaluate(() => [document.cookie, localStorage.length, Object.keys(sessionStorage).length]);
    assert.deepEqual(stored, ["", 0, 2]);
  },
  "cannot sign in with a wrong token": async (page, expect) => {
    expect("401");
    await page.goto(given.url);
    await page.getByLabel("Token").fill("wrong");
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.getByText("The host does not know this token.").waitFor();
    assert.deepEqual(await views(page), []);
  },
  "sees the tenants, and finds one": async (page) => {
    await asOperator(page);
    await view(page, "Tenants");
    await row(page, given.other).waitFor();
    await page.getByLabel("Name contains").pressSequentially(given.tenant);
    await row(page, given.other).waitFor({ state: "detached" });
    await row(page, given.tenant).getByRole("link").click();
    await page.getByRole("heading", { level: 1, name: `Tenant ${given.tenant}` }).waitFor();
    await page.getByText("Its settings are in the configuration file").waitFor();
    await page.getByRole("link", { name: "Policies of this seat" }).click();
    await page.getByRole("heading", { level: 1, name: `Policies of ${given.tenant}` }).waitFor();
  },
  "stores a tenant, is told what is wrong with its settings, and removes it": async (page, expect) => {
    expect("422");
    await asOperator(page);
    await view(page, "Tenants");
    await page.getByLabel("Name", { exact: true }).fill("initech");
    await page.getByRole("button", { name: "Write its settings" }).click();
    const text = page.getByLabel("The content of its section");
    await text.fill("uri-domain = [\"initech.example\"]");
    await page.getByLabel("Author").fill("ann");
    await page.getByRole("button", { name: "Check and store" }).click();
    await page.getByRole("alert").filter({ hasText: "uri-domain" }).waitFor();
    await text.fill("uri-domains = [\"initech.example\"]");
    await page.getByRole("button", { name: "Check and store" }).click();
    await page.getByText("Used since the start of the host").waitFor();
    await page.goto(`${given.url}#/tenants`);
    await row(page, "initech").getByRole("link").click();
    await page.getByText(/Changed by .*ann/).waitFor();
    await page.getByRole("button", { name: "Remove the tenant" }).click();
    await agree(page, "Remove");
    await said(page, "Tenant initech is removed");
    await row(page, "initech").waitFor({ state: "detached" });
  },
  "ships a policy: shadow, differences, canary, activate, roll back": async (page) => {
    await asOperator(page);
    await seat(page, given.other);
    await lifeOfAPolicy(page, given.other);
  },
  "changes the settings of a stored tenant, unless somebody else has changed them": async (page, expect) => {
    expect("422");
    expect("412");
    await asOperator(page, given.tables);
    const name = given.stored.operator;
    await seat(page, name);
    await lifeOfSettings(page, name, async () => {
      const path = `${given.tables}v1/policies/${name}/settings`;
      const headers = { Authorization: `Bearer ${given.operator}`, "Content-Type": "application/json" };
      const changed = await fetch(path, { method: "PUT", headers, body: '{"settings": {"zone": "Europe/Rome", "hours": {"monday": []}}}' });
      assert.equal(changed.status, 200, await changed.text());
    });
    await seat(page, given.tenant);
    await panel(page, "Settings").getByRole("button", { name: "Show the settings" }).click();
    await panel(page, "Settings").getByText("They are in the configuration file of the host").waitFor();
    assert.equal(await panel(page, "Settings").getByLabel("The settings").inputValue(), '{\n  "list": [],\n  "scale": 1.0\n}');
    await view(page, "Audit");
    await page.getByLabel("Command", { exact: true }).fill("policy.putSettings");
    await page.getByLabel("By", { exact: true }).fill("ann");
    await page.getByRole("button", { name: "Find" }).click();
    await row(page, name).filter({ hasText: "done" }).first().waitFor();
    await row(page, "policy.settings").first().waitFor({ state: "detached" });
  },
  "gets told why a file is not a policy": async (page, expect) => {
    expect("422");
    await asOperator(page);
    await seat(page, given.other);
    await page.getByLabel("A .wasm file").setInputFiles({ name: "no.wasm", mimeType: "application/wasm", buffer: Buffer.from("nonsense") });
    await page.getByText("The file is not WebAssembly.").waitFor();
    await page.getByRole("button", { name: "Upload" }).click();
    await said(page, "provide the .wasm file that the compiler wrote");
  },
  "follows messages, pauses, and opens one": async (page) => {
    await asOperator(page);
    await view(page, "Live");
    await page.getByLabel("Method").fill("OPTIONS");
    await page.getByRole("button", { name: "Start" }).click();
    await under(
      () => [unknown.send("example.com", "OPTIONS"), unknown.send("example.com", "MESSAGE")],
      async () => {
        await row(page, "OPTIONS sip:bob@example.com").first().waitFor();
        await page.getByRole("button", { name: "Pause" }).click();
        await said(page, /paused, \d+ left out/);
      },
    );
    assert.equal(await row(page, "MESSAGE sip:").count(), 0);
    await page.getByRole("button", { name: /^More of/ }).first().click();
    await page.locator("tr.detail").getByText("call id").waitFor();
  },
  "follows the decisions of one seat": async (page) => {
    await asOperator(page);
    await view(page, "Live");
    await page.getByLabel("Show").selectOption(given.tenant);
    await page.getByLabel("Outcome").waitFor({ state: "hidden" });
    await page.getByRole("button", { name: "Start" }).click();
    await under(
      () => [unknown.send("example.com"), unknown.send(`${given.tenant}.example`)],
      async () => row(page, `sip:bob@${given.tenant}.example`).nth(2).waitFor(),
    );
    assert.equal(await row(page, "sip:bob@example.com").count(), 0);
  },
  "learns which row matches a source, and which are skipped": async (page) => {
    await asOperator(page);
    await view(page, "Tables");
    const source = page.getByLabel("Which rows match this source?");
    const asks = async (text, answer) => {
      await source.fill(text);
      await source.press("Enter");
      await page.getByText(answer).waitFor();
    };
    await asks("192.0.2.7:5060", "192.0.2.7, port 5060, is in group 250.");
    await asks("192.0.2.7:5061", "No row matches 192.0.2.7, port 5061");
    await asks("10.9.8.7", "10.9.8.7, any port, is in group 300.");
    await asks("[2001:db8:0:1::5]:5060", "2001:db8:0:1::5, port 5060, is in group 300.");
    await asks("::ffff:192.0.2.7", "is in group 250.");
    await asks("2001:db9::1", "No row matches 2001:db9::1, any port");
    await asks("nothing", "Write an address");
    await page.getByText(/Skipped: .*10\.0\.0\.300.*write four numbers/).waitFor();
    await page.getByLabel("Rows with this text", { exact: true }).fill("TestServer");
    await page.getByText("1 row", { exact: true }).waitFor();
    await page.getByRole("button", { name: "Reload the address table" }).click();
    await said(page, "Address table: Reload OK");
  },
  "adds a stored row, finds it, and removes it; reads page after page": async (page, expect) => {
    expect("422");
    await asOperator(page, given.tables);
    await view(page, "Tables");
    const rows = panel(page, "Stored rows");
    await rows.getByLabel("Stored rows with this text").fill("10.0.0.");
    await rows.getByRole("button", { name: "Find" }).click();
    await rows.getByText("The first 200 of 251 stored rows").waitFor();
    await rows.getByRole("button", { name: "More rows" }).click();
    await rows.getByText("251 stored rows", { exact: true }).waitFor();
    await row(rows, "10.0.0.251").waitFor();
    await rows.getByRole("button", { name: "More rows" }).waitFor({ state: "detached" });
    await lifeOfARow(page, rows, "203", "ann");
    await fillIn(rows, { Group: "203", "Address, network or name": "10.1.2.300" }, "Add the row");
    await said(page, "write four numbers");
  },
  "adds a trusted peer, asks whether it is trusted, and removes it": async (page, expect) => {
    expect("422");
    await asOperator(page, given.tables);
    await view(page, "Tables");
    const peers = panel(page, "Stored peers");
    await peers.getByText("No peer.").waitFor();
    const adding = peers.getByRole("form", { name: "Add a trusted peer" });
    await adding.getByLabel("Transport").selectOption("udp");
    await fillIn(adding, { Source: "192.0.2.77", "From URI, a pattern": "^sip:.*@example\\.com$", Tag: "Partner", Author: "ann" }, "Add the peer");
    await said(page, "Added 192.0.2.77 to the trusted peers");
    const asking = peers.getByRole("form", { name: "Ask whether a request is trusted" });
    const asks = async (from, answer) => {
      await fillIn(asking, { "Is a request trusted from": "192.0.2.77", "with From URI": from, "and request URI": "sip:bob@example.com" }, "Ask");
      await peers.getByText(answer).waitFor();
    };
    await page.getByRole("button", { name: "Reload the trusted peers" }).click();
    await said(page, "Trusted peers: Reload OK");
    await asks("sip:ann@example.com", "is trusted: 1 row does, with tag Partner.");
    await asks("sip:ann@example.org", "is not trusted.");
    await fillIn(adding, { Source: "192.0.2.78", "From URI, a pattern": "[" }, "Add the peer");
    await said(page, "has a [ without its ]");
    await peers.getByRole("button", { name: "Remove 192.0.2.77 from the trusted peers" }).click();
    await agree(page, "Remove");
    await said(page, "Removed 1 row: 192.0.2.77");
    await peers.getByText("No peer.").waitFor();
  },
  "sees who has done what, and what was refused": async (page, expect) => {
    expect("422");
    await asOperator(page, given.tables);
    await view(page, "Tables");
    const rows = panel(page, "Stored rows");
    const add = (address) => fillIn(rows, { Group: "202", "Address, network or name": address, Author: "eve" }, "Add the row");
    await add("10.1.2.999");
    await said(page, "write four numbers");
    await add("10.1.2.9");
    await said(page, "Added 10.1.2.9 to group 202");
    await view(page, "Audit");
    const added = row(page, "address.add").filter({ hasText: "eve" });
    await added.filter({ hasText: "done" }).first().waitFor();
    await added.filter({ hasText: "10.1.2.999" }).first().waitFor();
    await view(page, "Tables");
    await panel(page, "Stored rows").getByLabel("Stored rows with this text").fill("10.1.2.9");
    await panel(page, "Stored rows").getByRole("button", { name: "Find" }).click();
    await page.getByRole("button", { name: "Remove 10.1.2.9 from group 202" }).click();
    await agree(page, "Remove");
    await said(page, "Removed 1 row");
  },
  "sees gateways, disables one, and activates it again": async (page) => {
    await asOperator(page, given.tables);
    await view(page, "Edge");
    const gateway = row(page, given.gateway);
    await gateway.getByText("active", { exact: true }).waitFor();
    await page.getByRole("button", { name: `Disable ${given.gateway} of set 1` }).click();
    await page.getByRole("dialog").getByText("It gets no more requests of this host").waitFor();
    await agree(page, "Disable");
    await said(page, `${given.gateway} of set 1 is disabled`);
    await gateway.getByText("disabled", { exact: true }).waitFor();
    await page.getByText("No destination of set 1 gets requests.").waitFor();
    await page.getByRole("button", { name: `Activate ${given.gateway} of set 1` }).click();
    await agree(page, "Activate");
    await said(page, `${given.gateway} of set 1 is active`);
    await gateway.getByText("active", { exact: true }).waitFor();
    await page.getByText("There is none: no section [tls.NAME]").waitFor();
  },
  "sees a stranger that is held, and releases it": async (page) => {
    await asOperator(page, given.tables);
    await view(page, "Edge");
    await isHeld(page);
    await page.getByRole("button", { name: `Release ${given.unknown}` }).click();
    await said(page, `${given.unknown} is released`);
    await page.getByText("Nobody is held or banned.").waitFor();
  },
  "sees the hosts on the database, and is asked before one is drained": async (page) => {
    await asOperator(page, given.tables);
    await view(page, "Fleet");
    const name = given.tablesSip.split(":")[0];
    await row(page, name).first().getByText("serving", { exact: true }).waitFor();
    await page.getByRole("button", { name: `More of ${name}` }).click();
    await page.getByText("announced since").waitFor();
    await panel(page, "Generations").getByRole("columnheader", { name, exact: true }).waitFor();
    await page.getByRole("button", { name: `Drain ${name}` }).click();
    const dialog = page.getByRole("dialog");
    await dialog.getByText("It refuses new calls").waitFor();
    await dialog.getByRole("button", { name: "Cancel" }).click();
    await row(page, name).first().getByText("serving", { exact: true }).waitFor();
  },
  "holds a roll-out over all hosts, lets it go on, and ends it": async (page) => {
    const name = given.stored.operator;
    const ask = async (method, path, body) => {
      const headers = { Authorization: `Bearer ${given.operator}`, "Content-Type": "application/wasm" };
      const answer = await fetch(`${given.tables}${path}`, { method, headers, body });
      const text = await answer.text();
      assert.ok(answer.ok, text);
      return JSON.parse(text);
    };
    const pushed = await ask("POST", `v1/policies/${name}?arrival=keep&name=observe.wasm`, readFileSync(given.policies.observe));
    await ask("POST", `v1/rollouts/${name}?generation=${pushed.generation}&steps=shadow,10%25,100%25&max_latency=off`);
    await asOperator(page, given.tables);
    await view(page, "Fleet");
    const rolled = panel(page, "Roll-outs").getByRole("row").filter({ hasText: name });
    await rolled.getByText("running", { exact: true }).waitFor();
    await rolled.getByText("shadow", { exact: true }).waitFor();
    await rolled.getByText(/^step 1 of 3/).waitFor();
    await rolled.getByText("at most 0.10%").waitFor();
    await rolled.getByText("at most 1%").waitFor();
    await rolled.getByText("no limit").waitFor();
    await accessible(page, "a roll-out");
    await fits(page, "a roll-out");
    await page.getByRole("button", { name: `Pause the roll-out of ${name}` }).click();
    await said(page, `The roll-out of ${name} stays at its step`);
    await rolled.getByText("paused", { exact: true }).waitFor();
    await page.getByRole("button", { name: `Resume the roll-out of ${name}` }).click();
    await said(page, `The roll-out of ${name} goes on`);
    await page.getByRole("button", { name: `Abort the roll-out of ${name}` }).click();
    await page.getByRole("dialog").getByText("decides on all dialogs again").waitFor();
    await agree(page, "Abort");
    await said(page, `The roll-out of generation ${pushed.generation} to ${name} has ended`);
    await rolled.getByText("aborted", { exact: true }).waitFor();
  },
  "sees the last minutes in the chart as soon as the page is open": async (page) => {
    await asOperator(page);
    await page.getByRole("img", { name: /^Requests per second: requests/ }).waitFor();
    await under(() => known.send("example.com"), async () => {
      await page.locator(".chart .legend").getByText(/^requests (?:[1-9]|0\.[1-9])/).waitFor();
    });
  },
  "is asked before what is hard to undo, and can refuse": async (page) => {
    await asOperator(page);
    await seat(page, given.tenant);
    await cancelled(page);
  },
  "works with the keyboard alone": async (page) => {
    await page.goto(given.url);
    await page.getByLabel("Token").waitFor();
    await page.keyboard.type(given.operator);
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { level: 1, name: "Overview" }).waitFor();
    await tabTo(page, "Tables");
    await page.keyboard.press("Enter");
    await page.getByRole("heading", { level: 1, name: "Tables" }).waitFor();
    await tabTo(page, "Which rows match");
    await page.keyboard.type("192.0.2.7:5060");
    await page.keyboard.press("Enter");
    await page.getByText("is in group 250.").waitFor();
    await page.evaluate(() => document.activeElement.blur());
    await page.reload();
    await page.getByRole("heading", { level: 1, name: "Tables" }).waitFor();
    await tabTo(page, "Skip to the content");
    await page.keyboard.press("Enter");
    assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  },
  "has an accessible page in each view, dark, light and narrow": async (page) => {
    await page.goto(given.url);
    await accessible(page, "sign-in");
    await asOperator(page);
    await under(() => [known.send("example.com"), unknown.send(`${given.tenant}.example`)], () => allLooks(page, "operator"));
    await asOperator(page, given.tables);
    await eachLook(page, (look) => storedTables(page, ["Stored rows", "Stored peers"], `operator-stored-${look}`));
    await view(page, "Edge");
    await isHeld(page);
    await eachLook(page, (look) => filledEdge(page, `operator-edge-${look}`));
  },
};

const tenant = {
  "signs in, and sees its own rates": async (page, expect) => {
    expect("403");
    await asTenant(page);
    await under(() => unknown.send(`${given.tenant}.example`), async () => {
      await page.locator(".tile", { hasText: "requests / s" }).getByText(/^[1-9]|^0\.[1-9]/).waitFor();
    });
    await page.locator("header").getByText(given.tenant).waitFor();
  },
  "cannot sign in under another name": async (page, expect) => {
    expect("403");
    await page.goto(given.url);
    await page.getByLabel("Token").fill(given.secret);
    await page.getByRole("button", { name: "Sign in" }).click();
    const name = page.getByLabel("Name of the tenant");
    const heading = page.getByRole("heading", { level: 1, name: "Overview" });
    await name.or(heading).waitFor();
    // A host that tells a tenant who it is lets it enter no name.
    if (await heading.isVisible()) return page.locator("header").getByText(given.tenant, { exact: true }).waitFor();
    await name.fill(given.other);
    await name.press("Enter");
    await page.getByRole("alert").filter({ hasText: /\S/ }).waitFor();
    assert.deepEqual(await views(page), []);
  },
  "sees no view of the operator, and no other tenant": async (page, expect) => {
    expect("403");
    await asTenant(page);
    const shown = await views(page);
    assert.ok(!shown.includes("Tenants"));
    await page.goto(`${given.url}#/policies/${given.other}`);
    await page.getByRole("heading", { level: 1, name: `Policies of ${given.tenant}` }).waitFor();
    await page.goto(`${given.url}#/tenants`);
    await page.getByRole("heading", { level: 1, name: "Overview" }).waitFor();
    assert.equal(await page.getByText(given.other).count(), 0);
  },
  "ships a policy: shadow, differences, canary, activate, roll back": async (page, expect) => {
    expect("403");
    await asTenant(page);
    await view(page, "Policies");
    await lifeOfAPolicy(page, given.tenant);
  },
  "tries a message against its policy and against a file": async (page, expect) => {
    expect("403");
    expect("422");
    await asTenant(page);
    await view(page, "Policies");
    await upload(page, given.policies.acl, "activate", "active");
    await triesAMessage(page);
  },
  "steps a canary up and ends the trial": async (page, expect) => {
    expect("403");
    await asTenant(page);
    await view(page, "Policies");
    await upload(page, given.policies.observe, "start a canary trial with 5%", "canary");
    for (const share of ["25%", "50%"]) {
      await page.getByRole("button", { name: share, exact: true }).click();
      await page.getByRole("heading", { name: new RegExp(`canary ${share}`) }).waitFor();
    }
    await page.getByRole("img", { name: /50 %/ }).waitFor();
    await page.getByRole("button", { name: "End the trial" }).click();
    await said(page, "The trial has ended");
    await page.getByRole("heading", { name: "Trial", exact: true }).waitFor();
  },
  "changes its settings where the operator permits it, and reads them elsewhere": async (page, expect) => {
    for (const status of ["403", "422"]) expect(status);
    await signIn(page, given.stored.secret, given.stored.tenant, given.tables);
    await view(page, "Policies");
    await lifeOfSettings(page, given.stored.tenant);
    await page.getByRole("button", { name: "Sign out" }).click();
    await asTenant(page);
    await view(page, "Policies");
    await panel(page, "Settings").getByRole("button", { name: "Show the settings" }).click();
    await panel(page, "Settings").getByText("its operator changes them there").waitFor();
    assert.equal(await panel(page, "Settings").getByRole("button", { name: "Check and store" }).count(), 0);
  },
  "keeps a file, and downloads it again": async (page, expect) => {
    expect("403");
    await asTenant(page);
    await view(page, "Policies");
    await upload(page, given.policies.observe, "check and keep", "kept");
    const coming = page.waitForEvent("download");
    await page.getByRole("button", { name: /^Download generation/ }).first().click();
    const download = await coming;
    assert.deepEqual(readFileSync(await download.path()), readFileSync(given.policies.observe));
  },
  "sees who has pushed what, with its note": async (page, expect) => {
    expect("403");
    await asTenant(page);
    await view(page, "Policies");
    await page.getByLabel("Author").fill("ann");
    await upload(page, given.policies.acl, "check and keep", "kept");
    await row(page, `${given.tenant}: ann`).filter({ hasText: "ticket 4711" }).first().waitFor();
  },
  "follows its own decisions, those of one method": async (page, expect) => {
    expect("403");
    await asTenant(page);
    await view(page, "Live");
    await page.getByLabel("Method").fill("OPTIONS");
    await page.getByRole("button", { name: "Start" }).click();
    await under(
      () => [unknown.send("example.com", "OPTIONS"), ...["OPTIONS", "MESSAGE"].map((method) => unknown.send(`${given.tenant}.example`, method))],
      async () => row(page, `OPTIONS sip:bob@${given.tenant}.example`).nth(2).waitFor(),
    );
    assert.equal(await row(page, "sip:bob@example.com").or(row(page, "MESSAGE sip:")).count(), 0);
    await page.getByRole("button", { name: /^More of/ }).first().click();
    await page.locator("tr.detail").getByText(`policy of ${given.tenant}`).waitFor();
  },
  "loses what it has typed to no update": async (page, expect) => {
    expect("403");
    await asTenant(page);
    await view(page, "Policies");
    const note = page.getByLabel("Note");
    await note.click();
    await page.keyboard.type("first");
    const seen = page.waitForResponse((response) => response.url().endsWith("/generations"));
    await seen;
    const again = page.waitForResponse((response) => response.url().endsWith("/generations"));
    await again;
    await page.keyboard.type(" second");
    assert.equal(await note.inputValue(), "first second");
  },
  "changes the rows of its groups, and sees what it has done": async (page, expect) => {
    expect("403");
    expect("422");
    await asTenant(page, given.tables);
    await page.getByText("201, at most 3 rows of at least 24 bits (IPv6: 48)").waitFor();
    await view(page, "Tables");
    const rows = panel(page, "Addresses");
    await rows.getByText("1 stored row", { exact: true }).waitFor();
    await row(rows, "own").waitFor();
    await lifeOfARow(page, rows, "201", "ann");
    await fillIn(rows, { Group: "201", "Address, network or name": "10.0.0.0/8" }, "Add the row");
    await said(page, "it needs at least 24 (`edit-prefix-v4`");
    await fillIn(rows, { Group: "200", "Address, network or name": "10.0.0.1" }, "Add the row");
    await said(page, "a tenant may not change rows of group 200");
    await view(page, "Audit");
    await row(page, "address.remove").filter({ hasText: "done" }).first().waitFor();
    await row(page, `${given.tenant}: ann`).first().waitFor();
    assert.equal(await row(page, "eve").count(), 0);
  },
  "signs out, and nothing is left": async (page, expect) => {
    expect("403");
    await asTenant(page);
    await page.reload();
    await page.getByRole("heading", { level: 1, name: "Overview" }).waitFor();
    await page.getByRole("button", { name: "Sign out" }).click();
    await page.getByRole("heading", { level: 1, name: "Sign in" }).waitFor();
    assert.equal(await page.evaluate(() => sessionStorage.length), 0);
    await page.reload();
    await page.getByRole("heading", { level: 1, name: "Sign in" }).waitFor();
  },
  "has an accessible page in each view, dark, light and narrow": async (page, expect) => {
    expect("403");
    await asTenant(page);
    await under(() => unknown.send(`${given.tenant}.example`), () => allLooks(page, "tenant"));
    await asTenant(page, given.tables);
    await eachLook(page, (look) => storedTables(page, ["Addresses"], `tenant-stored-${look}`));
  },
};

async function eachLook(page, check) {
  const looks = [["light", WIDE, "light"], ["dark", WIDE, "dark"], ["narrow", NARROW, "light"]];
  for (const [look, size, colorScheme] of looks) {
    await page.setViewportSize(size);
    await page.emulateMedia({ colorScheme });
    await check(look);
  }
}

/** Checks each view in each look, and takes pictures if a folder is given. */
async function allLooks(page, role) {
  await eachLook(page, (look) =>
    eachView(page, async (name) => {
      await prepare(page, name, role);
      await accessible(page, `${name}, ${look}`);
      await fits(page, `${name}, ${look}`);
      if (given.pictures) await picture(page, `${role}-${name.toLowerCase()}-${look}`);
    }),
  );
}

/** Checks the panels of tables that can be changed. */
async function storedTables(page, panels, name) {
  await view(page, "Tables");
  for (const title of panels) await panel(page, title).getByRole("button", { name: /^Add the/ }).waitFor();
  await accessible(page, name);
  await fits(page, name);
  if (given.pictures) await picture(page, name, panel(page, panels[0]));
}

/** Checks the view of others, with a gateway and a stranger. */
async function filledEdge(page, name) {
  await row(page, given.gateway).waitFor();
  await accessible(page, name);
  await fits(page, name);
  if (given.pictures) await picture(page, name);
}

/** Brings a view into a state with something to see. */
async function prepare(page, name, role) {
  if (name === "Policies" && role === "operator") await seat(page, given.tenant);
  if (name === "Live") {
    await page.getByRole("button", { name: "Start" }).click();
    await page.getByRole("button", { name: /^More of/ }).first().waitFor();
    await page.getByRole("button", { name: "Pause" }).click();
    await page.getByRole("button", { name: /^More of/ }).first().click();
  }
  if (name === "Tables" && role === "operator") {
    const source = page.getByLabel("Which rows match this source?");
    await source.fill("192.0.2.7:5060");
    await source.press("Enter");
    await page.getByText("is in group 250.").waitFor();
  }
  if (name === "Overview" && given.pictures) await page.waitForTimeout(24000);
}

async function picture(page, name, at) {
  await page.mouse.move(0, 0);
  await at?.evaluate((element) => element.scrollIntoView());
  await page.screenshot({ path: `${given.pictures}/${name}.png`, clip: { x: 0, y: 0, ...page.viewportSize() } });
}

const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-proxy-server"],
});
const only = process.env.PORTCULLIS_FLOW;
let failures = 0;
// The roles change different seats, so that their flows run at the same time.
await Promise.all(Object.entries({ operator, tenant }).map(([role, flows]) => runAll(role, flows)));
await browser.close();
process.exit(failures === 0 ? 0 : 1);

async function runAll(role, flows) {
  for (const [name, flow] of Object.entries(flows)) {
    const title = `${role}: ${name}`;
    if (!only || title.includes(only)) await runOne(title, flow);
  }
}

async function runOne(title, flow) {
  const begun = Date.now();
  const errors = [];
  const expected = [];
  const context = await browser.newContext({ viewport: WIDE, acceptDownloads: true });
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  page.on("pageerror", (error) => errors.push(error.stack));
  // A violation of the page's policy is an error in the console, too. A refusal that the flow provokes is one that it expects.
  page.on("console", (message) => {
    const isExpected = expected.some((status) => message.text().startsWith(`Failed to load resource: the server responded with a status of ${status}`));
    if (message.type() === "error" && !isExpected) errors.push(message.text());
  });
  try {
    await flow(page, (status) => expected.push(status));
    assert.deepEqual(errors, []);
    console.log(`ok ${title} (${Date.now() - begun} ms)`);
  } catch (error) {
    failures += 1;
    console.log(`FAILED ${title}\n${error.stack}\nerrors of the page: ${errors.join("\n")}\n${await page.locator("body").innerText().catch(() => "")}`);
  }
  await context.close();
}
