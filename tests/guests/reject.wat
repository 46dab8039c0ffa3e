;; A policy that knows one answer: 401 Address not authorised.
(module
  (memory (export "memory") 1)
  ;; A verdict at 16: case, then code, reason (pointer, length) and header fields (pointer, length).
  (data (i32.const 16) "\01\00\00\00" "\91\01\00\00" "\40\00\00\00" "\16\00\00\00" "\00\00\00\00" "\00\00\00\00")
  (data (i32.const 64) "Address not authorised")
  (func (export "decide") (result i32)
    i32.const 16))
