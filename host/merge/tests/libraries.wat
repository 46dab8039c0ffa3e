;; A component as a linker of libraries makes it: `main` defines memory, table, addresses and the entries of the global offset table; the
;; libraries import them; `init` fills the table, sets the entries that are addresses, and calls a constructor. The host's function is made with
;; the memory of `main`, so that the libraries call it by a table of its own.
(component
  (import "host" (func $host (param "text" string) (result u32)))

  (core module $main
    (memory (export "memory") 2)
    (table (export "__indirect_function_table") 16 funcref)
    (global (export "__stack_pointer") (mut i32) (i32.const 65536))
    (global (export "a:memory_base") i32 (i32.const 1024))
    (global (export "a:table_base") i32 (i32.const 1))
    (global (export "b:memory_base") i32 (i32.const 2048))
    (global (export "b:table_base") i32 (i32.const 4))
    (global (export "b:words") (mut i32) (i32.const 0))
    (global (export "b:twice") (mut i32) (i32.const 0))
    (data (i32.const 16) "main"))

  (core module $a
    (import "env" "memory" (memory 1))
    (import "env" "__indirect_function_table" (table 2 funcref))
    (import "env" "__memory_base" (global $base i32))
    (import "env" "__table_base" (global $slots i32))
    (import "env" "__stack_pointer" (global $stack (mut i32)))
    (type $unary (func (param i32) (result i32)))
    (func $twice (export "twice") (type $unary)
      (global.set $stack (i32.sub (global.get $stack) (i32.const 16)))
      (i32.mul (local.get 0) (i32.const 2)))
    (func $square (type $unary) (i32.mul (local.get 0) (local.get 0)))
    (func (export "stack") (result i32) (global.get $stack))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 32768))
    (global (export "words") i32 (i32.const 8))
    (elem (table 0) (global.get $slots) func $twice $square)
    (data (global.get $base) "library a"))

  (core module $b
    (import "env" "memory" (memory 2))
    (import "env" "__indirect_function_table" (table 1 funcref))
    (import "env" "__memory_base" (global $base i32))
    (import "env" "__table_base" (global $slots i32))
    (import "env" "host" (func $host (param i32 i32) (result i32)))
    (import "env" "twice" (func $twice (param i32) (result i32)))
    (import "env" "stack" (func $stack (result i32)))
    (import "GOT.mem" "words" (global $words (mut i32)))
    (import "GOT.func" "twice" (global $twice_slot (mut i32)))
    (type $words (func (param i32 i32) (result i32)))
    (type $unary (func (param i32) (result i32)))
    (func $minus (type $words) (i32.sub (local.get 0) (local.get 1)))
    (func $third (type $unary) (i32.div_u (local.get 0) (i32.const 3)))
    (data $passive "passive")
    (elem (offset (i32.add (global.get $slots) (i32.const 1))) funcref (ref.func $minus) (ref.func $third))
    (elem $more func $third)
    (data (offset (i32.add (global.get $base) (i32.const 4))) "library b")
    (func (export "run") (result i32)
      (local $sum i32)
      ;; A call to another library, and the same function by its address.
      (local.set $sum (call $twice (i32.const 21)))
      (local.set $sum (i32.add (local.get $sum)
        (call_indirect (type $unary) (i32.const 100) (global.get $twice_slot))))
      ;; A function behind it in the table, one of its own, and one that `init` has put there.
      (local.set $sum (i32.add (local.get $sum) (call_indirect (type $unary) (i32.const 9) (i32.const 2))))
      (local.set $sum (i32.add (local.get $sum)
        (call_indirect (type $words) (i32.const 1000) (i32.const 1) (i32.add (global.get $slots) (i32.const 1)))))
      (local.set $sum (i32.add (local.get $sum) (call_indirect (type $unary) (i32.const 5) (i32.const 9))))
      ;; Data of both libraries, and a word of the other one by its address.
      (local.set $sum (i32.add (local.get $sum) (i32.load8_u offset=8 (i32.const 1024))))
      (local.set $sum (i32.add (local.get $sum) (i32.load8_u offset=4 (global.get $base))))
      (local.set $sum (i32.add (local.get $sum) (i32.load8_u (global.get $words))))
      ;; Segments that are used when the code says so.
      (memory.init $passive (i32.const 4000) (i32.const 0) (i32.const 7))
      (data.drop $passive)
      (local.set $sum (i32.add (local.get $sum) (i32.load8_u (i32.const 4001))))
      (table.init $more (i32.const 12) (i32.const 0) (i32.const 1))
      (elem.drop $more)
      (local.set $sum (i32.add (local.get $sum) (call_indirect (type $unary) (i32.const 30) (i32.const 12))))
      ;; The host reads a text of this library, and the stack has been used.
      (local.set $sum (i32.add (local.get $sum) (call $host (i32.const 2052) (i32.const 9))))
      (i32.add (local.get $sum) (call $stack))))

  (core module $init
    (import "env" "memory" (memory 0))
    (import "env" "__indirect_function_table" (table 0 funcref))
    (import "env" "b:words" (global $b_words (mut i32)))
    (import "env" "b:twice" (global $b_twice (mut i32)))
    (import "env" "a:memory_base" (global $a_base i32))
    (import "env" "a:table_base" (global $a_slots i32))
    (import "a" "words" (global $words i32))
    (import "a" "twice" (func $twice (param i32) (result i32)))
    (elem (i32.const 9) $twice)
    (func $start
      (global.set $b_words (i32.add (global.get $a_base) (global.get $words)))
      (global.set $b_twice (global.get $a_slots))
      (i32.store8 (i32.const 1032) (i32.add (i32.load8_u (i32.const 1032)) (i32.const 1))))
    (start $start))

  (core module $trampolines
    (table (export "table") 1 funcref)
    (func (export "0") (param i32 i32) (result i32)
      (call_indirect (param i32 i32) (result i32) (local.get 0) (local.get 1) (i32.const 0))))

  (core module $fill
    (import "" "table" (table 1 funcref))
    (import "" "0" (func $host (param i32 i32) (result i32)))
    (elem (i32.const 0) $host))

  (core instance $trampolines (instantiate $trampolines))
  (core instance $main (instantiate $main))
  (core instance $env_a
    (export "memory" (memory $main "memory"))
    (export "__indirect_function_table" (table $main "__indirect_function_table"))
    (export "__memory_base" (global $main "a:memory_base"))
    (export "__table_base" (global $main "a:table_base"))
    (export "__stack_pointer" (global $main "__stack_pointer")))
  (core instance $a (instantiate $a (with "env" (instance $env_a))))
  (core instance $env_b
    (export "memory" (memory $main "memory"))
    (export "__indirect_function_table" (table $main "__indirect_function_table"))
    (export "__memory_base" (global $main "b:memory_base"))
    (export "__table_base" (global $main "b:table_base"))
    (export "host" (func $trampolines "0"))
    (export "twice" (func $a "twice"))
    (export "stack" (func $a "stack")))
  (core instance $got_mem (export "words" (global $main "b:words")))
  (core instance $got_func (export "twice" (global $main "b:twice")))
  (core instance $b (instantiate $b
    (with "env" (instance $env_b))
    (with "GOT.mem" (instance $got_mem))
    (with "GOT.func" (instance $got_func))))
  (core instance $init (instantiate $init
    (with "env" (instance $main))
    (with "a" (instance $a))))
  (core func $lowered (canon lower (func $host) (memory $main "memory") string-encoding=utf8))
  (core instance $fill (instantiate $fill
    (with "" (instance
      (export "table" (table $trampolines "table"))
      (export "0" (func $lowered))))))

  (func (export "run") (result u32) (canon lift (core func $b "run"))))
