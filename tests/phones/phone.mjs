// A phone over UDP, for the scripts that drive a browser.

import { strict as assert } from "node:assert";
import { createSocket } from "node:dgram";

/** A limit that only a step that fails reaches. */
export const PATIENCE = 20000;

/** The media of the phone, in the page: it answers and makes offers. */
export const MEDIA = `
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
export class Phone {
  constructor({ phone, sip }) {
    this.ip = phone;
    this.host = sip;
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
    await new Promise((resolve) => this.socket.bind(0, this.ip, resolve));
    this.address = `${this.ip}:${this.socket.address().port}`;
    return this;
  }

  send(text) {
    const [ip, port] = this.host.split(":");
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

export const uriOf = (contact) => contact.match(/<([^>]*)>/)[1];
