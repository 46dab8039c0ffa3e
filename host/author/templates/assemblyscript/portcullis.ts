// The functions of the contract (wit/routing-policy.wit) that most policies need, on the canonical ABI. The host resets memory after each
// call, so nothing is freed.

@external("portcullis:policy/request@0.1.0", "method") declare function rawMethod(ret: usize): void;
@external("portcullis:policy/request@0.1.0", "uri") declare function rawUri(ret: usize): void;
@external("portcullis:policy/request@0.1.0", "from-uri") declare function rawFromUri(ret: usize): void;
@external("portcullis:policy/request@0.1.0", "to-uri") declare function rawToUri(ret: usize): void;
@external("portcullis:policy/request@0.1.0", "call-id") declare function rawCallId(ret: usize): void;
@external("portcullis:policy/request@0.1.0", "source-address") declare function rawSourceAddress(ret: usize): void;
@external("portcullis:policy/request@0.1.0", "source-port") declare function rawSourcePort(): i32;
@external("portcullis:policy/request@0.1.0", "transport") declare function rawTransport(ret: usize): void;
@external("portcullis:policy/request@0.1.0", "header") declare function rawHeader(at: usize, length: i32, ret: usize): void;
@external("portcullis:policy/permissions@0.1.0", "allow-source-address") declare function rawAllowSourceAddress(group: u32): i32;
@external("portcullis:policy/permissions@0.1.0", "source-address-group") declare function rawSourceAddressGroup(ret: usize): void;
@external("portcullis:policy/permissions@0.1.0", "last-tag") declare function rawLastTag(ret: usize): void;
@external("portcullis:policy/log@0.1.0", "log") declare function rawLog(level: i32, at: usize, length: i32): void;
@external("portcullis:policy/counters@0.1.0", "add") declare function rawAdd(at: usize, length: i32, amount: u64, seconds: u32): u64;
@external("portcullis:policy/counters@0.1.0", "rate-limit") declare function rawRateLimit(at: usize, length: i32, perSecond: f64, burst: u32): i32;
@external("portcullis:policy/settings@0.1.0", "text") declare function rawText(at: usize, length: i32, ret: usize): void;
@external("portcullis:policy/settings@0.1.0", "integer") declare function rawInteger(at: usize, length: i32, ret: usize): void;
@external("portcullis:policy/clock@0.1.0", "now") declare function rawNow(): u64;
@external("portcullis:policy/edits@0.1.0", "add-header") declare function rawAddHeader(at: usize, length: i32, value: usize, valueLength: i32): i32;
@external("portcullis:policy/edits@0.1.0", "remove-header") declare function rawRemoveHeader(at: usize, length: i32): i32;

// Results that do not fit in a number.
const area: usize = memory.data(32, 8);

export function cabi_realloc(old: usize, oldSize: usize, align: usize, size: usize): usize {
  if (size == 0) return align;
  const made = heap.alloc(size);
  if (old != 0) memory.copy(made, old, min(oldSize, size));
  return made;
}

class Bytes {
  at: usize;
  length: i32;
  private bytes: ArrayBuffer;
  constructor(text: string) {
    this.bytes = String.UTF8.encode(text);
    this.at = changetype<usize>(this.bytes);
    this.length = this.bytes.byteLength;
  }
}

function lift(at: usize): string {
  return String.UTF8.decodeUnsafe(load<usize>(at), load<usize>(at, 4));
}

function liftOption(): string | null {
  return load<u8>(area) == 0 ? null : lift(area + 4);
}

export namespace request {
  export function method(): string { rawMethod(area); return lift(area); }
  export function uri(): string { rawUri(area); return lift(area); }
  export function fromUri(): string { rawFromUri(area); return lift(area); }
  export function toUri(): string { rawToUri(area); return lift(area); }
  export function callId(): string { rawCallId(area); return lift(area); }
  export function sourceAddress(): string { rawSourceAddress(area); return lift(area); }
  export function sourcePort(): i32 { return rawSourcePort(); }
  export function transport(): string { rawTransport(area); return lift(area); }
  /** The value of the first header field with this name. */
  export function header(name: string): string | null {
    const text = new Bytes(name);
    rawHeader(text.at, text.length, area);
    return liftOption();
  }
}

