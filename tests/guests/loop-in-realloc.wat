;; Never gives the host the memory that it needs for a text.
(module
  (import "portcullis:policy/request@0.1.0" "method" (func $method (param i32)))
  (memory (export "memory") 1)
  ;; A verdict at 16: case, then code, reason (pointer, length) and header fields (pointer, length).
  (data (i32.const 16) "\01\00\00\00" "\91\01\00\00" "\40\00\00\00" "\16\00\00\00" "\00\00\00\00" "\00\00\00\00")
  (data (i32.const 64) "Address not authorised")
  (func $realloc (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (loop $again
      (br $again))
    unreachable)
  (func (export "decide") (result i32)
    (call $method (i32.const 512))
    i32.const 16))
