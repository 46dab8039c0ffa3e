use super::*;
use crate::source::{NewDestination, StoredDestination};

/// Without pings.
fn rules() -> Rules {
    Rules {
        thresholds: Thresholds {
            down_after: 2,
            up_after: 1,
        },
        is_passive: true,
        rest: Duration::from_secs(30),
        longest_pause: Duration::from_secs(60),
        pings: Pings {
            interval: Duration::ZERO,
            ..Pings::default()
        },
        calls: 64,
        longest_call: Duration::from_secs(60),
    }
}

fn source(folder: &tempfile::TempDir) -> Source {
    let url = DatabaseUrl::Sqlite(folder.path().join("a.db"));
    Source::new(Connections::new(url), Schema::default())
}

fn dispatcher(source: Source) -> Dispatcher {
    Dispatcher::new(source, rules(), BookOptions::default())
}

fn row(setid: i64, destination: &str) -> NewDestination {
    NewDestination {
        setid,
        destination: destination.to_owned(),
        flags: 0,
        priority: 0,
        attrs: "weight=5;duid=a".to_owned(),
        description: "a gateway".to_owned(),
    }
}

#[tokio::test]
async fn rows_are_added_loaded_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let dispatcher = dispatcher(source(&folder));
    let sets = dispatcher.reload().await.unwrap();
    assert!(sets.is_empty() && dispatcher.status().is_absent);

    let source = dispatcher.source();
    assert_eq!(source.add(&row(1, "sip:192.0.2.1")).await, Ok(None));
    source.add(&row(2, "sip:192.0.2.2:5070")).await.unwrap();
    let refused = source
        .add(&row(2, "192.0.2.2"))
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("has no scheme"), "{refused}");
    let wide = NewDestination {
        attrs: "x".repeat(129),
        ..row(1, "sip:192.0.2.1")
    };
    assert!(
        source
            .add(&wide)
            .await
            .unwrap_err()
            .to_string()
            .contains("129 characters")
    );

    let sets = dispatcher.reload().await.unwrap();
    let all: Vec<_> = sets
        .members()
        .map(|member| (member.set, &*member.uri))
        .collect();
    assert_eq!(all, [(1, "sip:192.0.2.1"), (2, "sip:192.0.2.2:5070")]);
    assert!(!dispatcher.status().is_absent);
    let stored = source.rows().await.unwrap();
    assert_eq!(stored[0].attrs.as_deref(), Some("weight=5;duid=a"));
    assert_eq!(source.remove(1, "sip:192.0.2.1").await, Ok(1));
    assert_eq!(source.remove(1, "sip:192.0.2.1").await, Ok(0));
    assert_eq!(dispatcher.reload().await.unwrap().len(), 1);
}

#[tokio::test]
async fn an_invalid_row_is_skipped_and_named() {
    let folder = tempfile::tempdir().unwrap();
    let dispatcher = dispatcher(source(&folder));
    dispatcher
        .source()
        .add(&row(1, "sip:192.0.2.1"))
        .await
        .unwrap();
    let mut link = dispatcher
        .source()
        .connections()
        .take(EXPIRE)
        .await
        .unwrap();
    for values in [
        "1, 'sip:a.example;transport=ws', 0",
        "1, 'sip:192.0.2.2', 'x'",
        "1, 'sip:192.0.2.3', 64",
    ] {
        let insert =
            format!("INSERT INTO `dispatcher` (`setid`, `destination`, `flags`) VALUES ({values})");
        link.run(&insert).await.unwrap();
    }
    link.release().await;
    let sets = dispatcher.reload().await.unwrap();
    assert_eq!(
        (sets.members().count(), sets.skipped, sets.warned),
        (2, 2, 1)
    );
    let said: Vec<_> = sets.errors.iter().map(ToString::to_string).collect();
    assert!(
        said[0]
            .contains("row 2: destination \"sip:a.example;transport=ws\" has the transport \"ws\""),
        "{said:?}"
    );
    assert!(
        said[1].starts_with("row 3: flags \"x\" is not a whole number"),
        "{said:?}"
    );
    assert!(
        sets.warnings[0].to_string().starts_with("row 4: flags 64"),
        "{:?}",
        sets.warnings
    );
}

