;; Takes memory, page by page, as long as there is any.
(module
  (memory (export "memory") 1)
  (func (export "decide") (result i32)
    (loop $more
      (drop (memory.grow (i32.const 1)))
      (br $more))
    unreachable))
