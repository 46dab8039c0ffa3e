//! The functions of the contract (wit/routing-policy.wit) that most policies need, on the canonical ABI. The host resets memory after each
//! call, so nothing is freed.

pub const Header = struct { name: []const u8, value: []const u8 };

pub const Verdict = union(enum) {
    /// To the next hop with this name, or as the request is routed.
    relay: ?[]const u8,
    reject: struct { code: u16, reason: []const u8, headers: []const Header },
    /// The sender gets no response.
    drop,
    /// The next policy decides.
    pass,
};

pub fn relay() Verdict {
    return .{ .relay = null };
}

pub fn relayTo(hop: []const u8) Verdict {
    return .{ .relay = hop };
}

pub fn reject(code: u16, reason: []const u8) Verdict {
    return rejectWith(code, reason, &.{});
}

pub fn rejectWith(code: u16, reason: []const u8, headers: []const Header) Verdict {
    return .{ .reject = .{ .code = code, .reason = reason, .headers = headers } };
}

pub const request = struct {
    const Get = *const fn (*Text) callconv(.c) void;
    fn text(get: Get) []const u8 {
        var ret: Text = undefined;
        get(&ret);
        return ret.slice();
    }
    pub fn method() []const u8 {
        return text(raw.request.method);
    }
    pub fn uri() []const u8 {
        return text(raw.request.uri);
    }
    pub fn fromUri() []const u8 {
        return text(raw.request.@"from-uri");
    }
    pub fn toUri() []const u8 {
        return text(raw.request.@"to-uri");
    }
    pub fn callId() []const u8 {
        return text(raw.request.@"call-id");
    }
    pub fn sourceAddress() []const u8 {
        return text(raw.request.@"source-address");
    }
    pub fn sourcePort() u16 {
        return @truncate(raw.request.@"source-port"());
    }
    pub fn transport() []const u8 {
        return text(raw.request.transport);
    }
    /// The value of the first header field with this name.
    pub fn header(name: []const u8) ?[]const u8 {
        var ret: Maybe(Text) = undefined;
        raw.request.header(name.ptr, name.len, &ret);
        return if (ret.is == 0) null else ret.value.slice();
    }
};

pub const permissions = struct {
    pub fn allowSourceAddress(group: u32) bool {
        return raw.permissions.@"allow-source-address"(group) != 0;
    }
    pub fn sourceAddressGroup() ?u32 {
        var ret: Maybe(u32) = undefined;
        raw.permissions.@"source-address-group"(&ret);
        return if (ret.is == 0) null else ret.value;
    }
    /// The tag of the row matched by the last query.
    pub fn lastTag() ?[]const u8 {
        var ret: Maybe(Text) = undefined;
        raw.permissions.@"last-tag"(&ret);
        return if (ret.is == 0) null else ret.value.slice();
    }
};

pub const log = struct {
    pub fn err(line: []const u8) void {
        raw.log.log(0, line.ptr, line.len);
    }
    pub fn warn(line: []const u8) void {
        raw.log.log(1, line.ptr, line.len);
    }
    pub fn info(line: []const u8) void {
        raw.log.log(2, line.ptr, line.len);
    }
    pub fn debug(line: []const u8) void {
        raw.log.log(3, line.ptr, line.len);
    }
};

pub const counters = struct {
    /// Adds to a counter that expires `seconds` after its first addition, and returns its value.
    pub fn add(name: []const u8, amount: u64, seconds: u32) u64 {
        return raw.counters.add(name.ptr, name.len, amount, seconds);
    }
    /// Whether the request is within the rate of its key.
    pub fn rateLimit(key: []const u8, per_second: f64, burst: u32) bool {
        return raw.counters.@"rate-limit"(key.ptr, key.len, per_second, burst) != 0;
    }
};

pub const settings = struct {
    pub fn text(key: []const u8) ?[]const u8 {
        var ret: Maybe(Text) = undefined;
        raw.settings.text(key.ptr, key.len, &ret);
        return if (ret.is == 0) null else ret.value.slice();
    }
    pub fn integer(key: []const u8) ?i64 {
        var ret: Maybe(i64) = undefined;
        raw.settings.integer(key.ptr, key.len, &ret);
        return if (ret.is == 0) null else ret.value;
    }
};

pub const clock = struct {
    /// Milliseconds since 1970.
    pub fn now() u64 {
        return raw.clock.now();
    }
};

pub const edits = struct {
    pub fn addHeader(name: []const u8, value: []const u8) bool {
        return raw.edits.@"add-header"(name.ptr, name.len, value.ptr, value.len) != 0;
    }
    pub fn removeHeader(name: []const u8) bool {
        return raw.edits.@"remove-header"(name.ptr, name.len) != 0;
    }
};

pub fn eql(one: []const u8, other: []const u8) bool {
    if (one.len != other.len) return false;
    for (one, other) |a, b| if (a != b) return false;
    return true;
}

