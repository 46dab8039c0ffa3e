// JsSIP in a real browser, over WebSocket through a host that the caller has started, to a registrar behind it and a phone over UDP.
//
// node run.mjs '{"ws", "sip", "phone", "page", "stranger", "modules"}'
//
// The host takes connections of the origin `page`, and none of `stranger`.
//
// The phone of this script has no media: the answers and offers of its calls come from a second connection of the page.

import { strict as assert } from "node:assert";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { createRequire } from "node:module";

import { MEDIA, PATIENCE, Phone, uriOf } from "./phone.mjs";

const given = JSON.parse(process.argv[2]);
const modules = createRequire(given.modules);
const { chromium } = modules("playwright-core");

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
`;

const script = bundle();
const serve = async (place) => {
  const server = createServer((request, response) => {
    const isScript = request.url === "/jssip.js";
    response.setHeader("Content-Type", isScript ? "text/javascript" : "text/html");
    response.end(isScript ? script : `<!doctype html><script src="/jssip.js"></script><script>${PAGE}${MEDIA}</script>`);
  });
  const [address, port] = place.split(":");
  await new Promise((resolve) => server.listen(Number(port), address, resolve));
  return server;
};
const servers = [await serve(given.page), await serve(given.stranger)];

const phone = await new Phone(given).begin();
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
    await page.goto(`http://${given.page}/`);
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

  // The same page of another origin.
  const stranger = await context.newPage();
  await stranger.goto(`http://${given.stranger}/`);
  const connect = (ws) =>
    new Promise((resolve) => {
      const socket = new WebSocket(ws, "sip");
      socket.onopen = () => resolve("connected");
      socket.onerror = () => resolve("refused");
    });
  assert.equal(await page.evaluate(connect, given.ws), "connected");
  assert.equal(await stranger.evaluate(connect, given.ws), "refused");
  console.log("a page of another origin was refused");
} finally {
  await browser.close();
  for (const server of servers) server.close();
  phone.socket.close();
}
