;; Sets a memo of 256 bytes, then one of 257, and relays.
(module
  (import "portcullis:policy/forwarding@0.1.0" "memo" (func $memo (param i32 i32 i32)))
  (memory (export "memory") 1)
  (func (export "decide") (result i32)
    (call $memo (i32.const 1024) (i32.const 256) (i32.const 512))
    (call $memo (i32.const 1024) (i32.const 257) (i32.const 512))
    ;; relay(none)
    i32.const 16))
