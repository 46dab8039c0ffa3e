;; Logs a line that lies beyond its memory.
(module
  (import "portcullis:policy/log@0.1.0" "log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 1)
  (func $stray (export "decide") (result i32)
    (call $log (i32.const 2) (i32.const 65530) (i32.const 100))
    i32.const 16))