#[tokio::test]
async fn another_version_of_the_table_is_refused_and_the_sets_stay() {
    let folder = tempfile::tempdir().unwrap();
    let dispatcher = dispatcher(source(&folder));
    dispatcher
        .source()
        .add(&row(1, "sip:192.0.2.1"))
        .await
        .unwrap();
    dispatcher.reload().await.unwrap();
    let mut link = dispatcher
        .source()
        .connections()
        .take(EXPIRE)
        .await
        .unwrap();
    link.run("UPDATE `version` SET `table_version` = 5 WHERE `table_name` = 'dispatcher'")
        .await
        .unwrap();
    link.release().await;
    let error = dispatcher.reload().await.unwrap_err().to_string();
    assert!(error.contains("only version 4 is known"), "{error}");
    assert_eq!(dispatcher.current().len(), 1);
    let status = dispatcher.status();
    assert_eq!((status.failures, status.last_error.is_some()), (1, true));
}

#[tokio::test]
async fn a_table_that_becomes_empty_is_believed_after_a_while_or_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let dispatcher = dispatcher(source(&folder));
    dispatcher
        .source()
        .add(&row(1, "sip:192.0.2.1"))
        .await
        .unwrap();
    dispatcher.reload().await.unwrap();
    dispatcher
        .source()
        .remove(1, "sip:192.0.2.1")
        .await
        .unwrap();
    let follow = |settle| {
        let options = BookOptions {
            settle,
            ..BookOptions::default()
        };
        dispatcher.shared.follow(options, None)
    };
    follow(Duration::from_secs(600)).await.unwrap();
    assert_eq!(dispatcher.current().len(), 1);
    follow(Duration::ZERO).await.unwrap();
    assert!(dispatcher.current().is_empty());
}

#[tokio::test]
async fn a_file_replaces_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dispatcher.list");
    std::fs::write(&path, "1 sip:192.0.2.1\n").unwrap();
    let dispatcher = dispatcher(source(&folder).with_file(&path));
    assert_eq!(dispatcher.reload().await.unwrap().len(), 1);
    let refused = dispatcher
        .source()
        .add(&row(1, "sip:192.0.2.1"))
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("edit the file"), "{refused}");
    std::fs::write(&path, "1 oops\n").unwrap();
    assert!(dispatcher.reload().await.is_err());
    assert_eq!(dispatcher.current().len(), 1, "the previous sets stay");
}

#[tokio::test]
async fn states_change_by_command_by_failures_and_after_a_rest() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dispatcher.list");
    std::fs::write(&path, "1 sip:192.0.2.1 0 0 duid=a\n1 sip:192.0.2.2\n").unwrap();
    let dispatcher = dispatcher(source(&folder).with_file(&path));
    dispatcher.reload().await.unwrap();
    let states = || {
        let sets = dispatcher.current();
        let states = sets
            .members()
            .map(|member| member.runtime.state().to_string());
        states.collect::<Vec<_>>()
    };
    assert_eq!(states(), ["AX", "AX"]);
    let mut logged = LoggedSets::default();
    let mut lines = || logged.log_changes(&dispatcher.current());
    assert_eq!(lines(), 0);
    let disabled = "d".parse().unwrap();
    assert_eq!(dispatcher.set_state(1, StateTarget::Duid("a"), disabled), 1);
    assert_eq!(
        dispatcher.set_state(1, StateTarget::Uri("sip:192.0.2.9"), disabled),
        0
    );
    assert_eq!(dispatcher.set_state(7, StateTarget::All, disabled), 0);
    // The slots have the reverse order of the rows.
    assert_eq!(states(), ["AX", "DX"]);
    assert_eq!([lines(), lines()], [1, 0]);

    let name = crate::next_hop_name(1, "sip:192.0.2.2");
    dispatcher.note(&name, Sign::Failure, Some(503));
    assert_eq!(states(), ["TX", "DX"]);
    dispatcher.note(&name, Sign::Failure, None);
    assert_eq!(states(), ["IP", "DX"]);
    assert_eq!(lines(), 2, "the destination, and its set");
    dispatcher.note("dispatcher/1/sip:nowhere", Sign::Failure, None);
    dispatcher.wake_rested_at(now() + 29);
    assert_eq!(states(), ["IP", "DX"]);
    dispatcher.wake_rested_at(now() + 31);
    assert_eq!(states(), ["TP", "DX"]);
    assert_eq!(lines(), 2, "the destination, and its set");
    dispatcher.note(&name, Sign::Failure, None);
    assert_eq!(states(), ["IP", "DX"], "one more failure is enough");
    dispatcher.wake_rested_at(now() + 31);
    dispatcher.note(&name, Sign::Success, Some(200));
    assert_eq!(states(), ["AX", "DX"]);

    let call = dispatcher.calls().key(b"a@b");
    dispatcher.begin_call(&name, call);
    assert_eq!(dispatcher.calls().counted(), 1);
    dispatcher.end_call(b"a@b");
    dispatcher.end_call(b"a@b");
    assert_eq!(dispatcher.calls().counted(), 0);
}

