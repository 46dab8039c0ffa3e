// The policy of the README in C, without a library. The canonical ABI of the component model is written by hand: a text is a pointer and a
// length, and a result of several values is written where the caller says.
#include <stddef.h>
#include <stdint.h>

#define FROM(interface, function) __attribute__((import_module("portcullis:policy/" interface "@0.1.0"), import_name(function)))
#define EXPORT(name) __attribute__((export_name(name)))

typedef struct {
    const char *at;
    size_t length;
} text;

typedef struct {
    uint8_t is_some;
    uint32_t value;
} optional_group;

typedef struct {
    text name;
    text value;
} header;

// A verdict: 0 is relay, with an optional next hop; 1 is reject.
typedef struct {
    uint8_t is;
    union {
        struct {
            uint8_t has_hop;
            text hop;
        } relay;
        struct {
            uint16_t code;
            text reason;
            const header *headers;
            size_t number_of_headers;
        } reject;
    };
} verdict;

enum { DEBUG = 3 };

FROM("request", "method") void request_method(text *result);
FROM("request", "source-address") void request_source_address(text *result);
FROM("permissions", "source-address-group") void source_address_group(optional_group *result);
FROM("log", "log") void log_line(int level, const char *at, size_t length);

static verdict result;

// Memory for what the host passes. The host puts the memory back after each call, so nothing is ever freed.
static char heap[4096];
static size_t used;

EXPORT("cabi_realloc") void *cabi_realloc(void *old, size_t old_size, size_t alignment, size_t size) {
    (void)old, (void)old_size;
    size_t at = (used + alignment - 1) & ~(alignment - 1);
    if (size > sizeof heap || at > sizeof heap - size) __builtin_trap();
    used = at + size;
    return heap + at;
}

#define TEXT(literal) ((text){literal, sizeof literal - 1})

static int is(text one, text other) {
    if (one.length != other.length) return 0;
    for (size_t i = 0; i < one.length; i++)
        if (one.at[i] != other.at[i]) return 0;
    return 1;
}

static verdict *reject(uint16_t code, text reason, const header *headers, size_t number_of_headers) {
    result = (verdict){.is = 1, .reject = {code, reason, headers, number_of_headers}};
    return &result;
}

EXPORT("decide") verdict *decide(void) {
    used = 0;
    text method;
    request_method(&method);
    if (is(method, TEXT("REGISTER"))) return reject(403, TEXT("No registrations here"), NULL, 0);

    optional_group group;
    source_address_group(&group);
    if (!group.is_some) {
        static const header why = {{"X-Why", 5}, {"unknown source", 14}};
        log_line(DEBUG, "unknown source", 14);
        return reject(401, TEXT("Address not authorised"), &why, 1);
    }
    result = (verdict){.is = 0, .relay = {group.value == 300, TEXT("carrier-a")}};
    return &result;
}
