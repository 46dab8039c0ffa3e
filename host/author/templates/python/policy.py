"""Routes calls by their source: the carrier's calls go back to the carrier, known addresses are relayed, all others are rejected."""

import wit_world
from wit_world.imports import log, permissions, request
from wit_world.imports.types import Header, Rejection, Verdict_Reject, Verdict_Relay


class WitWorld(wit_world.WitWorld):
    def decide(self):
        if request.method() == "REGISTER":
            return Verdict_Reject(Rejection(403, "No registrations here", []))

        group = permissions.source_address_group()
        if group is None:
            log.log(log.Level.DEBUG, f"{request.source_address()} is not ours")
            why = Header("X-Why", "unknown source")
            return Verdict_Reject(Rejection(401, "Address not authorised", [why]))
        return Verdict_Relay("carrier-a" if group == 300 else None)
