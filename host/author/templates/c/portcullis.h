// Short names for what a policy in C usually needs, on the generated bindings.
#ifndef PORTCULLIS_H
#define PORTCULLIS_H

#include "bindings/routing_policy.h"
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

typedef routing_policy_string_t text_t;
typedef routing_policy_verdict_t verdict_t;

// A text of the contract from a C string, without a copy.
static inline text_t text(const char *of) {
    text_t made = {(uint8_t *)of, strlen(of)};
    return made;
}

static inline bool text_is(text_t one, const char *other) {
    return one.len == strlen(other) && memcmp(one.ptr, other, one.len) == 0;
}

// Both texts as one, in new memory.
static inline text_t text_join(text_t one, const char *other) {
    text_t made = {malloc(one.len + strlen(other)), one.len + strlen(other)};
    memcpy(made.ptr, one.ptr, one.len);
    memcpy(made.ptr + one.len, other, strlen(other));
    return made;
}

// A copy in new memory. The bindings free the texts of a verdict after the call, so these must be copies.
static inline text_t text_copy(const char *of) {
    text_t made;
    routing_policy_string_dup(&made, of);
    return made;
}

// Writes one line to the host's log, with a level PORTCULLIS_POLICY_LOG_LEVEL_….
static inline void log_line(portcullis_policy_log_level_t level, text_t line) {
    portcullis_policy_log_log(level, &line);
}

// Relay the request as it is routed.
static inline verdict_t relay(void) {
    verdict_t made = {.tag = PORTCULLIS_POLICY_TYPES_VERDICT_RELAY};
    made.val.relay.is_some = false;
    return made;
}

// Relay the request to the next hop with this name in the host's configuration.
static inline verdict_t relay_to(const char *hop) {
    verdict_t made = relay();
    made.val.relay.is_some = true;
    made.val.relay.val = text_copy(hop);
    return made;
}

// Respond with this status. An empty reason stands for the standard phrase of the code.
static inline verdict_t reject(uint16_t code, const char *reason) {
    verdict_t made = {.tag = PORTCULLIS_POLICY_TYPES_VERDICT_REJECT};
    made.val.reject.code = code;
    made.val.reject.reason = text_copy(reason);
    made.val.reject.headers.ptr = NULL;
    made.val.reject.headers.len = 0;
    return made;
}

// The same with a header field in the response.
static inline verdict_t reject_with(uint16_t code, const char *reason, const char *name, const char *value) {
    verdict_t made = reject(code, reason);
    portcullis_policy_types_header_t *header = malloc(sizeof *header);
    header->name = text_copy(name);
    header->value = text_copy(value);
    made.val.reject.headers.ptr = header;
    made.val.reject.headers.len = 1;
    return made;
}

// Drop the request without a response.
static inline verdict_t drop_request(void) {
    verdict_t made = {.tag = PORTCULLIS_POLICY_TYPES_VERDICT_DROP};
    return made;
}

// No decision: the next policy decides.
static inline verdict_t pass(void) {
    verdict_t made = {.tag = PORTCULLIS_POLICY_TYPES_VERDICT_PASS};
    return made;
}

// Exports the function as the policy. The bindings also ask for an object file that says which world the policy is for: `portcullis policy build`
// says it.
#define POLICY(function)                                                                                                       \
    void __component_type_object_force_link_routing_policy(void) {}                                                            \
    void exports_routing_policy_decide(verdict_t *verdict) { *verdict = function(); }

#endif
