;; Tries to smuggle a header field in with the reason phrase.
(module
  (memory (export "memory") 1)
  ;; A verdict at 16: case, then code, reason (pointer, length) and header fields (pointer, length).
  (data (i32.const 16) "\01\00\00\00" "\91\01\00\00" "\40\00\00\00" "\11\00\00\00" "\00\00\00\00" "\00\00\00\00")
  (data (i32.const 64) "No\0d\0aX-Smuggled: 1")
  (func (export "decide") (result i32)
    i32.const 16))