/// All parts as one text, in new memory.
pub fn join(parts: []const []const u8) []const u8 {
    var length: usize = 0;
    for (parts) |part| length += part.len;
    const all = take(1, length)[0..length];
    var at: usize = 0;
    for (parts) |part| {
        @memcpy(all[at..][0..part.len], part);
        at += part.len;
    }
    return all;
}

/// Exports the function as the policy.
pub fn policy(comptime function: fn () Verdict) void {
    const exported = struct {
        fn decide() callconv(.c) *Lowered {
            used = 0;
            lower(function());
            return &lowered;
        }
    };
    @export(&exported.decide, .{ .name = "decide" });
    @export(&realloc, .{ .name = "cabi_realloc" });
}

const Text = extern struct {
    at: [*]const u8,
    length: usize,

    fn of(bytes: []const u8) Text {
        return .{ .at = bytes.ptr, .length = bytes.len };
    }
    fn slice(self: Text) []const u8 {
        return self.at[0..self.length];
    }
};
fn Maybe(comptime T: type) type {
    return extern struct { is: u8, value: T };
}

const Lowered = extern struct { tag: u8, as: extern union {
    relay: Maybe(Text),
    reject: extern struct { code: u16, reason: Text, headers: extern struct { at: [*]const Field, length: usize } },
} };
const Field = extern struct { name: Text, value: Text };
var lowered: Lowered = undefined;

fn lower(verdict: Verdict) void {
    switch (verdict) {
        .relay => |hop| {
            lowered.tag = 0;
            lowered.as = .{ .relay = .{ .is = if (hop == null) 0 else 1, .value = Text.of(hop orelse "") } };
        },
        .reject => |it| {
            const fields: [*]Field = @ptrCast(@alignCast(take(@alignOf(Field), it.headers.len * @sizeOf(Field))));
            for (it.headers, 0..) |header, at| fields[at] = .{ .name = Text.of(header.name), .value = Text.of(header.value) };
            lowered.tag = 1;
            lowered.as = .{ .reject = .{ .code = it.code, .reason = Text.of(it.reason), .headers = .{ .at = fields, .length = it.headers.len } } };
        },
        .drop => lowered.tag = 2,
        .pass => lowered.tag = 3,
    }
}

var heap: [65536]u8 align(16) = undefined;
var used: usize = 0;

fn take(alignment: usize, size: usize) [*]u8 {
    const start = (used + alignment - 1) & ~(alignment - 1);
    if (size > heap.len - start) @trap();
    used = start + size;
    return heap[start..].ptr;
}

fn realloc(old: usize, old_size: usize, alignment: usize, size: usize) callconv(.c) [*]u8 {
    const new = take(alignment, size);
    const bytes: [*]const u8 = @ptrFromInt(if (old == 0) 1 else old);
    for (0..@min(old_size, size)) |at| new[at] = bytes[at];
    return new;
}

const raw = struct {
    const request = struct {
        extern "portcullis:policy/request@0.1.0" fn method(*Text) void;
        extern "portcullis:policy/request@0.1.0" fn uri(*Text) void;
        extern "portcullis:policy/request@0.1.0" fn @"from-uri"(*Text) void;
        extern "portcullis:policy/request@0.1.0" fn @"to-uri"(*Text) void;
        extern "portcullis:policy/request@0.1.0" fn @"call-id"(*Text) void;
        extern "portcullis:policy/request@0.1.0" fn @"source-address"(*Text) void;
        extern "portcullis:policy/request@0.1.0" fn @"source-port"() u32;
        extern "portcullis:policy/request@0.1.0" fn transport(*Text) void;
        extern "portcullis:policy/request@0.1.0" fn header([*]const u8, usize, *Maybe(Text)) void;
    };
    const permissions = struct {
        extern "portcullis:policy/permissions@0.1.0" fn @"allow-source-address"(u32) u32;
        extern "portcullis:policy/permissions@0.1.0" fn @"source-address-group"(*Maybe(u32)) void;
        extern "portcullis:policy/permissions@0.1.0" fn @"last-tag"(*Maybe(Text)) void;
    };
    const log = struct {
        extern "portcullis:policy/log@0.1.0" fn log(u32, [*]const u8, usize) void;
    };
    const counters = struct {
        extern "portcullis:policy/counters@0.1.0" fn add([*]const u8, usize, u64, u32) u64;
        extern "portcullis:policy/counters@0.1.0" fn @"rate-limit"([*]const u8, usize, f64, u32) u32;
    };
    const settings = struct {
        extern "portcullis:policy/settings@0.1.0" fn text([*]const u8, usize, *Maybe(Text)) void;
        extern "portcullis:policy/settings@0.1.0" fn integer([*]const u8, usize, *Maybe(i64)) void;
    };
    const clock = struct {
        extern "portcullis:policy/clock@0.1.0" fn now() u64;
    };
    const edits = struct {
        extern "portcullis:policy/edits@0.1.0" fn @"add-header"([*]const u8, usize, [*]const u8, usize) u32;
        extern "portcullis:policy/edits@0.1.0" fn @"remove-header"([*]const u8, usize) u32;
    };
};
