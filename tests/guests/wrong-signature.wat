;; Has a `decide` that wants arguments.
(module
  (memory (export "memory") 1)
  (func (export "decide") (param i64) (result i32)
    i32.const 16))
