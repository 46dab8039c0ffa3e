// The console: sign-in, the list of views, and the view that is open.

import { begin, end, resume } from "./api.js";
import { audit } from "./audit.js";
import { Rates, metrics } from "./chart.js";
import { badge, button, field, h, say, since, update } from "./dom.js";
import { edge } from "./edge.js";
import { fleet } from "./fleet.js";
import { live } from "./live.js";
import { overview } from "./overview.js";
import { policies } from "./policies.js";
import { tables } from "./tables.js";
import { tenants } from "./tenants.js";

/** A view: {id, title, isShown(session), open(page)}; `open` returns a function that ends it. */
const VIEWS = [overview, tenants, policies, live, tables, edge, fleet, audit];

const [main, views, host, account] = ["main", "views", "host", "session"].map((id) => document.getElementById(id));

let session = null;
let rates = null;
let close = null;

window.addEventListener("hashchange", () => open(true));
document.querySelector(".skip").onclick = (event) => {
  event.preventDefault();
  main.focus();
};
start();

async function start() {
  try {
    session = await resume();
  } catch (error) {
    if (error.status === 401) end();
    return signIn(error.message);
  }
  if (session) enter();
  else signIn();
}

function signIn(problem, needsName = false) {
  document.title = "Sign in – Portcullis";
  for (const part of [views, host, account]) part.replaceChildren();
  const token = h("input", { type: "password", name: "token", autocomplete: "current-password", spellcheck: "false" });
  const name = h("input", { name: "tenant", autocomplete: "username", required: true });
  const error = h("p", { class: "error", role: "alert" }, problem);
  const named = h("div", {}, needsName && field("Name of the tenant", name));
  const form = h(
    "form",
    {
      onsubmit: async (event) => {
        event.preventDefault();
        error.textContent = "";
        try {
          session = await begin(token.value.trim(), name.isConnected ? name.value.trim() : null);
        } catch (refused) {
          error.textContent = refused.status === 401 ? "The host does not know this token." : refused.message;
          token.focus();
          return;
        }
        if (session) return enter();
        named.replaceChildren(field("Name of the tenant", name));
        error.textContent = "This is the token of a tenant. Enter its name, too.";
        name.focus();
      },
    },
    field("Token", token),
    named,
    error,
    h("p", { class: "actions" }, h("button", { class: "first" }, "Sign in")),
  );
  const help = h(
    "p",
    { class: "muted" },
    "The operator's token is in ",
    h("code", {}, "portcullis.token"),
    " or in the configuration; a tenant has a token of its own. The token stays in this tab until you sign out or close it.",
  );
  main.replaceChildren(h("section", { class: "login" }, h("h1", {}, "Sign in"), h("p", {}), form, help));
  token.focus();
}

function signOut(problem) {
  close?.();
  rates?.stop();
  [close, rates, session] = [null, null, null];
  end();
  signIn(problem);
}

function enter() {
  const { tenant } = session;
  rates = new Rates(async () => (tenant === null ? metrics(await session.text("/metrics")) : ofSeat(await session.get(path(tenant)))));
  rates.listeners.add(() => rates.failure?.status === 401 && signOut("The token is not valid any more."));
  update(account, [
    h("span", {}, tenant === null ? "operator" : h("strong", {}, tenant)),
    button("Sign out", () => signOut()),
  ]);
  if (tenant === null) rates.listeners.add(showHost);
  else update(host, ["tenant"]);
  showHost();
  open(false);
}

const path = (seat) => `/v1/policies/${encodeURIComponent(seat)}`;

/** The counters of a tenant are those of the active generation of its seat. */
function ofSeat({ calls = 0, relay = 0, reject = 0, failed_calls = 0, mean_ns = 0 }) {
  const total = { requests: calls, relayed: relay, rejected: reject, failed: failed_calls, shed: 0, calls, nanoseconds: calls * (mean_ns ?? 0) };
  return { total, tenants: {}, buckets: [] };
}

async function showHost() {
  if (!session?.isOperator) return;
  try {
    const status = await session.call("portcullis.status");
    const state = status.ready ? badge("ready", "good") : badge("not ready", "bad");
    update(host, [state, ` ${status.version}, ${status.workers} ${status.workers === 1 ? "worker" : "workers"}, up ${since(status.started_at)}`]);
  } catch (error) {
    update(host, [badge(error.message, "bad")]);
  }
}

/** The text of a part of the address, which a person may have typed. */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function open(byUser) {
  if (!session) return;
  const [id, ...rest] = location.hash.replace(/^#\/?/, "").split("/").map(decoded);
  const shown = VIEWS.filter((view) => view.isShown(session));
  const view = shown.find((view) => view.id === id) ?? shown[0];
  close?.();
  document.title = `${view.title} – Portcullis`;
  const links = shown.map(({ id, title }) => h("a", { href: `#/${id}`, "aria-current": id === view.id && "page" }, title));
  update(views, links);
  main.replaceChildren();
  let isOpen = true;
  const page = {
    session,
    rates,
    rest,
    show: (...nodes) => isOpen && update(main, nodes.flat()),
    /** Runs what the user has asked for, and tells what has come of it. */
    run: async (work) => {
      try {
        const done = await work();
        if (done) say(done);
        return true;
      } catch (error) {
        if (error.status === 401) signOut("The token is not valid any more.");
        else say(error.message, true);
        return false;
      }
    },
  };
  const ended = view.open(page);
  close = () => {
    isOpen = false;
    ended?.();
  };
  window.scrollTo(0, 0);
  if (byUser) main.focus({ preventScroll: true });
}
