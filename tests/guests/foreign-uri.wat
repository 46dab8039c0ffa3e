;; Relays to a URI of its own choice, whatever the host answers.
(module
  (import "portcullis:policy/forwarding@0.1.0" "add"
    (func $add (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
  (memory (export "memory") 1)
  (data (i32.const 256) "sip:203.0.113.66")
  (func (export "decide") (result i32)
    (call $add
      (i32.const 1) (i32.const 256) (i32.const 16) ;; a URI
      (i32.const 0) (i32.const 1) ;; rank, weight
      (i32.const 0) (i32.const 0) (i32.const 0) ;; no request URI
      (i32.const 4) (i32.const 0) ;; no header fields
      (i32.const 0) (i32.const 0) ;; no limit of the time until the first response
      (i32.const 0) (i32.const 0) ;; none of the time until the final response
      (i32.const 512))
    ;; relay(none)
    i32.const 16))
