;; The floor under policies whose compiler expects WASI: `wasi_snapshot_preview1`, made of the contract's own functions.
;;
;; - Standard output is the policy's log at level info, standard error at level warn: one line of the log for each line, without empty
;;   lines. A line of more than 1024 bytes is logged in pieces.
;; - Both clocks show the host's time of the call, which does not advance during the call. A wait ends at once, and the monotonic clock then
;;   shows that it has lasted as long as it should: schedulers of runtimes look.
;; - Random bytes are the same in each repetition of a call: their seed is made of Call-ID, CSeq and the time of the call.
;; - Nothing of a call is left for the next one of the same instance: an unfinished line is dropped, waits are forgotten, and random bytes
;;   begin anew. The module counts its calls (`portcullis_call_count`), and each function here that has a state compares.
;; - There are no arguments, no environment, no files and no sockets. `proc_exit` ends the call as a trap does.
;;
;; The floor's own memory is one page, which the first function that needs it adds to the policy's memory:
;;   0     the unfinished line of standard output, 1024 bytes
;;   1024  the unfinished line of standard error, 1024 bytes
;;   2048  results of host functions, 8 bytes
;;   2056  the Call-ID
(module
  (import "env" "memory" (memory 0))
  (import "portcullis:policy/log@0.1.0" "log" (func $log (param i32 i32 i32)))
  (import "portcullis:policy/clock@0.1.0" "now" (func $now (result i64)))
  (import "portcullis:policy/request@0.1.0" "call-id" (func $call_id (param i32)))
  (import "portcullis:policy/request@0.1.0" "cseq-number" (func $cseq_number (result i32)))
  (import "__main_module__" "portcullis_call_count" (func $call_count (result i32)))

  ;; The address of the own page; 0 if there is none yet.
  (global $page (mut i32) (i32.const 0))
  ;; Number of bytes in the unfinished lines.
  (global $length_out (mut i32) (i32.const 0))
  (global $length_err (mut i32) (i32.const 0))
  ;; Nanoseconds that waits should have lasted.
  (global $waited (mut i64) (i64.const 0))
  ;; Whether the generator of random bytes has its seed, and its state.
  (global $is_seeded (mut i32) (i32.const 0))
  (global $state (mut i64) (i64.const 0))
  ;; The call that all of this belongs to.
  (global $call (mut i32) (i32.const 0))

  ;; Forgets what an earlier call left.
  (func $enter
    (local $call i32)
    (local.set $call (call $call_count))
    (if (i32.ne (local.get $call) (global.get $call)) (then
      (global.set $call (local.get $call))
      (global.set $length_out (i32.const 0))
      (global.set $length_err (i32.const 0))
      (global.set $waited (i64.const 0))
      (global.set $is_seeded (i32.const 0)))))

  ;; The own page, or 0 if memory cannot grow.
  (func $own_page (result i32)
    (local $pages i32)
    (if (i32.eqz (global.get $page)) (then
      (local.set $pages (memory.grow (i32.const 1)))
      (if (i32.ne (local.get $pages) (i32.const -1)) (then
        (global.set $page (i32.shl (local.get $pages) (i32.const 16)))))))
    (global.get $page))

  ;; Memory for the Call-ID. One that does not fit in the page gets pages of its own.
  (func (export "cabi_import_realloc") (param $old i32) (param $old_size i32) (param $align i32) (param $size i32) (result i32)
    (local $pages i32)
    (if (i32.le_u (local.get $size) (i32.const 63480)) (then
      (return (i32.add (global.get $page) (i32.const 2056)))))
    (local.set $pages (memory.grow (i32.shr_u (i32.add (local.get $size) (i32.const 65535)) (i32.const 16))))
    (if (i32.eq (local.get $pages) (i32.const -1)) (then unreachable))
    (i32.shl (local.get $pages) (i32.const 16)))

  ;; Whether a byte is not a continuation of a character (10xxxxxx), or lies outside of the text.
  (func $is_no_continuation (param $at i32) (param $end i32) (result i32)
    (if (i32.ge_u (local.get $at) (local.get $end)) (then (return (i32.const 1))))
    (i32.ne (i32.and (i32.load8_u (local.get $at)) (i32.const 0xc0)) (i32.const 0x80)))

  ;; The length of the character in UTF-8 that begins with these bytes; 0 if there is none (Unicode 15, table 3-7).
  (func $character (param $at i32) (param $end i32) (result i32)
    (local $first i32) (local $second i32)
    (local.set $first (i32.load8_u (local.get $at)))
    (if (i32.lt_u (local.get $first) (i32.const 0x80)) (then (return (i32.const 1))))
    (if (i32.gt_u (i32.sub (local.get $first) (i32.const 0xc2)) (i32.const 0x32)) (then (return (i32.const 0))))
    (if (call $is_no_continuation (i32.add (local.get $at) (i32.const 1)) (local.get $end)) (then (return (i32.const 0))))
    (if (i32.lt_u (local.get $first) (i32.const 0xe0)) (then (return (i32.const 2))))
    (if (call $is_no_continuation (i32.add (local.get $at) (i32.const 2)) (local.get $end)) (then (return (i32.const 0))))
    (local.set $second (i32.load8_u offset=1 (local.get $at)))
    (if (i32.lt_u (local.get $first) (i32.const 0xf0)) (then
      ;; Longer than necessary, or a surrogate.
      (if (i32.and (i32.eq (local.get $first) (i32.const 0xe0)) (i32.lt_u (local.get $second) (i32.const 0xa0))) (then (return (i32.const 0))))
      (if (i32.and (i32.eq (local.get $first) (i32.const 0xed)) (i32.gt_u (local.get $second) (i32.const 0x9f))) (then (return (i32.const 0))))
      (return (i32.const 3))))
    (if (call $is_no_continuation (i32.add (local.get $at) (i32.const 3)) (local.get $end)) (then (return (i32.const 0))))
    (if (i32.and (i32.eq (local.get $first) (i32.const 0xf0)) (i32.lt_u (local.get $second) (i32.const 0x90))) (then (return (i32.const 0))))
    (if (i32.and (i32.eq (local.get $first) (i32.const 0xf4)) (i32.gt_u (local.get $second) (i32.const 0x8f))) (then (return (i32.const 0))))
    (i32.const 4))

  ;; Replaces bytes that are not UTF-8 with question marks: the host ends a call that passes such a text.
  (func $clean (param $at i32) (param $length i32)
    (local $end i32) (local $step i32)
    (local.set $end (i32.add (local.get $at) (local.get $length)))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
      (local.set $step (call $character (local.get $at) (local.get $end)))
      (if (i32.eqz (local.get $step)) (then
        (i32.store8 (local.get $at) (i32.const 63))
        (local.set $step (i32.const 1))))
      (local.set $at (i32.add (local.get $at) (local.get $step)))
      (br $next))))

  ;; Logs the unfinished line of a descriptor (1 or 2).
  (func $flush (param $fd i32)
    (if (i32.eq (local.get $fd) (i32.const 1))
      (then
        (if (global.get $length_out) (then
          (call $clean (global.get $page) (global.get $length_out))
          (call $log (i32.const 2) (global.get $page) (global.get $length_out))))
        (global.set $length_out (i32.const 0)))
      (else
        (if (global.get $length_err) (then
          (call $clean (i32.add (global.get $page) (i32.const 1024)) (global.get $length_err))
          (call $log (i32.const 1) (i32.add (global.get $page) (i32.const 1024)) (global.get $length_err))))
        (global.set $length_err (i32.const 0)))))

  ;; Adds a byte to the unfinished line of a descriptor.
  (func $put (param $fd i32) (param $byte i32)
    (if (i32.eq (local.get $byte) (i32.const 10)) (then
      (call $flush (local.get $fd))
      (return)))
    (if (i32.eq (local.get $fd) (i32.const 1))
      (then
        (i32.store8 (i32.add (global.get $page) (global.get $length_out)) (local.get $byte))
        (global.set $length_out (i32.add (global.get $length_out) (i32.const 1)))
        (if (i32.eq (global.get $length_out) (i32.const 1024)) (then (call $flush (local.get $fd)))))
      (else
        (i32.store8 offset=1024 (i32.add (global.get $page) (global.get $length_err)) (local.get $byte))
        (global.set $length_err (i32.add (global.get $length_err) (i32.const 1)))
        (if (i32.eq (global.get $length_err) (i32.const 1024)) (then (call $flush (local.get $fd)))))))

  (func (export "fd_write") (param $fd i32) (param $list i32) (param $count i32) (param $written i32) (result i32)
    (local $at i32) (local $end i32) (local $sum i32)
    (if (i32.gt_u (i32.sub (local.get $fd) (i32.const 1)) (i32.const 1)) (then (return (i32.const 8))))
    (call $enter)
    (drop (call $own_page))
    (block $done (loop $next
      (br_if $done (i32.eqz (local.get $count)))
      (local.set $at (i32.load (local.get $list)))
      (local.set $end (i32.add (local.get $at) (i32.load offset=4 (local.get $list))))
      (local.set $sum (i32.add (local.get $sum) (i32.load offset=4 (local.get $list))))
      (if (global.get $page) (then
        (block $text_done (loop $text
          (br_if $text_done (i32.ge_u (local.get $at) (local.get $end)))
          (call $put (local.get $fd) (i32.load8_u (local.get $at)))
          (local.set $at (i32.add (local.get $at) (i32.const 1)))
          (br $text)))))
      (local.set $list (i32.add (local.get $list) (i32.const 8)))
      (local.set $count (i32.sub (local.get $count) (i32.const 1)))
      (br $next)))
    (i32.store (local.get $written) (local.get $sum))
    (i32.const 0))

  ;; Standard descriptors are character devices, so that C libraries flush at the end of a line.
  (func (export "fd_fdstat_get") (param $fd i32) (param $to i32) (result i32)
    (if (i32.gt_u (local.get $fd) (i32.const 2)) (then (return (i32.const 8))))
    (i64.store (local.get $to) (i64.const 2))
    (i64.store offset=8 (local.get $to) (i64.const 64))
    (i64.store offset=16 (local.get $to) (i64.const 0))
    (i32.const 0))

  ;; Nanoseconds of a clock: 0 is the time of day, all others are monotonic.
  (func $time (param $id i32) (result i64)
    (local $time i64)
    (call $enter)
    (local.set $time (i64.mul (call $now) (i64.const 1000000)))
    (if (local.get $id) (then
      (local.set $time (i64.add (local.get $time) (global.get $waited)))))
    (local.get $time))

  (func (export "clock_time_get") (param $id i32) (param $precision i64) (param $to i32) (result i32)
    (i64.store (local.get $to) (call $time (local.get $id)))
    (i32.const 0))

  ;; Each subscription has its event at once: a time that has come, or ENOSYS for a descriptor.
  (func (export "poll_oneoff") (param $subscriptions i32) (param $events i32) (param $count i32) (param $written i32) (result i32)
    (local $left i32) (local $until i64)
    (call $enter)
    (local.set $left (local.get $count))
    (block $done (loop $next
      (br_if $done (i32.eqz (local.get $left)))
      (i64.store (local.get $events) (i64.load (local.get $subscriptions)))
      (i64.store offset=8 (local.get $events) (i64.const 0))
      (i64.store offset=16 (local.get $events) (i64.const 0))
      (i64.store offset=24 (local.get $events) (i64.const 0))
      (i32.store8 offset=10 (local.get $events) (i32.load8_u offset=8 (local.get $subscriptions)))
      (if (i32.load8_u offset=8 (local.get $subscriptions))
        (then (i32.store16 offset=8 (local.get $events) (i32.const 52)))
        (else
          (local.set $until (i64.load offset=24 (local.get $subscriptions)))
          ;; An absolute time is one of the clock that it names.
          (if (i32.and (i32.load16_u offset=40 (local.get $subscriptions)) (i32.const 1)) (then
            (local.set $until (i64.sub (local.get $until) (call $time (i32.load offset=16 (local.get $subscriptions)))))))
          (if (i64.gt_s (local.get $until) (i64.const 0)) (then
            (global.set $waited (i64.add (global.get $waited) (local.get $until)))))))
      (local.set $subscriptions (i32.add (local.get $subscriptions) (i32.const 48)))
      (local.set $events (i32.add (local.get $events) (i32.const 32)))
      (local.set $left (i32.sub (local.get $left) (i32.const 1)))
      (br $next)))
    (i32.store (local.get $written) (local.get $count))
    (i32.const 0))

  (func (export "clock_res_get") (param $id i32) (param $to i32) (result i32)
    (i64.store (local.get $to) (i64.const 1000000))
    (i32.const 0))

  ;; A seed of Call-ID (FNV-1a), CSeq and time.
  (func $seed_of_call (result i64)
    (local $hash i64) (local $at i32) (local $end i32) (local $result i32)
    (local.set $hash (i64.xor (i64.const 0xcbf29ce484222325) (call $now)))
    (local.set $hash (i64.mul (i64.xor (local.get $hash) (i64.extend_i32_u (call $cseq_number))) (i64.const 0x100000001b3)))
    (if (i32.eqz (call $own_page)) (then (return (local.get $hash))))
    (local.set $result (i32.add (global.get $page) (i32.const 2048)))
    (call $call_id (local.get $result))
    (local.set $at (i32.load (local.get $result)))
    (local.set $end (i32.add (local.get $at) (i32.load offset=4 (local.get $result))))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
      (local.set $hash (i64.mul
        (i64.xor (local.get $hash) (i64.load8_u (local.get $at)))
        (i64.const 0x100000001b3)))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (br $next)))
    (local.get $hash))

  ;; SplitMix64. It begins anew in each call, also in an instance that serves many calls.
  (func (export "random_get") (param $at i32) (param $length i32) (result i32)
    (local $bits i64)
    (call $enter)
    (if (i32.eqz (global.get $is_seeded)) (then
      (global.set $is_seeded (i32.const 1))
      (global.set $state (call $seed_of_call))))
    (block $done (loop $next
      (br_if $done (i32.eqz (local.get $length)))
      (global.set $state (i64.add (global.get $state) (i64.const 0x9e3779b97f4a7c15)))
      (local.set $bits (global.get $state))
      (local.set $bits (i64.mul
        (i64.xor (local.get $bits) (i64.shr_u (local.get $bits) (i64.const 30)))
        (i64.const 0xbf58476d1ce4e5b9)))
      (local.set $bits (i64.mul
        (i64.xor (local.get $bits) (i64.shr_u (local.get $bits) (i64.const 27)))
        (i64.const 0x94d049bb133111eb)))
      (i64.store8 (local.get $at) (i64.shr_u (local.get $bits) (i64.const 56)))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (local.set $length (i32.sub (local.get $length) (i32.const 1)))
      (br $next)))
    (i32.const 0))

  (func (export "args_get") (param i32 i32) (result i32) i32.const 0)
  (func (export "args_sizes_get") (param $count i32) (param $size i32) (result i32)
    (i32.store (local.get $count) (i32.const 0))
    (i32.store (local.get $size) (i32.const 0))
    (i32.const 0))
  (func (export "environ_get") (param i32 i32) (result i32) i32.const 0)
  (func (export "environ_sizes_get") (param $count i32) (param $size i32) (result i32)
    (i32.store (local.get $count) (i32.const 0))
    (i32.store (local.get $size) (i32.const 0))
    (i32.const 0))
  (func (export "sched_yield") (result i32) i32.const 0)
  (func (export "fd_close") (param i32) (result i32) i32.const 0)

  (func (export "proc_exit") (param i32)
    (call $enter)
    (call $flush (i32.const 1))
    (call $flush (i32.const 2))
    unreachable)

  ;; Nothing else is there: EBADF (8) for descriptors, ENOSYS (52) for paths and sockets.
  (func (export "fd_seek") (param i32 i64 i32 i32) (result i32) i32.const 8)
  (func (export "fd_read") (param i32 i32 i32 i32) (result i32) i32.const 8)
  (func (export "fd_prestat_get") (param i32 i32) (result i32) i32.const 8)
  (func (export "fd_prestat_dir_name") (param i32 i32 i32) (result i32) i32.const 8)
  (func (export "fd_advise") (param i32 i64 i64 i32) (result i32) i32.const 8)
  (func (export "fd_allocate") (param i32 i64 i64) (result i32) i32.const 8)
  (func (export "fd_datasync") (param i32) (result i32) i32.const 8)
  (func (export "fd_fdstat_set_flags") (param i32 i32) (result i32) i32.const 8)
  (func (export "fd_fdstat_set_rights") (param i32 i64 i64) (result i32) i32.const 8)
  (func (export "fd_filestat_get") (param i32 i32) (result i32) i32.const 8)
  (func (export "fd_filestat_set_size") (param i32 i64) (result i32) i32.const 8)
  (func (export "fd_filestat_set_times") (param i32 i64 i64 i32) (result i32) i32.const 8)
  (func (export "fd_pread") (param i32 i32 i32 i64 i32) (result i32) i32.const 8)
  (func (export "fd_pwrite") (param i32 i32 i32 i64 i32) (result i32) i32.const 8)
  (func (export "fd_readdir") (param i32 i32 i32 i64 i32) (result i32) i32.const 8)
  (func (export "fd_renumber") (param i32 i32) (result i32) i32.const 8)
  (func (export "fd_sync") (param i32) (result i32) i32.const 8)
  (func (export "fd_tell") (param i32 i32) (result i32) i32.const 8)
  (func (export "path_create_directory") (param i32 i32 i32) (result i32) i32.const 52)
  (func (export "path_filestat_get") (param i32 i32 i32 i32 i32) (result i32) i32.const 52)
  (func (export "path_filestat_set_times") (param i32 i32 i32 i32 i64 i64 i32) (result i32) i32.const 52)
  (func (export "path_link") (param i32 i32 i32 i32 i32 i32 i32) (result i32) i32.const 52)
  (func (export "path_open") (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32) i32.const 52)
  (func (export "path_readlink") (param i32 i32 i32 i32 i32 i32) (result i32) i32.const 52)
  (func (export "path_remove_directory") (param i32 i32 i32) (result i32) i32.const 52)
  (func (export "path_rename") (param i32 i32 i32 i32 i32 i32) (result i32) i32.const 52)
  (func (export "path_symlink") (param i32 i32 i32 i32 i32) (result i32) i32.const 52)
  (func (export "path_unlink_file") (param i32 i32 i32) (result i32) i32.const 52)
  (func (export "proc_raise") (param i32) (result i32) i32.const 52)
  (func (export "sock_accept") (param i32 i32 i32) (result i32) i32.const 52)
  (func (export "sock_recv") (param i32 i32 i32 i32 i32 i32) (result i32) i32.const 52)
  (func (export "sock_send") (param i32 i32 i32 i32 i32) (result i32) i32.const 52)
  (func (export "sock_shutdown") (param i32 i32) (result i32) i32.const 52))
