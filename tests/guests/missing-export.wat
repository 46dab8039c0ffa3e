;; Has nothing that could be asked.
(module
  (memory (export "memory") 1)
  (func (export "decode") (result i32)
    i32.const 16))
