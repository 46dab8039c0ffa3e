;; Was built against a later contract.
(module
  (import "portcullis:policy/request@0.9.0" "method" (func $method (param i32)))
  (memory (export "memory") 1)
  (func (export "decide") (result i32)
    (call $method (i32.const 512))
    i32.const 16))
