;; Wants another try after each failure, without end.
(module
  (import "portcullis:policy/forwarding@0.1.0" "add"
    (func $add (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 64) "\02")
  (data (i32.const 256) "carrier")
  ;; Adds the next hop named at 256; the result, at 512, is ignored.
  (func $carrier
    (call $add
      (i32.const 0) (i32.const 256) (i32.const 7) ;; a next hop, its name
      (i32.const 0) (i32.const 1) ;; rank, weight
      (i32.const 0) (i32.const 0) (i32.const 0) ;; no request URI
      (i32.const 4) (i32.const 0) ;; no header fields
      (i32.const 0) (i32.const 0) ;; no limit of the time until the first response
      (i32.const 0) (i32.const 0) ;; none of the time until the final response
      (i32.const 512)))
  (func (export "decide") (result i32)
    (call $carrier)
    ;; relay(none)
    i32.const 16)
  (func (export "on-failure") (result i32)
    (call $carrier)
    ;; again
    i32.const 64))
