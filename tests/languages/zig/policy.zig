// The policy of the README in Zig, freestanding. The canonical ABI of the component model is written by hand.
const Text = extern struct { at: [*]const u8, length: usize };
const OptionalGroup = extern struct { is_some: u8, value: u32 };
const Header = extern struct { name: Text, value: Text };
const Relay = extern struct { has_hop: u8, hop: Text };
const Reject = extern struct { code: u16, reason: Text, headers: [*]const Header, number_of_headers: usize };
const Verdict = extern struct { is: u8, as: extern union { relay: Relay, reject: Reject } };

extern "portcullis:policy/request@0.1.0" fn method(result: *Text) void;
extern "portcullis:policy/permissions@0.1.0" fn @"source-address-group"(result: *OptionalGroup) void;
extern "portcullis:policy/log@0.1.0" fn log(level: u32, at: [*]const u8, length: usize) void;

const debug = 3;

// Memory for what the host passes. The host puts the memory back after each call, so nothing is ever freed.
var heap: [4096]u8 align(16) = undefined;
var used: usize = 0;
var result: Verdict = undefined;

export fn cabi_realloc(_: usize, _: usize, alignment: usize, size: usize) usize {
    const at = (used + alignment - 1) & ~(alignment - 1);
    if (size > heap.len or at > heap.len - size) @trap();
    used = at + size;
    return @intFromPtr(&heap) + at;
}

fn text(comptime literal: []const u8) Text {
    return .{ .at = literal.ptr, .length = literal.len };
}

fn is(one: Text, comptime other: []const u8) bool {
    if (one.length != other.len) return false;
    for (0..other.len) |i| if (one.at[i] != other[i]) return false;
    return true;
}

fn reject(code: u16, comptime reason: []const u8, headers: []const Header) *Verdict {
    result = .{ .is = 1, .as = .{ .reject = .{
        .code = code,
        .reason = text(reason),
        .headers = headers.ptr,
        .number_of_headers = headers.len,
    } } };
    return &result;
}

const why = [_]Header{.{ .name = text("X-Why"), .value = text("unknown source") }};

export fn decide() *Verdict {
    used = 0;
    var name: Text = undefined;
    method(&name);
    if (is(name, "REGISTER")) return reject(403, "No registrations here", &.{});

    var group: OptionalGroup = undefined;
    @"source-address-group"(&group);
    if (group.is_some == 0) {
        log(debug, "unknown source", 14);
        return reject(401, "Address not authorised", &why);
    }
    result = .{ .is = 0, .as = .{ .relay = .{ .has_hop = @intFromBool(group.value == 300), .hop = text("carrier-a") } } };
    return &result;
}
