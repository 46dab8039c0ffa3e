// Requests to the host, with the token of the session. The token is kept for this tab only, and sent in Authorization only.

const TOKEN = "portcullis.token";
const TENANT = "portcullis.tenant";

/** A request that the host has refused; `message` is what the host says. */
export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** What the host offers to this user. */
export class Session {
  constructor(token, tenant, document) {
    this.token = token;
    this.tenant = tenant;
    this.document = document;
  }

  get isOperator() {
    return this.tenant === null;
  }

  /** Whether the host describes this operation. A view that needs another one is not shown. */
  has(method, path) {
    return Boolean(this.document.paths?.[path]?.[method.toLowerCase()]);
  }

  /** Whether the host describes this JSON-RPC command. */
  hasCommand(name) {
    return Boolean(this.document["x-json-rpc"]?.[name]);
  }

  async get(path) {
    return (await send(this.token, "GET", path)).json();
  }

  async text(path) {
    return (await send(this.token, "GET", path)).text();
  }

  async blob(path) {
    return (await send(this.token, "GET", path)).blob();
  }

  /** The text of a response, with the tag of what it describes. */
  async tagged(path) {
    const response = await send(this.token, "GET", path);
    return { text: await response.text(), tag: response.headers.get("ETag") };
  }

  /** Sends a change; `body` is sent as `type`. With a tag, what is changed must still have it. */
  async change(method, path, body, type, tag) {
    const response = await send(this.token, method, path, { body, type, tag });
    const text = await response.text();
    return text.startsWith("{") || text.startsWith("[") || text.startsWith('"') ? JSON.parse(text) : text;
  }

  async call(method, params = []) {
    const body = JSON.stringify({ jsonrpc: "2.0", id: 1, method, params });
    const answer = await (await send(this.token, "POST", "/RPC", { body, type: "application/json", keep: true })).json();
    if (answer.error) throw new Refused(answer.error.code, [answer.error.message, answer.error.data].filter(Boolean).join(": "));
    return answer.result;
  }

  /** Yields the lines of a response as they come, until `signal` ends it. */
  async *lines(path, signal) {
    const response = await send(this.token, "GET", path, { signal });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const lines = (rest + value).split("\n");
      rest = lines.pop();
      yield* lines;
    }
  }
}

/** Begins a session: learns whose token it is. Returns null if a tenant's name is needed. */
export async function begin(token, name) {
  const document = await (await send(token, "GET", "/v1/openapi.json")).json();
  const tenant = await whose(new Session(token, null, document), name);
  if (tenant === undefined) return null;
  sessionStorage.setItem(TOKEN, token);
  sessionStorage.setItem(TENANT, tenant ?? "");
  return new Session(token, tenant, document);
}

/** Continues the session of this tab, if there is one. */
export async function resume() {
  const token = sessionStorage.getItem(TOKEN);
  if (token === null) return null;
  const document = await (await send(token, "GET", "/v1/openapi.json")).json();
  return new Session(token, sessionStorage.getItem(TENANT) || null, document);
}

export function end() {
  sessionStorage.removeItem(TOKEN);
  sessionStorage.removeItem(TENANT);
}

/** null: the operator's; undefined: a tenant's whose name is not known. */
async function whose(session, name) {
  if (name) {
    await session.get(`/v1/policies/${encodeURIComponent(name)}`);
    return name;
  }
  try {
    await session.call("core.version");
    return null;
  } catch (error) {
    if (error.status !== 403) throw error;
  }
  if (!session.has("GET", "/v1/tenants/self")) return undefined;
  return (await session.get("/v1/tenants/self")).name;
}

async function send(token, method, path, { body, type, tag, signal, keep } = {}) {
  const headers = {};
  if (token) headers.Authorization = `Bearer ${token}`;
  if (type) headers["Content-Type"] = type;
  if (tag) headers["If-Match"] = tag;
  let response;
  try {
    response = await fetch(path, { method, headers, body, signal, credentials: "omit", redirect: "error", cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The host does not answer.");
  }
  const isJson = response.headers.get("Content-Type")?.includes("json");
  if (response.ok || (keep && isJson && ![401, 403].includes(response.status))) return response;
  throw new Refused(response.status, words(await response.text(), response.status));
}

/** What a refusal says: `detail` of RFC 9457, `error`, or the text. */
function words(text, status) {
  try {
    const said = JSON.parse(text);
    return said.detail ?? said.error ?? said.title ?? text;
  } catch {
    return text.trim() || `The host answers ${status}.`;
  }
}
