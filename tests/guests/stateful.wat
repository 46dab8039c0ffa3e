;; Counts its calls and answers with the count: 301, 302, … In fresh sandboxes it is always 301.
(module
  (memory (export "memory") 1)
  (global $calls (mut i32) (i32.const 300))
  ;; A verdict at 16: case, then code, reason (pointer, length) and header fields (pointer, length).
  (data (i32.const 16) "\01\00\00\00" "\91\01\00\00" "\40\00\00\00" "\00\00\00\00" "\00\00\00\00" "\00\00\00\00")
  (func (export "decide") (result i32)
    (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
    (i32.store16 (i32.const 20) (global.get $calls))
    i32.const 16))
