;; Relays, and fails after a failure.
(module
  (memory (export "memory") 1)
  (func (export "decide") (result i32)
    ;; relay(none)
    i32.const 16)
  (func (export "on-failure") (result i32)
    unreachable))
