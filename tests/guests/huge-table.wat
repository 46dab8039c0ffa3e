;; Starts with a table of a million elements.
(module
  (memory (export "memory") 1)
  (table 1000000 funcref)
  (func (export "decide") (result i32)
    i32.const 16))
