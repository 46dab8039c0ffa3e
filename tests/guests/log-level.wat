;; Logs with a level that does not exist.
(module
  (import "portcullis:policy/log@0.1.0" "log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 1)
  (func $level (export "decide") (result i32)
    (call $log (i32.const 7) (i32.const 64) (i32.const 2))
    i32.const 16))
