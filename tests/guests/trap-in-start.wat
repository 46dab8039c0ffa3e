;; Cannot get ready.
(module
  (memory (export "memory") 1)
  (func $broken
    unreachable)
  (start $broken)
  (func (export "decide") (result i32)
    i32.const 16))
