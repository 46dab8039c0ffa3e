;; Relays as the request itself leads, and after a failure names the next hop "carrier" with the header field "X-Trunk: b"; the best response
;; if that is refused.
(module
  (import "portcullis:policy/forwarding@0.1.0" "add"
    (func $add (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 256) "carrier")
  (data (i32.const 272) "X-Trunk" "b")
  ;; A header field: name and value (pointer, length).
  (data (i32.const 288) "\10\01\00\00" "\07\00\00\00" "\17\01\00\00" "\01\00\00\00")
  (func (export "decide") (result i32)
    ;; relay(none)
    i32.const 16)
  (func (export "on-failure") (result i32)
    (call $add
      (i32.const 0) (i32.const 256) (i32.const 7) ;; a next hop, its name
      (i32.const 0) (i32.const 1) ;; rank, weight
      (i32.const 0) (i32.const 0) (i32.const 0) ;; the request URI as received
      (i32.const 288) (i32.const 1) ;; the header field
      (i32.const 0) (i32.const 0) ;; no limit of the time until the first response
      (i32.const 0) (i32.const 0) ;; none of the time until the final response
      (i32.const 512))
    (if (i32.load8_u (i32.const 512)) (then (return (i32.const 32))))
    (i32.store8 (i32.const 64) (i32.const 2))
    ;; again
    i32.const 64))