#[tokio::test]
async fn a_destination_in_memory_stays_until_the_next_load() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dispatcher.list");
    std::fs::write(
        &path,
        "1 sip:192.0.2.1 0 5\n1 sip:192.0.2.2\n1 sip:192.0.2.3\n",
    )
    .unwrap();
    let dispatcher = dispatcher(source(&folder).with_file(&path));
    dispatcher.reload().await.unwrap();
    let uris = || {
        let sets = dispatcher.current();
        let last = |member: &Member| member.uri.rsplit('.').next().unwrap().to_owned();
        sets.members().map(last).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(uris(), "1 3 2");
    dispatcher
        .add_until_reload(&row(1, "sip:192.0.2.4"))
        .await
        .unwrap();
    assert_eq!(uris(), "1 4 3 2", "the others keep their order");
    assert!(
        dispatcher
            .add_until_reload(&row(-1, "sip:192.0.2.4"))
            .await
            .is_err()
    );
    dispatcher.remove_until_reload(1, "sip:192.0.2.3").await;
    dispatcher.remove_until_reload(9, "sip:192.0.2.3").await;
    assert_eq!(uris(), "1 4 2");
    dispatcher.reload().await.unwrap();
    assert_eq!(uris(), "1 3 2");
}

/// A dispatcher that pings all destinations of this list.
async fn pinging(folder: &tempfile::TempDir, list: &str) -> Dispatcher {
    let path = folder.path().join("dispatcher.list");
    std::fs::write(&path, list).unwrap();
    let rules = Rules {
        pings: Pings::default(),
        ..rules()
    };
    let source = source(folder).with_file(&path);
    let dispatcher = Dispatcher::new(source, rules, BookOptions::default());
    dispatcher.reload().await.unwrap();
    dispatcher
}

fn only(dispatcher: &Dispatcher) -> Member {
    dispatcher.current().members().next().unwrap().clone()
}

const SOON: Option<(u16, Duration)> = Some((200, Duration::from_millis(20)));

#[tokio::test]
async fn pings_and_requests_change_the_same_state() {
    let folder = tempfile::tempdir().unwrap();
    let dispatcher = pinging(&folder, "1 sip:192.0.2.1\n").await;
    let member = only(&dispatcher);
    let state = || member.runtime.state().to_string();
    let silent = || dispatcher.note_ping(&member, None, Some("no answer".into()));
    assert!(dispatcher.pings(&member));
    dispatcher.note_ping(&member, SOON, None);
    assert_eq!(state(), "AP");
    assert_eq!(member.runtime.latency(), [20, 20]);
    silent();
    assert_eq!(state(), "TP");
    dispatcher.note(&member.name, Sign::Failure, Some(503));
    assert_eq!(state(), "IP", "the request is the second failure in a row");
    assert_eq!(member.runtime.complaint().as_deref(), Some("no answer"));
    // Pings find out when it is back: no request is risked.
    dispatcher.wake_rested_at(now() + 3_600);
    assert_eq!(state(), "IP");
    dispatcher.note_ping(&member, SOON, None);
    assert_eq!(state(), "AP");
    assert_eq!(member.runtime.complaint(), None);
    assert_eq!(member.runtime.latencies().timeouts, 1);
}

