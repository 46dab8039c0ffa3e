// Routes calls by their source: the carrier's calls go back to the carrier, known addresses are relayed, all others are rejected.
import { log, permissions, reject, relay, relayTo, request, Verdict } from "./portcullis";
export { cabi_realloc } from "./portcullis";

function policy(): Verdict {
  if (request.method() == "REGISTER") return reject(403, "No registrations here");
  const group = permissions.sourceAddressGroup();
  if (group == permissions.NONE) {
    log.debug(request.sourceAddress() + " is not ours");
    return reject(401, "Address not authorised").header("X-Why", "unknown source");
  }
  return group == 300 ? relayTo("carrier-a") : relay();
}

export function decide(): usize {
  return policy().lower();
}
