;; Logs without end, then answers: 100 lines of 4,000 bytes.
(module
  (import "portcullis:policy/log@0.1.0" "log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 1)
  ;; A verdict at 16: case, then code, reason (pointer, length) and header fields (pointer, length).
  (data (i32.const 16) "\01\00\00\00" "\91\01\00\00" "\40\00\00\00" "\16\00\00\00" "\00\00\00\00" "\00\00\00\00")
  (data (i32.const 64) "Address not authorised")
  (func (export "decide") (result i32)
    (local $lines i32)
    (memory.fill (i32.const 1024) (i32.const 0x78) (i32.const 4000))
    ;; A line break in front, to be escaped.
    (i32.store8 (i32.const 1024) (i32.const 10))
    (loop $more
      (call $log (i32.const 2) (i32.const 1024) (i32.const 4000))
      (local.set $lines (i32.add (local.get $lines) (i32.const 1)))
      (br_if $more (i32.lt_u (local.get $lines) (i32.const 100))))
    i32.const 16))
