;; Answers with a reason phrase of 100,000,000 bytes, all of which exist.
(module
  (memory (export "memory") 1)
  ;; A verdict at 16: case, then code, reason (pointer, length) and header fields (pointer, length).
  (data (i32.const 16) "\01\00\00\00" "\91\01\00\00" "\00\00\01\00" "\00\e1\f5\05" "\00\00\00\00" "\00\00\00\00")
  (func (export "decide") (result i32)
    (drop (memory.grow (i32.const 1600)))
    i32.const 16))
