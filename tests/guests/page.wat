;; The reference page: groups 200 and 250 are relayed, everyone else gets a 401.
(module
  (import "portcullis:policy/permissions@0.1.0" "allow-source-address" (func $allow (param i32) (result i32)))
  (import "portcullis:policy/log@0.1.0" "log" (func $log (param i32 i32 i32)))
  (memory (export "memory") 1)
  ;; A verdict at 16: case, then code, reason (pointer, length) and header fields (pointer, length).
  (data (i32.const 16) "\01\00\00\00" "\91\01\00\00" "\40\00\00\00" "\16\00\00\00" "\00\00\00\00" "\00\00\00\00")
  (data (i32.const 64) "Address not authorised")
  ;; relay, as routed
  (data (i32.const 128) "\00\00\00\00" "\00\00\00\00")
  (data (i32.const 256) "Coming from address group 200")
  (data (i32.const 320) "Coming from address group 250")
  (func (export "decide") (result i32)
    (if (call $allow (i32.const 200))
      (then
        (call $log (i32.const 2) (i32.const 256) (i32.const 29))
        (return (i32.const 128))))
    (if (call $allow (i32.const 250))
      (then
        (call $log (i32.const 2) (i32.const 320) (i32.const 29))
        (return (i32.const 128))))
    i32.const 16))
