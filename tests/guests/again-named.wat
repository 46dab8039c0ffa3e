;; Relays to the next hop "trunk", and after a failure to the next hop "carrier"; the best response if that is refused.
(module
  (import "portcullis:policy/forwarding@0.1.0" "add"
    (func $add (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (memory (export "memory") 1)
  ;; relay(some): the case, then the name (pointer, length).
  (data (i32.const 16) "\00\00\00\00" "\01\00\00\00" "\08\01\00\00" "\05\00\00\00")
  (data (i32.const 256) "carrier")
  (data (i32.const 264) "trunk")
  (func (export "decide") (result i32)
    ;; relay(some("trunk"))
    i32.const 16)
  (func (export "on-failure") (result i32)
    (call $add
      (i32.const 0) (i32.const 256) (i32.const 7) ;; a next hop, its name
      (i32.const 0) (i32.const 1) ;; rank, weight
      (i32.const 0) (i32.const 0) (i32.const 0) ;; the request URI as received
      (i32.const 4) (i32.const 0) ;; no header fields
      (i32.const 0) (i32.const 0) ;; no limit of the time until the first response
      (i32.const 0) (i32.const 0) ;; none of the time until the final response
      (i32.const 512))
    (if (i32.load8_u (i32.const 512)) (then (return (i32.const 32))))
    (i32.store8 (i32.const 64) (i32.const 2))
    ;; again
    i32.const 64))
