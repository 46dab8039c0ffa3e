;; Points at a verdict that is not aligned.
(module
  (memory (export "memory") 1)
  (func (export "decide") (result i32)
    i32.const 17))