#[tokio::test]
async fn a_destination_that_asks_for_a_pause_has_it_whatever_pings_say() {
    let folder = tempfile::tempdir().unwrap();
    let dispatcher = pinging(&folder, "1 sip:192.0.2.1\n").await;
    let member = only(&dispatcher);
    let state = || member.runtime.state().to_string();
    let busy = |seconds| {
        dispatcher.note(&member.name, Sign::Failure, Some(503));
        dispatcher.pause(&member.name, seconds);
    };
    busy(0);
    assert_eq!(
        (state(), member.runtime.paused_until()),
        ("TP".to_owned(), None)
    );
    dispatcher.note(&member.name, Sign::Success, Some(200));
    busy(20);
    let paused = now();
    assert_eq!(state(), "IP", "one is enough");
    let until = member.runtime.paused_until().unwrap();
    assert!((paused + 19..=paused + 20).contains(&until), "{until}");
    // Pings are answered, and a request that was under way, too.
    dispatcher.note_ping(&member, SOON, None);
    dispatcher.note(&member.name, Sign::Success, Some(200));
    dispatcher.wake_rested_at(until - 1);
    assert_eq!(state(), "IP");
    assert_eq!(member.runtime.last().and_then(|last| last.code), Some(200));
    dispatcher.wake_rested_at(until);
    assert_eq!(
        (state(), member.runtime.paused_until()),
        ("TP".to_owned(), None)
    );
    dispatcher.note(&member.name, Sign::Failure, Some(503));
    assert_eq!(state(), "IP", "one more failure is enough");
    // An hour is a minute, and a later wish for less does not shorten it.
    busy(3_600);
    busy(1);
    let until = member.runtime.paused_until().unwrap();
    assert!(until <= now() + 60 && until > paused + 50, "{until}");
    dispatcher.set_state(1, StateTarget::All, "a".parse().unwrap());
    assert_eq!(
        (state(), member.runtime.paused_until()),
        ("AX".to_owned(), None)
    );
    dispatcher.set_state(1, StateTarget::All, "d".parse().unwrap());
    busy(5);
    assert_eq!(
        (state(), member.runtime.paused_until()),
        ("DX".to_owned(), None)
    );
}

#[tokio::test]
async fn a_pause_ends_without_pings_too_and_may_be_longer_than_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dispatcher.list");
    std::fs::write(&path, "1 sip:192.0.2.1\n").unwrap();
    let dispatcher = dispatcher(source(&folder).with_file(&path));
    dispatcher.reload().await.unwrap();
    let member = only(&dispatcher);
    dispatcher.note(&member.name, Sign::Failure, Some(503));
    dispatcher.pause(&member.name, 50);
    let until = member.runtime.paused_until().unwrap();
    dispatcher.wake_rested_at(until - 1);
    assert_eq!(
        member.runtime.state().to_string(),
        "IP",
        "the rest of 30 s is over"
    );
    dispatcher.wake_rested_at(until);
    assert_eq!(member.runtime.state().to_string(), "TP");
}

#[tokio::test]
async fn the_result_of_a_ping_that_is_not_wanted_any_more_has_no_effect() {
    let folder = tempfile::tempdir().unwrap();
    let dispatcher = pinging(&folder, "1 sip:192.0.2.1\n").await;
    let member = only(&dispatcher);
    let silent = || dispatcher.note_ping(&member, None, Some("no answer".into()));
    assert_eq!(dispatcher.set_ping_active(0), 1);
    silent();
    assert_eq!(dispatcher.set_ping_active(1), 0);
    assert_eq!(member.runtime.state().to_string(), "AX", "pings were off");
    dispatcher.set_state(1, StateTarget::All, "d".parse().unwrap());
    silent();
    assert_eq!(member.runtime.state().to_string(), "DX", "it is disabled");
    assert!(!dispatcher.pings(&member));
    let path = folder.path().join("dispatcher.list");
    std::fs::write(&path, "1 sip:192.0.2.1 32 0 socket=udp:192.0.2.9:5060\n").unwrap();
    dispatcher.reload().await.unwrap();
    silent();
    let other = only(&dispatcher);
    assert_eq!(other.runtime.state().to_string(), "AX", "it is another one");
    assert!(!dispatcher.pings(&other), "its flags forbid pings");
    // So requests find out when it is back.
    dispatcher.note(&other.name, Sign::Failure, None);
    dispatcher.note(&other.name, Sign::Failure, None);
    dispatcher.wake_rested_at(now() + 31);
    assert_eq!(other.runtime.state().to_string(), "TP");
}

