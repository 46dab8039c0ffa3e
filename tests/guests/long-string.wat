;; Answers with a reason phrase of 128 KiB, which fits its memory but no reply.
(module
  (memory (export "memory") 3)
  ;; A verdict at 16: case, then code, reason (pointer, length) and header fields (pointer, length).
  (data (i32.const 16) "\01\00\00\00" "\91\01\00\00" "\40\00\00\00" "\00\00\02\00" "\00\00\00\00" "\00\00\00\00")
  (func (export "decide") (result i32)
    i32.const 16))
