// The policy of the README in Go. The canonical ABI of the component model is written by hand.
package main

import "unsafe"

//go:wasmimport portcullis:policy/request@0.1.0 method
func requestMethod(result unsafe.Pointer)

//go:wasmimport portcullis:policy/permissions@0.1.0 source-address-group
func sourceAddressGroup(result unsafe.Pointer)

//go:wasmimport portcullis:policy/log@0.1.0 log
func logLine(level int32, at unsafe.Pointer, length uint32)

const debug = 3

// Addresses in the memory of the policy have 32 bits. The value of a variant follows its case in the next multiple of four bytes.
type text struct{ at, length uint32 }

type optionalGroup struct {
	isSome uint8
	value  uint32
}

type header struct{ name, value text }

type relay struct {
	is     uint32
	hasHop uint8
	hop    text
}

type rejection struct {
	is              uint32
	code            uint16
	reason          text
	headers         uint32
	numberOfHeaders uint32
}

// What the host reads or writes must be referenced by a variable, because the garbage collector does not see its addresses.
var (
	method   text
	group    optionalGroup
	relayed  relay
	rejected rejection
	headers  [1]header
	passed   [][]byte
)

//go:wasmexport cabi_realloc
func cabiRealloc(old, oldSize, alignment, size uint32) uint32 {
	bytes := make([]byte, size+alignment)
	passed = append(passed, bytes)
	at := uint32(uintptr(unsafe.Pointer(&bytes[0])))
	return (at + alignment - 1) &^ (alignment - 1)
}

// textOf needs a text that lives as long as the program, such as a constant.
func textOf(s string) text {
	return text{uint32(uintptr(unsafe.Pointer(unsafe.StringData(s)))), uint32(len(s))}
}

func (t text) String() string {
	return unsafe.String((*byte)(unsafe.Pointer(uintptr(t.at))), t.length)
}

func reject(code uint16, reason string, number uint32) unsafe.Pointer {
	rejected = rejection{
		is:              1,
		code:            code,
		reason:          textOf(reason),
		headers:         uint32(uintptr(unsafe.Pointer(&headers))),
		numberOfHeaders: number,
	}
	return unsafe.Pointer(&rejected)
}

//go:wasmexport decide
func decide() unsafe.Pointer {
	passed = passed[:0]
	requestMethod(unsafe.Pointer(&method))
	if method.String() == "REGISTER" {
		return reject(403, "No registrations here", 0)
	}
	sourceAddressGroup(unsafe.Pointer(&group))
	if group.isSome == 0 {
		line := textOf("unknown source")
		logLine(debug, unsafe.Pointer(uintptr(line.at)), line.length)
		headers[0] = header{textOf("X-Why"), textOf("unknown source")}
		return reject(401, "Address not authorised", 1)
	}
	relayed = relay{}
	if group.value == 300 {
		relayed = relay{hasHop: 1, hop: textOf("carrier-a")}
	}
	return unsafe.Pointer(&relayed)
}

func main() {}
