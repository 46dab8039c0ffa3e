//! What workers may rely on when they change one value at once, in every order of their accesses (loom).

use loom::sync::Arc;
use loom::thread;

use super::*;

/// Runs this on two threads at once, in every order.
fn at_once<T: Send + Sync + Default + 'static, R: Send + 'static>(
    work: fn(&T, u64) -> R,
    check: fn(&T, [R; 2]),
) {
    loom::model(move || {
        let shared = Arc::new(T::default());
        let other = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || work(&shared, 1))
        };
        let own = work(&shared, 0);
        let other = other.join().expect("the other worker ends");
        check(&shared, [own, other]);
    });
}

#[test]
fn workers_together_take_what_a_rate_permits_and_all_of_it() {
    let take = |due: &Due, _| (0..2).filter(|_| due.take(10, 5, 15)).count();
    at_once(take, |due, taken| {
        assert_eq!(taken.iter().sum::<usize>(), 3);
        assert_eq!(due.ahead(10), 15);
    });
}

#[test]
fn no_charge_is_lost() {
    let charge = |due: &Due, worker| {
        due.charge(10, 5);
        due.take(10 + worker, 5, 100)
    };
    at_once(charge, |due, taken| {
        assert_eq!(taken, [true; 2]);
        assert_eq!(due.ahead(10), 20);
    });
}

#[test]
fn of_two_limited_charges_at_least_one_counts() {
    let charge = |due: &Due, _| due.charge_within(10, 5, 8);
    at_once(charge, |due, _| {
        assert!([5, 8].contains(&due.ahead(10)), "{}", due.ahead(10));
    });
}

#[derive(Default)]
struct Users {
    active: Active,
    shared: Seen,
    own: [Seen; 2],
}

#[test]
fn a_user_of_two_workers_counts_once_and_none_is_left_out() {
    let meet = |users: &Users, worker: u64| {
        users.active.meet(&users.shared, 5);
        users.active.meet(&users.own[worker as usize], 5);
    };
    at_once(meet, |users, _| assert_eq!(users.active.count(5), 3));
}

/// One worker has read its clock just before a new window begins. What it adds may count for neither window, and removes nobody.
#[test]
fn a_late_worker_leaves_the_counts_of_a_new_window_as_they_are() {
    let meet = |users: &Users, worker: u64| {
        let now = SECOND - 1 + worker;
        users.active.meet(&users.own[worker as usize], now);
    };
    at_once(meet, |users, _| {
        assert_eq!(users.active.count(SECOND), 1);
        assert_eq!(users.active.count(2 * SECOND), 1);
        assert_eq!(unpack(users.active.seen.load(Ordering::Relaxed)).0, 1);
    });
}

/// Two workers send at once from a balance that suffices for one of them, while bytes come in.
#[test]
fn no_byte_of_a_balance_is_spent_twice() {
    const ALLOWED: Allowance = Allowance {
        bytes: 10,
        per_second: 0,
        kept: 10,
    };
    let spend = |balance: &Balance, _| {
        balance.receive(0, 3, &ALLOWED);
        balance.spend(0, 8, &ALLOWED)
    };
    at_once(spend, |balance, spent| {
        assert_eq!(spent, [true; 2]);
        assert_eq!(balance.left(0, &ALLOWED), 0);
    });
    let spend = |balance: &Balance, _| balance.spend(0, 8, &ALLOWED);
    at_once(spend, |balance, spent| {
        assert_eq!(spent.iter().filter(|spent| **spent).count(), 1);
        assert_eq!(balance.left(0, &ALLOWED), 2);
    });
}

#[test]
fn of_two_orders_at_once_the_later_one_is_obeyed() {
    let obey = |throttle: &Throttle, worker: u64| {
        let order = Order {
            limit: Limit::Loss(10 + worker as u8),
            validity: 1_000,
            sequence: Some(1 + worker),
        };
        throttle.obey(order, 0)
    };
    at_once(obey, |throttle, obeyed| {
        assert!(obeyed[1]);
        assert_eq!(throttle.limit(0), Some(Limit::Loss(11)));
    });
}

#[test]
fn of_two_rates_at_once_the_later_one_is_in_force() {
    let obey = |throttle: &Throttle, worker: u64| {
        let order = Order {
            limit: Limit::Rate(10 + worker as u32),
            validity: 1_000,
            sequence: Some(1 + worker),
        };
        throttle.obey(order, 0)
    };
    at_once(obey, |throttle, obeyed| {
        assert!(obeyed[1]);
        assert_eq!(throttle.limit(0), Some(Limit::Rate(11)));
    });
}

#[test]
fn workers_together_keep_back_the_share_that_is_asked_for() {
    let keep = |throttle: &Throttle, _| {
        let order = Order {
            limit: Limit::Loss(50),
            validity: 1_000,
            sequence: None,
        };
        throttle.obey(order, 0);
        // One request each: with two, the model has too many interleavings for one run.
        usize::from(throttle.keeps_back(Weight::New, 0))
    };
    at_once(keep, |_, kept| assert_eq!(kept.iter().sum::<usize>(), 1));
}

/// A worker writes something and notes it; the control side reads it when it takes the note.
#[test]
fn whoever_takes_a_note_sees_what_was_written_before() {
    use loom::sync::atomic::AtomicU64;
    loom::model(|| {
        let shared = Arc::new((AtomicU64::new(0), Journal::new(1)));
        let worker = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                shared.0.store(9, Ordering::Relaxed);
                shared.1.note(7);
            })
        };
        let (written, journal) = &*shared;
        let noted = journal.take().numbers.len();
        assert!(noted == 0 || written.load(Ordering::Relaxed) == 9);
        worker.join().expect("the worker ends");
        assert_eq!(noted + journal.take().numbers.len(), 1);
    });
}

/// Two workers note numbers, for which there is one place.
#[test]
fn a_note_that_is_lost_is_told() {
    loom::model(|| {
        let journal = Arc::new(Journal::new(1));
        let other = {
            let journal = Arc::clone(&journal);
            thread::spawn(move || journal.note(1))
        };
        journal.note(2);
        other.join().expect("the other worker ends");
        let noted = journal.take();
        assert!(noted.is_incomplete);
        assert_eq!(noted.numbers.len(), 1);
    });
}
