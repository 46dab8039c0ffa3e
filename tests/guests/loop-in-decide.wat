;; Never answers.
(module
  (memory (export "memory") 1)
  (func $forever (export "decide") (result i32)
    (loop $again
      (br $again))
    unreachable))
