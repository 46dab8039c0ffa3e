;; Logs a line of 128 KiB, more than one call may pass to the host.
(module
  (import "portcullis:policy/log@0.1.0" "log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 3)
  (func (export "decide") (result i32)
    (call $log (i32.const 2) (i32.const 0) (i32.const 131072))
    i32.const 16))
