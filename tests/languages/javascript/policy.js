// The policy of the README in JavaScript, for componentize-qjs.
import request from "portcullis:policy/request@0.1.0";
import permissions from "portcullis:policy/permissions@0.1.0";
import logger from "portcullis:policy/log@0.1.0";

const reject = (code, reason, headers = []) => ({ tag: "reject", val: { code, reason, headers } });

export function decide() {
  if (request.method() === "REGISTER") return reject(403, "No registrations here");
  const group = permissions.sourceAddressGroup();
  if (group === 300) return { tag: "relay", val: "carrier-a" };
  if (group !== null && group !== undefined) return { tag: "relay", val: null };
  logger.log("debug", "unknown source");
  return reject(401, "Address not authorised", [{ name: "X-Why", value: "unknown source" }]);
}
