;; Calls itself until the stack ends.
(module
  (memory (export "memory") 1)
  (func $deeper (param i32) (result i32)
    (i32.add (local.get 0) (call $deeper (i32.add (local.get 0) (i32.const 1)))))
  (func (export "decide") (result i32)
    (call $deeper (i32.const 0))))
