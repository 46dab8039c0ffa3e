;; Adds a Via header field, which only the host writes.
(module
  (memory (export "memory") 1)
  ;; A verdict at 16: case, then code, reason (pointer, length) and header fields (pointer, length).
  (data (i32.const 16) "\01\00\00\00" "\91\01\00\00" "\40\00\00\00" "\00\00\00\00" "\50\00\00\00" "\01\00\00\00")
  ;; One header field: name and value, each pointer and length.
  (data (i32.const 80) "\80\00\00\00" "\03\00\00\00" "\90\00\00\00" "\07\00\00\00")
  (data (i32.const 128) "Via")
  (data (i32.const 144) "SIP/2.0")
  (func (export "decide") (result i32)
    i32.const 16))
