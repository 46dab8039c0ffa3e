;; Takes table elements as long as there are any.
(module
  (memory (export "memory") 1)
  (table 1 funcref)
  (func (export "decide") (result i32)
    (loop $more
      (drop (table.grow (ref.null func) (i32.const 100)))
      (br $more))
    unreachable))
