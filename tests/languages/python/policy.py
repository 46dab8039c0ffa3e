# The policy of the README in Python, for componentize-py.
import wit_world
from wit_world.imports import log, permissions, request
from wit_world.imports.types import Header, Rejection, Verdict_Reject, Verdict_Relay


class WitWorld(wit_world.WitWorld):
    def decide(self):
        if request.method() == "REGISTER":
            return Verdict_Reject(Rejection(403, "No registrations here", []))
        group = permissions.source_address_group()
        if group is not None:
            return Verdict_Relay("carrier-a" if group == 300 else None)
        log.log(log.Level.DEBUG, "unknown source")
        why = Header("X-Why", "unknown source")
        return Verdict_Reject(Rejection(401, "Address not authorised", [why]))
