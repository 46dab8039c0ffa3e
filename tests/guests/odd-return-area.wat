;; Wants a text's pointer and length written beyond its memory.
(module
  (import "portcullis:policy/request@0.1.0" "method" (func $method (param i32)))
  (memory (export "memory") 1)
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    i32.const 1024)
  (func $stray (export "decide") (result i32)
    (call $method (i32.const 65532))
    i32.const 16))
