;; Wants another try after each failure, without end.
(module
  (import "portcullis:policy/forwarding@0.1.0" "add"
    (func $add (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "\02")
  (data (i32.const 256) "carrier")
  (data (i32.const 280) "sip:a@example.com")
  ;; Adds the next hop named at 256 with the request URI at 280; the result is at 512.
  (func $carrier
    (call $add
      (i32.const 0) (i32.const 256) (i32.const 7) ;; a next hop, its name
      (i32.const 0) (i32.const 1) ;; rank, weight
      (i32.const 1) (i32.const 280) (i32.const 17) ;; the request URI
      (i32.const 4) (i32.const 0) ;; no header fields
      (i32.const 0) (i32.const 0) ;; no limit of the time until the first response
      (i32.const 0) (i32.const 0) ;; none of the time until the final response
      (i32.const 512)))
  (func (export "decide") (result i32)
    (i32.store8 (i32.const 284) (i32.const 97))
    (call $carrier)
    ;; relay(none)
    i32.const 16)
  (func (export "on-failure") (result i32)
    (local $user i32)
    ;; the first user that has not been tried, from a to z
    (local.set $user (i32.const 97))
    (loop $more
      (i32.store8 (i32.const 284) (local.get $user))
      (call $carrier)
      (local.set $user (i32.add (local.get $user) (i32.const 1)))
      (br_if $more
        (i32.and (i32.load8_u (i32.const 512)) (i32.le_u (local.get $user) (i32.const 122)))))
    ;; again
    i32.const 64))