export namespace permissions {
  /** No group. */
  export const NONE: i64 = -1;
  export function allowSourceAddress(group: u32): bool { return rawAllowSourceAddress(group) != 0; }
  /** The group of the first row that matches the source, or NONE. */
  export function sourceAddressGroup(): i64 {
    rawSourceAddressGroup(area);
    return load<u8>(area) == 0 ? NONE : <i64>load<u32>(area, 4);
  }
  /** The tag of the row matched by the last query. */
  export function lastTag(): string | null { rawLastTag(area); return liftOption(); }
}

export namespace log {
  function line(level: i32, message: string): void {
    const text = new Bytes(message);
    rawLog(level, text.at, text.length);
  }
  export function error(message: string): void { line(0, message); }
  export function warn(message: string): void { line(1, message); }
  export function info(message: string): void { line(2, message); }
  export function debug(message: string): void { line(3, message); }
}

export namespace counters {
  /** Adds to a counter that expires `seconds` after its first addition, and returns its value. */
  export function add(name: string, amount: u64, seconds: u32): u64 {
    const text = new Bytes(name);
    return rawAdd(text.at, text.length, amount, seconds);
  }
  /** Whether the request is within the rate of its key. */
  export function rateLimit(key: string, perSecond: f64, burst: u32): bool {
    const text = new Bytes(key);
    return rawRateLimit(text.at, text.length, perSecond, burst) != 0;
  }
}

export namespace settings {
  export function text(key: string): string | null {
    const name = new Bytes(key);
    rawText(name.at, name.length, area);
    return liftOption();
  }
  /** The integer, or `otherwise` if there is none. */
  export function integer(key: string, otherwise: i64): i64 {
    const name = new Bytes(key);
    rawInteger(name.at, name.length, area);
    return load<u8>(area) == 0 ? otherwise : load<i64>(area, 8);
  }
}

export namespace clock {
  /** Milliseconds since 1970. */
  export function now(): u64 { return rawNow(); }
}

export namespace edits {
  export function addHeader(name: string, value: string): bool {
    const left = new Bytes(name);
    const right = new Bytes(value);
    return rawAddHeader(left.at, left.length, right.at, right.length) != 0;
  }
  export function removeHeader(name: string): bool {
    const text = new Bytes(name);
    return rawRemoveHeader(text.at, text.length) != 0;
  }
}

/** What the host does with the request. */
export class Verdict {
  private headers: Bytes[] = [];
  constructor(private tag: u8, private code: u16, private text: Bytes | null) {}

  /** Adds a header field to the response of `reject`. */
  header(name: string, value: string): Verdict {
    this.headers.push(new Bytes(name));
    this.headers.push(new Bytes(value));
    return this;
  }

  /** For the host: the address of the verdict. */
  lower(): usize {
    store<u8>(area, this.tag);
    const text = this.text;
    if (this.tag == 0) {
      store<u8>(area, text ? 1 : 0, 4);
      if (text) {
        store<usize>(area, text.at, 8);
        store<i32>(area, text.length, 12);
      }
    } else if (this.tag == 1) {
      store<u16>(area, this.code, 4);
      store<usize>(area, text ? text.at : 0, 8);
      store<i32>(area, text ? text.length : 0, 12);
      const fields = heap.alloc(max(8 * this.headers.length, 4));
      for (let at = 0; at < this.headers.length; at++) {
        store<usize>(fields + 8 * at, this.headers[at].at);
        store<i32>(fields + 8 * at, this.headers[at].length, 4);
      }
      store<usize>(area, fields, 16);
      store<i32>(area, this.headers.length / 2, 20);
    }
    return area;
  }
}

/** Relay the request as it is routed. */
export function relay(): Verdict { return new Verdict(0, 0, null); }
/** Relay the request to the next hop with this name in the host's configuration. */
export function relayTo(hop: string): Verdict { return new Verdict(0, 0, new Bytes(hop)); }
/** Respond with this status. */
export function reject(code: u16, reason: string): Verdict { return new Verdict(1, code, new Bytes(reason)); }
/** Drop the request without a response. */
export function drop(): Verdict { return new Verdict(2, 0, null); }
/** No decision: the next policy decides. */
export function pass(): Verdict { return new Verdict(3, 0, null); }

/** Logs what `throw` and `assert` say, and ends the call. */
export function abort(message: string | null, file: string | null, line: u32, column: u32): void {
  const said = message === null ? "the policy failed" : message;
  log.error(said + " at " + (file === null ? "" : file) + ":" + line.toString());
  unreachable();
}
