;; Fails as a panic does.
(module
  (memory (export "memory") 1)
  (func $broken (export "decide") (result i32)
    unreachable))
