// SIP.js in a real browser, over WebSocket and TLS through a host that the caller has started, to a registrar behind it and a phone over UDP.
//
// node sipjs.mjs '{"ws", "sip", "phone", "page", "modules"}'

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { dirname, join, normalize } from "node:path";

import { MEDIA, PATIENCE, Phone, uriOf } from "./phone.mjs";

const given = JSON.parse(process.argv[2]);
const modules = createRequire(given.modules);
const { chromium } = modules("playwright-core");

/** Its modules, which browsers load as they are. */
const LIBRARY = join(dirname(given.modules), "node_modules/sip.js/lib");

/** What the page does: a user agent, and the other end's media. */
const PAGE = `
  import { Inviter, Registerer, RegistererState, UserAgent } from "/sip.js/index.js";
  globalThis.told = [];
  const tell = (what) => told.push(what);
  const media = { sessionDescriptionHandlerOptions: { constraints: { audio: true, video: false } } };
  const follow = (session) => {
    globalThis.session = session;
    session.stateChange.addListener((state) => tell(state));
  };
  globalThis.begin = async (server) => {
    globalThis.ua = new UserAgent({
      uri: UserAgent.makeURI("sip:ada@example.com"),
      transportOptions: { server },
      logLevel: "error",
      sessionDescriptionHandlerFactoryOptions: { peerConnectionConfiguration: { iceServers: [] }, iceGatheringTimeout: 1000 },
      delegate: {
        onConnect: () => tell("connected"),
        onDisconnect: (error) => tell("disconnected " + (error ?? "")),
        onInvite: (invitation) => {
          tell("ringing");
          follow(invitation);
          invitation.accept(media);
        },
      },
    });
    await ua.start();
    const registerer = new Registerer(ua);
    registerer.stateChange.addListener((state) => state === RegistererState.Registered && tell("registered"));
    await registerer.register();
  };
  globalThis.call = async (uri) => {
    const inviter = new Inviter(ua, UserAgent.makeURI(uri), media);
    follow(inviter);
    await inviter.invite();
  };
  ${MEDIA}
  tell("loaded");
`;

const server = createServer(async (request, response) => {
  const path = normalize(new URL(request.url, "http://page").pathname);
  if (!path.startsWith("/sip.js/")) {
    response.setHeader("Content-Type", "text/html");
    return response.end(`<!doctype html><script type="module">${PAGE}</script>`);
  }
  try {
    const script = await readFile(join(LIBRARY, path.slice("/sip.js/".length)));
    response.setHeader("Content-Type", "text/javascript");
    response.end(script);
  } catch (error) {
    console.log(`page: ${error}`);
    response.writeHead(404).end();
  }
});
const [address, port] = given.page.split(":");
await new Promise((resolve) => server.listen(Number(port), address, resolve));

const phone = await new Phone(given).begin();
const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  // The authority of the host's certificate is one of the test.
  args: ["--no-sandbox", "--ignore-certificate-errors", "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"],
});
try {
  const context = await browser.newContext({ permissions: ["microphone"], ignoreHTTPSErrors: true });
  const page = await context.newPage();
  page.on("pageerror", (error) => console.log(`page: ${error}`));
  page.on("console", (message) => console.log(`page: ${message.text()}`));
  const told = (what) =>
    page.waitForFunction((what) => globalThis.told?.includes(what), what, { timeout: PATIENCE }).catch(async () => {
      throw new Error(`${what} does not come; the page has told ${JSON.stringify(await page.evaluate(() => globalThis.told))}`);
    });

  const open = async () => {
    await page.goto(`http://${given.page}/`);
    await told("loaded");
    await page.evaluate((ws) => begin(ws), given.ws);
    await told("registered");
  };

  await open();
  phone.request("REGISTER", "sip:example.com");
  await phone.next("SIP/2.0 200 ");
  console.log("both are registered");

  // The browser calls the phone, and hangs up.
  await page.evaluate(() => call("sip:bob@example.com"));
  const invite = await phone.next("INVITE ");
  phone.answer(invite, await page.evaluate((sdp) => answerTo(sdp), invite.body));
  await phone.next("ACK ");
  await told("Established");
  await page.evaluate(() => void session.bye());
  phone.answer(await phone.next("BYE "));
  await told("Terminated");
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
    await told("Established");
    return { uri, dialog };
  };
  const hangUp = async ({ uri, dialog }) => {
    phone.request("BYE", uri, { dialog, cseq: 2 });
    await phone.next("SIP/2.0 200 ");
    await told("Terminated");
  };
  await hangUp(await call());
  console.log("the phone has called");

  // The page is loaded again in the middle of a call: its connection is gone, and it registers again.
  const { uri, dialog } = await call();
  await open();
  phone.request("BYE", uri, { dialog, cseq: 2 });
  await phone.next("SIP/2.0 430 ");
  await hangUp(await call());
  console.log("the page was loaded again");
} finally {
  await browser.close();
  server.close();
  phone.socket.close();
}
