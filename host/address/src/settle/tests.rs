use super::*;

const TIMES: SettleTimes = SettleTimes {
    whole: Duration::from_millis(20),
    in_place: Duration::from_secs(2),
    nothing: Duration::from_secs(5),
};

fn file(inode: u64, size: u64, age: u64) -> FileState {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let modified = (now.unwrap().as_secs() - age) as i64;
    FileState::File(Fingerprint {
        id: FileId::new(1, inode),
        size,
        modified: (modified, 0),
        changed: (0, 0),
    })
}

#[test]
fn the_waiting_time_depends_on_how_the_file_was_changed() {
    let before = file(1, 100, 60);
    for (state, writer, quiet) in [
        (file(2, 100, 60), Writer::Moved, TIMES.whole),
        (file(1, 50, 0), Writer::Open, OPEN),
        (file(1, 0, 0), Writer::Open, OPEN),
        (file(1, 0, 0), Writer::Closed, TIMES.nothing),
        (file(2, 0, 0), Writer::Moved, TIMES.nothing),
        (file(1, 50, 0), Writer::Closed, TIMES.in_place),
        (file(1, 50, 0), Writer::Unheard, TIMES.in_place),
        (file(2, 50, 0), Writer::Unheard, ON_ITS_WAY),
        (file(2, 50, 0), Writer::Unknown, BLIND),
        (file(2, 50, 60), Writer::Unknown, TIMES.whole),
        (FileState::Absent, Writer::Unheard, TIMES.nothing),
        (FileState::Other, Writer::Unheard, TIMES.nothing),
    ] {
        assert_eq!(
            state.quiet(&before, writer, &TIMES),
            quiet,
            "{state:?} {writer:?}"
        );
    }
}

#[test]
fn a_state_is_used_when_it_has_settled() {
    let mut settling = Settling::default();
    let begun = Instant::now();
    let at = |seconds: u64| begun + Duration::from_secs(seconds);
    let quiet = |_: &u8| Duration::from_secs(2);
    assert_eq!(settling.step(1, &1, quiet, at(0)), Step::Same);
    assert_eq!(
        settling.step(2, &1, quiet, at(0)),
        Step::Wait(Duration::from_secs(2))
    );
    assert_eq!(
        settling.step(2, &1, quiet, at(1)),
        Step::Wait(Duration::from_secs(1))
    );
    assert_eq!(
        settling.step(3, &1, quiet, at(2)),
        Step::Wait(Duration::from_secs(2)),
        "it goes on"
    );
    assert_eq!(settling.step(3, &1, quiet, at(4)), Step::Take);
    // A file that is missing for a moment has not changed.
    assert_eq!(
        settling.step(4, &3, quiet, at(5)),
        Step::Wait(Duration::from_secs(2))
    );
    assert_eq!(settling.step(3, &3, quiet, at(6)), Step::Same);
    assert_eq!(
        settling.step(4, &3, quiet, at(7)),
        Step::Wait(Duration::from_secs(2))
    );
}

#[test]
fn a_writer_that_does_not_finish_is_logged_once() {
    let mut settling = Settling::default();
    let begun = Instant::now();
    let quiet = |_: &u64| OPEN;
    let mut told = Vec::new();
    for second in 0..20 {
        let now = begun + Duration::from_secs(second);
        settling.step(second + 1, &0, quiet, now);
        told.extend(settling.overdue(now));
    }
    assert_eq!(told, [OVERDUE]);
    settling.step(0, &0, quiet, begun);
    assert_eq!(settling.overdue(begun + OPEN), None);
}

#[test]
fn an_empty_file_is_used_when_it_stays_empty() {
    let mut emptied = Emptied::default();
    let begun = Instant::now();
    let at = |seconds: u64| begun + Duration::from_secs(seconds);
    let settle = Duration::from_secs(5);
    assert_eq!(emptied.hold(false, settle, at(0)), Hold::None);
    assert_eq!(emptied.hold(true, settle, at(1)), Hold::Begins);
    assert_eq!(emptied.hold(true, settle, at(2)), Hold::Goes);
    assert_eq!(emptied.hold(false, settle, at(3)), Hold::None, "it is back");
    assert_eq!(emptied.hold(true, settle, at(4)), Hold::Begins);
    assert_eq!(emptied.hold(true, settle, at(9)), Hold::Over);
    assert_eq!(emptied.since, None);
    assert_eq!(emptied.hold(true, Duration::ZERO, at(9)), Hold::Over);
}
