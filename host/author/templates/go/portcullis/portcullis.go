// Package portcullis has the functions of the contract (wit/routing-policy.wit) that most policies need, on the canonical ABI.
package portcullis

import "unsafe"

// Verdict is what the host does with the request.
type Verdict struct {
	tag     uint32
	hop     *string
	code    uint16
	reason  string
	headers []string
}

// Relay relays the request as it is routed.
func Relay() Verdict { return Verdict{tag: 0} }

// RelayTo relays the request to the next hop with this name in the host's configuration.
func RelayTo(hop string) Verdict { return Verdict{tag: 0, hop: &hop} }

// Reject responds with this status. An empty reason stands for the standard phrase of the code.
func Reject(code uint16, reason string) Verdict { return Verdict{tag: 1, code: code, reason: reason} }

// Drop drops the request without a response.
func Drop() Verdict { return Verdict{tag: 2} }

// Pass decides nothing: the next policy decides.
func Pass() Verdict { return Verdict{tag: 3} }

// Header adds a header field to the response of Reject.
func (v Verdict) Header(name, value string) Verdict {
	v.headers = append(v.headers, name, value)
	return v
}

// Policy names the function that decides. Call it from init.
func Policy(function func() Verdict) { policy = function }

// The request.

func Method() string        { rawMethod(ret()); return text(0) }
func URI() string           { rawURI(ret()); return text(0) }
func FromURI() string       { rawFromURI(ret()); return text(0) }
func ToURI() string         { rawToURI(ret()); return text(0) }
func CallID() string        { rawCallID(ret()); return text(0) }
func SourceAddress() string { rawSourceAddress(ret()); return text(0) }
func SourcePort() uint16    { return uint16(rawSourcePort()) }
func Transport() string     { rawTransport(ret()); return text(0) }

// RequestHeader returns the value of the first header field with this name.
func RequestHeader(name string) (string, bool) {
	rawHeader(name, ret())
	return option()
}

// The address table.

func AllowSourceAddress(group uint32) bool { return rawAllowSourceAddress(group) != 0 }

// SourceAddressGroup returns the group of the first row that matches the source.
func SourceAddressGroup() (uint32, bool) {
	rawSourceAddressGroup(ret())
	return area[1], area[0]&0xff != 0
}

// LastTag returns the tag of the row matched by the last query.
func LastTag() (string, bool) {
	rawLastTag(ret())
	return option()
}

// The host's log.

func Error(line string) { rawLog(0, line) }
func Warn(line string)  { rawLog(1, line) }
func Info(line string)  { rawLog(2, line) }
func Debug(line string) { rawLog(3, line) }

// Counters, settings, time, header fields.

// Add adds to a counter that expires some seconds after its first addition, and returns its value.
func Add(name string, amount uint64, seconds uint32) uint64 { return rawAdd(name, amount, seconds) }

// RateLimit says whether the request is within the rate of its key.
func RateLimit(key string, perSecond float64, burst uint32) bool {
	return rawRateLimit(key, perSecond, burst) != 0
}

// Setting returns a text of the settings.
func Setting(key string) (string, bool) {
	rawText(key, ret())
	return option()
}

// SettingInteger returns an integer of the settings.
func SettingInteger(key string) (int64, bool) {
	rawInteger(key, ret())
	return int64(uint64(area[2]) | uint64(area[3])<<32), area[0]&0xff != 0
}

// Now returns the milliseconds since 1970.
func Now() uint64 { return rawNow() }

func AddHeader(name, value string) bool { return rawAddHeader(name, value) != 0 }
func RemoveHeader(name string) bool     { return rawRemoveHeader(name) != 0 }

var (
	policy func() Verdict
	// Results that do not fit in a number, and the verdict, in the host's layout.
	area [8]uint32
	// Keeps memory that the host has asked for until the call is over.
	kept [][]byte
	// The list of the verdict's header fields, and their texts.
	fields []uint32
	texts  []string
)

func ret() unsafe.Pointer { return unsafe.Pointer(&area) }

func address(s string) uint32 { return uint32(uintptr(unsafe.Pointer(unsafe.StringData(s)))) }