#[tokio::test]
async fn what_happens_to_a_next_hop_counts_for_each_of_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    let list = "1 sip:192.0.2.1\n\
                1 sip:192.0.2.1 0 0 socket=udp:192.0.2.9:5060\n\
                1 sip:192.0.2.1 4 0 socket=udp:192.0.2.8:5060\n";
    let dispatcher = pinging(&folder, list).await;
    let sets = dispatcher.current();
    let states = || {
        let members = sets.members();
        let states = members.map(|member| member.runtime.state().to_string());
        let mut states: Vec<_> = states.collect();
        states.sort_unstable();
        states
    };
    assert_eq!(states(), ["AX", "AX", "DX"]);
    let name = crate::next_hop_name(1, "sip:192.0.2.1");
    dispatcher.note(&name, Sign::Failure, None);
    assert_eq!(states(), ["DX", "TP", "TP"]);
    let mut members = sets.members_named(&name);
    let member = members.find(|member| dispatcher.pings(member)).unwrap();
    dispatcher.note_ping(member, None, Some("no answer".into()));
    assert_eq!(states(), ["DX", "IP", "IP"]);
}

#[tokio::test]
async fn each_row_of_a_next_hop_is_logged_once() {
    let folder = tempfile::tempdir().unwrap();
    let list = "1 sip:192.0.2.1\n\
                1 sip:192.0.2.1 4 0 socket=udp:192.0.2.8:5060\n\
                1 sip:192.0.2.1 1 0 socket=udp:192.0.2.9:5060\n\
                1 sip:192.0.2.2 1\n\
                1 sip:192.0.2.2\n";
    let dispatcher = pinging(&folder, list).await;
    let mut logged = LoggedSets::default();
    let mut lines = || logged.log_changes(&dispatcher.current());
    assert_eq!([lines(), lines(), lines()], [2, 0, 0]);
    dispatcher.set_state(1, StateTarget::Uri("sip:192.0.2.1"), State::default());
    assert_eq!([lines(), lines()], [2, 0]);
    dispatcher.set_state(1, StateTarget::All, "d".parse().unwrap());
    assert_eq!([lines(), lines()], [5, 0], "four destinations, and the set");
    // A load changes nothing of it.
    dispatcher.reload().await.unwrap();
    assert_eq!(lines(), 0);
}

#[tokio::test]
async fn another_process_goes_on_with_the_states() {
    let list = "1 sip:192.0.2.1\n1 sip:192.0.2.2\n1 sip:192.0.2.3 8\n";
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let before = pinging(&folders[0], list).await;
    before.set_state(1, StateTarget::Uri("sip:192.0.2.1"), "d".parse().unwrap());
    for uri in ["sip:192.0.2.2", "sip:192.0.2.3"] {
        let name = crate::next_hop_name(1, uri);
        before.note(&name, Sign::Failure, Some(503));
    }
    // In the meantime, the flags of the third row have changed.
    let after = pinging(&folders[1], &list.replace(" 8", " 1")).await;
    let logged: Vec<_> = before
        .remembered()
        .iter()
        .map(ToString::to_string)
        .collect();
    let read: Vec<Remembered> = logged.iter().map(|line| line.parse().unwrap()).collect();
    assert_eq!(read, before.remembered());
    after.remember(&read);
    let sets = after.current();
    let shown: Vec<_> = sets
        .members()
        .map(|member| {
            let last = member.runtime.last().and_then(|last| last.code);
            (member.runtime.state().to_string(), last)
        })
        .collect();
    let expected = [("IX", None), ("TP", Some(503)), ("DX", None)];
    assert_eq!(
        shown,
        expected.map(|(state, last)| (state.to_owned(), last))
    );
    for other in ["", "1 0", "1 0 x 0 - sip:a", "1 0 0 0"] {
        assert!(other.parse::<Remembered>().is_err(), "{other}");
    }
}

