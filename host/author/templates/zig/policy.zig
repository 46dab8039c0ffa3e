//! Routes calls by their source: the carrier's calls go back to the carrier, known addresses are relayed, all others are rejected.
const portcullis = @import("portcullis.zig");
const log = portcullis.log;
const permissions = portcullis.permissions;
const request = portcullis.request;
const Verdict = portcullis.Verdict;

fn decide() Verdict {
    if (portcullis.eql(request.method(), "REGISTER")) {
        return portcullis.reject(403, "No registrations here");
    }
    const group = permissions.sourceAddressGroup() orelse {
        log.debug(portcullis.join(&.{ request.sourceAddress(), " is not ours" }));
        return portcullis.rejectWith(401, "Address not authorised", &.{.{ .name = "X-Why", .value = "unknown source" }});
    };
    return if (group == 300) portcullis.relayTo("carrier-a") else portcullis.relay();
}

comptime {
    portcullis.policy(decide);
}
