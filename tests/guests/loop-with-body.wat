;; Behaves when it is tried out, and never answers a request that has a body.
(module
  (import "portcullis:policy/request@0.1.0" "body-length" (func $body (result i32)))
  (memory (export "memory") 1)
  ;; A verdict at 16: case, then code, reason (pointer, length) and header fields (pointer, length).
  (data (i32.const 16) "\01\00\00\00" "\91\01\00\00" "\40\00\00\00" "\16\00\00\00" "\00\00\00\00" "\00\00\00\00")
  (data (i32.const 64) "Address not authorised")
  (func $forever (export "decide") (result i32)
    (if (call $body)
      (then
        (loop $again
          (br $again))))
    i32.const 16))
