;; Never gets ready.
(module
  (memory (export "memory") 1)
  (func $forever
    (loop $again
      (br $again)))
  (start $forever)
  (func (export "decide") (result i32)
    i32.const 16))
