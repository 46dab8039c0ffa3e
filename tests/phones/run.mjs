// JsSIP in a real browser, over WebSocket through a host that the caller has started, to a registrar behind it and a phone over UDP.
//
// node run.mjs '{"ws", "sip", "phone", "modules"}'
//
// The phone of this script has no media: the answers and offers of its calls come from a second connection of the page.

import { strict as assert } from "node:assert";
import { createSocket } from "node:dgram";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";

const given = JSON.parse(process.argv[2]);
const modules = createRequire(given.modules);
const { chromium } = modules("playwright-core");

/** A limit that only a step that fails reaches. */
const PATIENCE = 20000;

/** The modules of JsSIP as one script: they are CommonJS, which no browser loads. */
function bundle() {
  const sources = new Map();
  const resolve = (from, name) => {
    const require = createRequire(from);
    const path = require.resolve(name === "events" ? "events/" : name);
    return path.replace(/debug\/src\/index\.js$/, "debug/src/browser.js");
  };
  const add = (path) => {
    if (sources.has(path)) return;
    const text = readFileSync(path, "utf8");
    sources.set(path, null);
    const links = {};
    for (const [, name] of text.matchAll(/require\(['"]([^'"]+)['"]\)/g)) {
      links[name] = resolve(path, name);
      add(links[name]);
    }
    const body = path.endsWith(".json") ? `module.exports = ${text};` : text;
    sources.set(path, `{ links: ${JSON.stringify(links)}, run(module, exports, require) {${body}\n} }`);
  };
  const entry = modules.resolve("jssip");
  add(entry);
  const all = [...sources].map(([path, source]) => `${JSON.stringify(path)}: ${source}`);
  return `(() => {
    const process = { env: {} };
    const modules = {${all.join(",\n")}};
    const load = (path) => {
      const own = modules[path];
      if (!own.module) {
        own.module = { exports: {} };
        own.run(own.module, own.module.exports, (name) => load(own.links[name]));
      }
      return own.module.exports;
    };
    globalThis.JsSIP = load(${JSON.stringify(entry)});
  })();`;
}

/** What the page does: a user agent, and the other end's media. */
const PAGE = `
  globalThis.told = [];
  const tell = (what) => told.push(what);
  globalThis.begin = (ws) => {
    globalThis.ua = new JsSIP.UA({
      sockets: [new JsSIP.WebSocketInterface(ws)],
      uri: "sip:ada@example.com",
      register: true,
      session_timers: false,
    });
    ua.on("registered", () => tell("registered"));
    ua.on("registrationFailed", (event) => tell("registrationFailed " + event.cause));
    ua.on("newRTCSession", ({ originator, session }) => {
      globalThis.session = session;
      for (const event of ["confirmed", "ended", "failed"]) {
        session.on(event, ({ originator, cause }) => tell([event, originator, cause ?? ""].join(" ").trim()));
      }
      if (originator === "remote") {
        tell("ringing");
        session.answer({ mediaConstraints: { audio: true, video: false } });
      }
    });
    ua.start();
  };
  const gathered = async (connection) => {
    while (connection.iceGatheringState !== "complete") {
      await new Promise((resolve) => connection.addEventListener("icegatheringstatechange", resolve, { once: true }));
    }
    return connection.localDescription.sdp;
  };
  globalThis.other = () => {
    const connection = new RTCPeerConnection();
    connection.addTransceiver("audio");
    return connection;
  };
  globalThis.answerTo = async (sdp) => {
    const connection = other();
    await connection.setRemoteDescription({ type: "offer", sdp });
    await connection.setLocalDescription(await connection.createAnswer());
    return gathered(connection);
  };
  globalThis.offer = async () => {
    const connection = other();
    await connection.setLocalDescription(await connection.createOffer());
    return gathered(connection);
  };
`;

/** A phone over UDP. */
class Phone {
  constructor() {
    this.socket = createSocket("udp4");
    this.received = [];
    this.waiting = [];
    this.number = 0;
    this.socket.on("message", (bytes) => {
      const message = parse(bytes.toString());
      if (message.start.startsWith("SIP/2.0 1")) return;
      const next = this.waiting.shift();
      next ? next(message) : this.received.push(message);
    });
  }

  async begin() {
    await new Promise((resolve) => this.socket.bind(0, given.phone, resolve));
    this.address = `${given.phone}:${this.socket.address().port}`;
    return this;
  }

  send(text) {
    const [ip, port] = given.sip.split(":");
    this.socket.send(text, Number(port), ip);
  }

  async next(start) {
    const message = this.received.shift() ?? (await within(new Promise((resolve) => this.waiting.push(resolve)), start));
    assert.ok(message.start.startsWith(start), `${message.start} in place of ${start}`);
    return message;
  }

