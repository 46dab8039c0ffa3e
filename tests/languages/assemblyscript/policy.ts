// The policy of the README in AssemblyScript. The canonical ABI of the component model is written by hand.
@external("portcullis:policy/request@0.1.0", "method")
declare function requestMethod(result: usize): void;
@external("portcullis:policy/permissions@0.1.0", "source-address-group")
declare function sourceAddressGroup(result: usize): void;
@external("portcullis:policy/log@0.1.0", "log")
declare function logLine(level: i32, at: usize, length: i32): void;

const DEBUG = 3;

// Where results of several values are written.
const area: usize = memory.data(64, 8);

export function cabi_realloc(old: usize, oldSize: usize, alignment: usize, size: usize): usize {
  return size == 0 ? alignment : heap.alloc(size);
}

function put(text: string, at: usize): void {
  const bytes = String.UTF8.encode(text);
  store<usize>(at, changetype<usize>(bytes));
  store<usize>(at, bytes.byteLength, 4);
}

function reject(code: u16, reason: string): usize {
  store<u8>(area, 1);
  store<u16>(area, code, 4);
  put(reason, area + 8);
  store<usize>(area, 0, 16);
  store<usize>(area, 0, 20);
  return area;
}

export function decide(): usize {
  requestMethod(area);
  const method = String.UTF8.decodeUnsafe(load<usize>(area), load<usize>(area, 4));
  if (method == "REGISTER") return reject(403, "No registrations here");

  sourceAddressGroup(area);
  if (load<u8>(area) == 0) {
    const line = String.UTF8.encode("unknown source");
    logLine(DEBUG, changetype<usize>(line), line.byteLength);
    const verdict = reject(401, "Address not authorised");
    store<usize>(area, area + 32, 16);
    store<usize>(area, 1, 20);
    put("X-Why", area + 32);
    put("unknown source", area + 40);
    return verdict;
  }
  const isCarrier = load<u32>(area, 4) == 300;
  store<u8>(area, 0);
  store<u8>(area, isCarrier ? 1 : 0, 4);
  if (isCarrier) put("carrier-a", area + 8);
  return area;
}
