;; Relays, and never answers after a failure as long as it could try again: not in the trial run.
(module
  (import "portcullis:policy/outcome@0.1.0" "tries-left" (func $tries (result i32)))
  (memory (export "memory") 1)
  (func (export "decide") (result i32)
    ;; relay(none)
    i32.const 16)
  (func (export "on-failure") (result i32)
    (loop $again
      (br_if $again (call $tries)))
    ;; best
    i32.const 32))