  request(method, uri, { dialog, body = "", cseq = 1 } = {}) {
    const id = dialog?.id ?? `${process.pid}-${++this.number}`;
    const routes = (dialog?.routes ?? []).map((route) => `Route: ${route}`);
    const lines = [
      `${method} ${uri} SIP/2.0`,
      `Via: SIP/2.0/UDP ${this.address};rport;branch=z9hG4bK-${process.pid}-${++this.number}`,
      "Max-Forwards: 70",
      ...routes,
      `From: ${dialog?.own ?? `<sip:bob@example.com>;tag=${id}`}`,
      `To: ${dialog?.other ?? `<${method === "REGISTER" ? "sip:bob@example.com" : uri}>`}`,
      `Call-ID: ${id}`,
      `CSeq: ${cseq} ${method}`,
      `Contact: <sip:bob@${this.address}>`,
      ...(body ? ["Content-Type: application/sdp"] : []),
      `Content-Length: ${Buffer.byteLength(body)}`,
      "",
      body,
    ];
    this.send(lines.join("\r\n"));
  }

  answer(request, body = "") {
    const kept = ["via", "record-route", "from", "call-id", "cseq"];
    const lines = [
      "SIP/2.0 200 OK",
      ...request.fields.filter(([name]) => kept.includes(name.toLowerCase())).map(([name, value]) => `${name}: ${value}`),
      `To: ${this.to(request)}`,
      `Contact: <sip:bob@${this.address}>`,
      ...(body ? ["Content-Type: application/sdp"] : []),
      `Content-Length: ${Buffer.byteLength(body)}`,
      "",
      body,
    ];
    this.send(lines.join("\r\n"));
  }

  to(request) {
    const to = request.one("To");
    return to.includes(";tag=") ? to : `${to};tag=bob`;
  }
}

function parse(text) {
  const [head, ...rest] = text.split("\r\n\r\n");
  const [start, ...lines] = head.split("\r\n");
  const fields = lines.map((line) => [line.slice(0, line.indexOf(":")), line.slice(line.indexOf(":") + 1).trim()]);
  const all = (name) => fields.filter(([own]) => own.toLowerCase() === name.toLowerCase()).map(([, value]) => value);
  return { start, fields, all, one: (name) => all(name)[0], body: rest.join("\r\n\r\n") };
}

async function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing comes: ${what}`)), PATIENCE);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

const uriOf = (contact) => contact.match(/<([^>]*)>/)[1];

const script = bundle();
const server = createServer((request, response) => {
  const isScript = request.url === "/jssip.js";
  response.setHeader("Content-Type", isScript ? "text/javascript" : "text/html");
  response.end(isScript ? script : `<!doctype html><script src="/jssip.js"></script><script>${PAGE}</script>`);
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));

const phone = await new Phone().begin();
const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: ["--no-sandbox", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"],
});
try {
  const context = await browser.newContext({ permissions: ["microphone"] });
  const page = await context.newPage();
  page.on("pageerror", (error) => console.log(`page: ${error}`));
  const told = (what) =>
    page.waitForFunction((what) => told.some((line) => line.startsWith(what)), what, { timeout: PATIENCE }).catch(async () => {
      throw new Error(`${what} does not come; the page has told ${JSON.stringify(await page.evaluate(() => told))}`);
    });
  const open = async () => {
    await page.goto(`http://127.0.0.1:${server.address().port}/`);
    await page.evaluate((ws) => begin(ws), given.ws);
    await told("registered");
  };

  await open();
  phone.request("REGISTER", "sip:example.com");
  await phone.next("SIP/2.0 200 ");
  console.log("both are registered");

  // The browser calls the phone, and hangs up.
  await page.evaluate(() => ua.call("sip:bob@example.com", { mediaConstraints: { audio: true, video: false } }));
  const invite = await phone.next("INVITE ");
  phone.answer(invite, await page.evaluate((sdp) => answerTo(sdp), invite.body));
  await phone.next("ACK ");
  await told("confirmed");
  await page.evaluate(() => session.terminate());
  phone.answer(await phone.next("BYE "));
  await told("ended local");
  console.log("the browser has called");

  // The phone calls the browser, and hangs up.
  const call = async () => {
    await page.evaluate(() => told.splice(0));
    phone.request("INVITE", "sip:ada@example.com", { body: await page.evaluate(() => offer()) });
    const answer = await phone.next("SIP/2.0 200 ");
    const dialog = {
      id: answer.one("Call-ID"),
      own: answer.one("From"),
      other: answer.one("To"),
      routes: answer.all("Record-Route").reverse(),
    };
    const uri = uriOf(answer.one("Contact"));
    phone.request("ACK", uri, { dialog });
    await told("confirmed");
    return { uri, dialog };
  };
  let { uri, dialog } = await call();
  phone.request("BYE", uri, { dialog, cseq: 2 });
  await phone.next("SIP/2.0 200 ");
  await told("ended remote");
  console.log("the phone has called");

  // The page is loaded again in the middle of a call: its connection is gone, and it registers again.
  ({ uri, dialog } = await call());
  await open();
  phone.request("BYE", uri, { dialog, cseq: 2 });
  await phone.next("SIP/2.0 430 ");
  ({ uri, dialog } = await call());
  phone.request("BYE", uri, { dialog, cseq: 2 });
  await phone.next("SIP/2.0 200 ");
  await told("ended remote");
  console.log("the page was loaded again");
} finally {
  await browser.close();
  server.close();
  phone.socket.close();
}
