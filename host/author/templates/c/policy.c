// Routes calls by their source: the carrier's calls go back to the carrier, known addresses are relayed, all others are rejected.
#include "portcullis.h"

static verdict_t decide(void) {
    text_t method;
    portcullis_policy_request_method(&method);
    if (text_is(method, "REGISTER")) {
        return reject(403, "No registrations here");
    }

    uint32_t group;
    if (!portcullis_policy_permissions_source_address_group(&group)) {
        text_t source;
        portcullis_policy_request_source_address(&source);
        log_line(PORTCULLIS_POLICY_LOG_LEVEL_DEBUG, text_join(source, " is not ours"));
        return reject_with(401, "Address not authorised", "X-Why", "unknown source");
    }
    return group == 300 ? relay_to("carrier-a") : relay();
}

POLICY(decide)
