;; Answers 200, which no policy may.
(module
  (memory (export "memory") 1)
  ;; A verdict at 16: case, then code, reason (pointer, length) and header fields (pointer, length).
  (data (i32.const 16) "\01\00\00\00" "\c8\00\00\00" "\40\00\00\00" "\02\00\00\00" "\00\00\00\00" "\00\00\00\00")
  (data (i32.const 64) "OK")
  (func (export "decide") (result i32)
    i32.const 16))