#[tokio::test]
async fn a_socket_that_the_host_does_not_have_is_logged_once() {
    let folder = tempfile::tempdir().unwrap();
    let list = "1 sip:192.0.2.1 0 0 socket=udp:192.0.2.7:5060\n\
                1 sip:192.0.2.1 0 0 socket=udp:192.0.2.8:5060\n\
                1 sip:192.0.2.2 0 0 socket=udp:192.0.2.9:5060\n";
    let dispatcher = pinging(&folder, list).await;
    let sets = dispatcher.current();
    let known: SocketAddr = "192.0.2.9:5060".parse().unwrap();
    let lines = |has_it: bool| log_unknown_sockets(&sets, |addr| has_it || addr == known);
    assert_eq!([lines(false), lines(false)], [2, 0]);
    assert_eq!(
        [lines(true), lines(false)],
        [0, 2],
        "it was there in between"
    );
}

#[tokio::test]
async fn many_sockets_that_the_host_does_not_have_are_logged_in_parts() {
    let folder = tempfile::tempdir().unwrap();
    let rows = (1..=25).map(|n| format!("1 sip:192.0.2.{n} 0 0 socket=udp:192.0.2.99:5060\n"));
    let dispatcher = pinging(&folder, &rows.collect::<String>()).await;
    let sets = dispatcher.current();
    let lines = || log_unknown_sockets(&sets, |_| false);
    assert_eq!([lines(), lines(), lines()], [20, 5, 0]);
}

#[tokio::test]
async fn a_row_is_changed_by_its_id_unless_somebody_else_has_changed_it() {
    let folder = tempfile::tempdir().unwrap();
    let source = source(&folder);
    source.add(&row(1, "sip:192.0.2.1")).await.unwrap();
    let id = |rows: &[StoredDestination]| rows[0].id.as_deref().unwrap().parse::<i64>().unwrap();
    let rows = source.rows().await.unwrap();
    let id = id(&rows);
    let read = source.with_id(id).await.unwrap();
    assert_eq!(read, rows);
    assert!(source.with_id(id + 1).await.unwrap().is_empty());
    let new = row(2, "sip:192.0.2.2");
    let replaced = source.replace_row(id, &read[0], &new).await;
    assert_eq!(replaced, Ok((true, None)));
    // The row is not any more as it was read.
    assert_eq!(
        source.replace_row(id, &read[0], &new).await,
        Ok((false, None))
    );
    assert_eq!(source.remove_row(id, &read[0]).await, Ok(false));
    let refused = source.replace_row(id, &read[0], &row(2, "gw")).await;
    assert!(
        matches!(refused, Err(DispatcherError::Row(_))),
        "{refused:?}"
    );
    let now = source.with_id(id).await.unwrap();
    assert_eq!(now[0].destination.as_deref(), Some("sip:192.0.2.2"));
    assert_eq!(source.remove_row(id, &now[0]).await, Ok(true));
    assert!(source.rows().await.unwrap().is_empty());
}

#[test]
fn a_list_without_a_host_gives_the_same_choices_each_time() {
    let list = "1 sip:192.0.2.1 0 0 weight=1\n1 sip:192.0.2.2 0 0 weight=2\n1 sip:192.0.2.3 4\n";
    let question = crate::Question {
        algorithm: crate::Algorithm::Weight,
        hash: None,
        most: 3,
        failed: None,
    };
    let choices = || {
        let dispatcher = Dispatcher::of_list(list).unwrap();
        let sets = dispatcher.current();
        let set = sets.get(1).unwrap();
        let chosen = (0..20).map(|_| set.choose(question, |_| true).slots().collect::<Vec<_>>());
        chosen.collect::<Vec<_>>()
    };
    assert_eq!(choices(), choices());
    let error = Dispatcher::of_list("1 sip:192.0.2.1\n1 gw\n").unwrap_err();
    assert!(
        error.to_string().starts_with("list:2: destination"),
        "{error}"
    );
}
