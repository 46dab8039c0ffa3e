;; Starts with 100 MiB of memory.
(module
  (memory (export "memory") 1600)
  (func (export "decide") (result i32)
    i32.const 16))
