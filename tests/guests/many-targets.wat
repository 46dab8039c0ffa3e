;; Adds 17 targets, one more than a request may have, and relays to them.
(module
  (import "portcullis:policy/forwarding@0.1.0" "add"
    (func $add (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 256) "carrier")
  (data (i32.const 280) "sip:a@example.com")
  ;; Adds the next hop named at 256 with the request URI at 280; the result, at 512, is ignored.
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
    (local $left i32)
    (local.set $left (i32.const 17))
    (i32.store8 (i32.const 284) (i32.const 97))
    (loop $more
      (call $carrier)
      ;; the next letter
      (i32.store8 (i32.const 284) (i32.add (i32.load8_u (i32.const 284)) (i32.const 1)))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br_if $more (local.get $left)))
    ;; relay(none)
    i32.const 16))
