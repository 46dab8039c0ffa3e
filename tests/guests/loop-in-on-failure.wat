;; Relays, and never answers after a failure.
(module
  (memory (export "memory") 1)
  (func (export "decide") (result i32)
    ;; relay(none)
    i32.const 16)
  (func $forever (export "on-failure") (result i32)
    (loop $again
      (br $again))
    unreachable))
