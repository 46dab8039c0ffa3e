;; Wants a function that the interface does not have.
(module
  (import "portcullis:policy/request@0.1.0" "body" (func $body (param i32)))
  (memory (export "memory") 1)
  (func (export "decide") (result i32)
    (call $body (i32.const 512))
    i32.const 16))