func text(at int) string {
	bytes := (*byte)(unsafe.Pointer(uintptr(area[at])))
	return string(unsafe.Slice(bytes, area[at+1]))
}

func option() (string, bool) {
	if area[0]&0xff == 0 {
		return "", false
	}
	return text(1), true
}

//go:wasmexport cabi_realloc
func realloc(old unsafe.Pointer, oldSize, align, size uint32) unsafe.Pointer {
	// Addresses of at least 8 bytes are multiples of 8.
	made := make([]byte, max(size, 8))
	if oldSize > 0 {
		copy(made, unsafe.Slice((*byte)(old), oldSize))
	}
	kept = append(kept, made)
	return unsafe.Pointer(unsafe.SliceData(made))
}

//go:wasmexport decide
func decide() unsafe.Pointer {
	kept = kept[:0]
	verdict := policy()
	texts, fields = texts[:0], fields[:0]
	lower := func(s string) (uint32, uint32) {
		texts = append(texts, s)
		return address(s), uint32(len(s))
	}
	area[0] = verdict.tag
	switch {
	case verdict.tag == 0 && verdict.hop == nil:
		area[1] = 0
	case verdict.tag == 0:
		area[1] = 1
		area[2], area[3] = lower(*verdict.hop)
	case verdict.tag == 1:
		area[1] = uint32(verdict.code)
		area[2], area[3] = lower(verdict.reason)
		for _, part := range verdict.headers {
			at, length := lower(part)
			fields = append(fields, at, length)
		}
		area[4] = uint32(uintptr(unsafe.Pointer(unsafe.SliceData(fields))))
		area[5] = uint32(len(verdict.headers) / 2)
	}
	return ret()
}

//go:wasmimport portcullis:policy/request@0.1.0 method
func rawMethod(ret unsafe.Pointer)

//go:wasmimport portcullis:policy/request@0.1.0 uri
func rawURI(ret unsafe.Pointer)

//go:wasmimport portcullis:policy/request@0.1.0 from-uri
func rawFromURI(ret unsafe.Pointer)

//go:wasmimport portcullis:policy/request@0.1.0 to-uri
func rawToURI(ret unsafe.Pointer)

//go:wasmimport portcullis:policy/request@0.1.0 call-id
func rawCallID(ret unsafe.Pointer)

//go:wasmimport portcullis:policy/request@0.1.0 source-address
func rawSourceAddress(ret unsafe.Pointer)

//go:wasmimport portcullis:policy/request@0.1.0 source-port
func rawSourcePort() uint32

//go:wasmimport portcullis:policy/request@0.1.0 transport
func rawTransport(ret unsafe.Pointer)

//go:wasmimport portcullis:policy/request@0.1.0 header
func rawHeader(name string, ret unsafe.Pointer)

//go:wasmimport portcullis:policy/permissions@0.1.0 allow-source-address
func rawAllowSourceAddress(group uint32) uint32

//go:wasmimport portcullis:policy/permissions@0.1.0 source-address-group
func rawSourceAddressGroup(ret unsafe.Pointer)

//go:wasmimport portcullis:policy/permissions@0.1.0 last-tag
func rawLastTag(ret unsafe.Pointer)

//go:wasmimport portcullis:policy/log@0.1.0 log
func rawLog(level uint32, line string)

//go:wasmimport portcullis:policy/counters@0.1.0 add
func rawAdd(name string, amount uint64, seconds uint32) uint64

//go:wasmimport portcullis:policy/counters@0.1.0 rate-limit
func rawRateLimit(key string, perSecond float64, burst uint32) uint32

//go:wasmimport portcullis:policy/settings@0.1.0 text
func rawText(key string, ret unsafe.Pointer)

//go:wasmimport portcullis:policy/settings@0.1.0 integer
func rawInteger(key string, ret unsafe.Pointer)

//go:wasmimport portcullis:policy/clock@0.1.0 now
func rawNow() uint64

//go:wasmimport portcullis:policy/edits@0.1.0 add-header
func rawAddHeader(name, value string) uint32

//go:wasmimport portcullis:policy/edits@0.1.0 remove-header
func rawRemoveHeader(name string) uint32
