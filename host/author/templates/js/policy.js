// Routes calls by their source: the carrier's calls go back to the carrier, known addresses are relayed, all others are rejected.
import log from "portcullis:policy/log@0.1.0";
import permissions from "portcullis:policy/permissions@0.1.0";
import request from "portcullis:policy/request@0.1.0";

const relay = (hop = null) => ({ tag: "relay", val: hop });
const reject = (code, reason, headers = []) => ({ tag: "reject", val: { code, reason, headers } });

export function decide() {
  if (request.method() === "REGISTER") return reject(403, "No registrations here");

  const group = permissions.sourceAddressGroup();
  if (group === null || group === undefined) {
    log.log("debug", `${request.sourceAddress()} is not ours`);
    return reject(401, "Address not authorised", [{ name: "X-Why", value: "unknown source" }]);
  }
  return group === 300 ? relay("carrier-a") : relay();
}
