use proptest::prelude::*;

use super::*;
use crate::pattern::PatternBudget;

const ROW: TrustedRow<'static> = TrustedRow {
    id: 7,
    source: "192.0.2.1",
    proto: "any",
    from: None,
    ruri: None,
    tag: None,
    priority: 0,
};

fn table(rows: &[TrustedRow<'_>]) -> TrustedTable {
    let mut builder = TrustedBuilder::default();
    for row in rows {
        builder.push(*row).unwrap();
    }
    builder.build()
}

fn tags<'t>(
    table: &'t TrustedTable,
    source: &'t str,
    proto: Proto,
    from: &'t str,
    ruri: &'t str,
) -> Vec<&'t str> {
    let question = TrustedQuestion {
        source: TrustedSource::parse(source),
        proto,
        from: FromUri::Own(from),
        ruri,
    };
    let found = table.matches(question);
    let tags = found.iter().map(|found| found.tag.unwrap_or("(none)"));
    tags.collect()
}

fn error(row: TrustedRow<'_>) -> String {
    TrustedBuilder::default().push(row).unwrap_err().to_string()
}

fn warning(row: TrustedRow<'_>) -> Option<String> {
    let warning = TrustedBuilder::default().push(row).unwrap();
    warning.map(|warning| warning.to_string())
}

#[test]
fn a_peer_is_matched_by_source_transport_and_both_uris() {
    let table = table(&[
        TrustedRow {
            proto: "udp",
            from: Some("^sip:.*@example\\.com$"),
            tag: Some("a"),
            ..ROW
        },
        TrustedRow {
            proto: "TCP",
            ruri: Some("^sip:1"),
            tag: Some("b"),
            ..ROW
        },
    ]);
    let ask = |proto, from, ruri| tags(&table, "192.0.2.1", proto, from, ruri);
    assert_eq!(ask(Proto::Udp, "sip:x@example.com", "sip:2@h"), ["a"]);
    assert!(ask(Proto::Udp, "sip:x@example.org", "sip:2@h").is_empty());
    assert!(
        ask(Proto::Udp, "SIP:x@example.com", "sip:2@h").is_empty(),
        "case counts"
    );
    assert_eq!(ask(Proto::Tcp, "sip:x@example.org", "sip:1@h"), ["b"]);
    assert_eq!(ask(Proto::Any, "sip:x@example.com", "sip:1@h"), ["a", "b"]);
    assert!(ask(Proto::Tls, "sip:x@example.com", "sip:1@h").is_empty());
    assert!(
        tags(
            &table,
            "192.0.2.2",
            Proto::Any,
            "sip:x@example.com",
            "sip:1@h"
        )
        .is_empty()
    );
}

#[test]
fn the_highest_priority_comes_first_and_then_the_first_loaded() {
    let row = |tag, priority| TrustedRow {
        tag: Some(tag),
        priority,
        ..ROW
    };
    let table = table(&[
        row("a", 0),
        row("b", 5),
        row("c", 5),
        row("d", -1),
        row("e", 0),
    ]);
    assert_eq!(
        tags(&table, "192.0.2.1", Proto::Udp, "", ""),
        ["b", "c", "a", "e", "d"]
    );
}

#[test]
fn null_and_empty_patterns_match_everything() {
    let table = table(&[TrustedRow {
        from: Some(""),
        ruri: None,
        ..ROW
    }]);
    assert_eq!(tags(&table, "192.0.2.1", Proto::Udp, "x", "y"), ["(none)"]);
}

#[test]
fn addresses_are_equal_however_they_are_written() {
    let table = table(&[
        TrustedRow {
            source: "2001:DB8:0::1",
            tag: Some("six"),
            ..ROW
        },
        TrustedRow {
            source: "2001:db8::1",
            tag: Some("same"),
            ..ROW
        },
        TrustedRow {
            source: "[2001:db8::1]",
            tag: Some("bare"),
            ..ROW
        },
        TrustedRow {
            source: "010.0.0.1",
            tag: Some("padded"),
            ..ROW
        },
        TrustedRow {
            source: "gw.example.com",
            tag: Some("name"),
            ..ROW
        },
    ]);
    assert_eq!(
        tags(&table, "2001:db8::1", Proto::Udp, "", ""),
        ["six", "same", "bare"]
    );
    for source in ["10.0.0.1", "010.0.0.1"] {
        assert_eq!(tags(&table, source, Proto::Udp, "", ""), ["padded"]);
    }
    assert_eq!(tags(&table, "gw.example.com", Proto::Udp, "", ""), ["name"]);
    assert!(tags(&table, "GW.example.com", Proto::Udp, "", "").is_empty());
    assert_eq!(warning(ROW), None);
    let odd = warning(TrustedRow {
        source: "2001:DB8:0::1",
        ..ROW
    })
    .unwrap();
    assert!(
        odd.starts_with("row 7: src_ip \"2001:DB8:0::1\" is not written")
            && odd.contains("read as 2001:db8::1"),
        "{odd}"
    );
    let name = warning(TrustedRow {
        source: "10.0.0.0/8",
        ..ROW
    })
    .unwrap();
    assert!(name.contains("is not an address"), "{name}");
}

#[test]
fn invalid_rows_are_reported() {
    let bad = error(TrustedRow {
        proto: "sip",
        ..ROW
    });
    assert!(
        bad.starts_with("row 7: proto \"sip\" is not a transport; write any"),
        "{bad}"
    );
    let bad = error(TrustedRow {
        from: Some("\\(a\\)\\1"),
        ..ROW
    });
    assert!(
        bad.contains("from_pattern") && bad.contains("back-reference"),
        "{bad}"
    );
    let bad = error(TrustedRow {
        ruri: Some("[a"),
        ..ROW
    });
    assert!(
        bad.contains("ruri_pattern \"[a\" has a [ without its ]"),
        "{bad}"
    );
    let bad = error(TrustedRow {
        priority: 1 << 40,
        ..ROW
    });
    assert!(
        bad.contains("priority 1099511627776 is out of range"),
        "{bad}"
    );
}

#[test]
fn disabled_rows_are_counted() {
    let mut builder = TrustedBuilder::default();
    builder
        .push(TrustedRow {
            proto: "None",
            ..ROW
        })
        .unwrap();
    builder.push(ROW).unwrap();
    assert_eq!((builder.ignored(), builder.build().len()), (1, 1));
}

#[test]
fn a_uri_above_kamailios_limit_matches_no_row() {
    let table = table(&[ROW]);
    let uri = "x".repeat(1025);
    assert!(tags(&table, "192.0.2.1", Proto::Udp, &uri, "").is_empty());
    assert_eq!(
        tags(&table, "192.0.2.1", Proto::Udp, &uri[..1024], "").len(),
        1
    );
    let given = |ruri| {
        let question = TrustedQuestion {
            source: TrustedSource::parse("192.0.2.1"),
            proto: Proto::Udp,
            from: FromUri::Given(&uri),
            ruri,
        };
        table.matches(question).len()
    };
    assert_eq!((given(""), given(&uri)), (1, 0));
}

#[test]
fn dumps_have_kamailios_order() {
    let table = table(&[
        TrustedRow {
            source: "192.0.2.9",
            proto: "wss",
            ..ROW
        },
        TrustedRow {
            priority: 1,
            from: Some("x"),
            ..ROW
        },
        TrustedRow {
            priority: 2,
            tag: Some("t"),
            ..ROW
        },
    ]);
    let rows: Vec<_> = table.rows().collect();
    assert!(rows.is_sorted_by_key(|row| row.bucket));
    let same: Vec<_> = rows
        .iter()
        .filter(|row| row.source == "192.0.2.1")
        .map(|row| row.priority)
        .collect();
    assert_eq!(same, [2, 1]);
    assert_eq!(rows.iter().map(|row| row.proto.number()).max(), Some(6));
}

#[test]
fn rows_above_the_memory_limit_of_patterns_are_skipped_and_reported() {
    let mut builder = TrustedBuilder::with_budget(PatternBudget::new(200_000));
    let mut taken = 0;
    for id in 1..=100 {
        let pattern = format!("{id}[ab]\\{{1,480\\}}");
        let row = TrustedRow {
            id,
            from: Some(&pattern),
            ..ROW
        };
        match builder.push(row) {
            Ok(_) => taken += 1,
            Err(error) => {
                let said = error.to_string();
                assert!(
                    said.starts_with(&format!("row {id}: ")) && said.contains("`pattern-memory`"),
                    "{said}"
                );
            }
        }
    }
    assert!((2..20).contains(&taken), "{taken}");
    // A row without a pattern still fits.
    builder.push(ROW).unwrap();
    assert_eq!(builder.build().len(), taken + 1);
}

/// The rows of one source cost a few passes over the URIs, and not one for each row.
#[test]
fn the_rows_of_one_source_are_matched_at_once() {
    let patterns: Vec<_> = (0..640).map(|n| format!("^sip:{n}@example")).collect();
    let rows = patterns.iter().map(|pattern| TrustedRow {
        from: Some(pattern),
        tag: Some(pattern),
        ..ROW
    });
    let table = table(&rows.collect::<Vec<_>>());
    let from = "sip:639@example.com";
    assert_eq!(
        tags(&table, "192.0.2.1", Proto::Udp, from, "sip:x@y"),
        ["^sip:639@example"]
    );
    let question = TrustedQuestion {
        source: TrustedSource::parse("192.0.2.1"),
        proto: Proto::Udp,
        from: FromUri::Own(from),
        ruri: "sip:x@y",
    };
    let mut effort = Effort::unbounded();
    let all = |_| ControlFlow::Continue(());
    table.find(question, &mut effort, all).unwrap();
    let most = (640 / 16) * (from.len() as u64 + 1) + 640 + 64;
    assert!(effort.steps() <= most, "{} of {most}", effort.steps());
}

proptest! {
    /// Compared with the naive way: all rows, one after the other.
    #[test]
    fn the_table_gives_the_results_of_a_list_of_rows(
        rows in proptest::collection::vec((0..3_usize, 0..4_usize, 0..4_usize, 0..4_usize, -2..3_i64), 0..300),
        asked in proptest::collection::vec((0..4_usize, 0..4_usize, 0..3_usize, 0..3_usize), 8),
    ) {
        const SOURCES: [&str; 4] = ["10.0.0.1", "10.0.0.2", "2001:db8::1", "name"];
        const PROTOS: [&str; 4] = ["any", "udp", "tcp", "tls"];
        const PATTERNS: [Option<&str>; 4] = [None, Some(""), Some("^sip:a"), Some("b$")];
        const URIS: [&str; 3] = ["sip:a@b", "sip:b@a", "sip:c@b"];
        let fits = |pattern: Option<&str>, uri: &str| match pattern {
            None | Some("") => true,
            Some("b$") => uri.ends_with('b'),
            Some(_) => uri.starts_with("sip:a"),
        };
        let names: Vec<_> = (0..rows.len()).map(|at| at.to_string()).collect();
        let rows: Vec<_> = rows.iter().zip(&names).map(|(&(source, proto, from, ruri, priority), tag)| TrustedRow {
            id: 1, source: SOURCES[source], proto: PROTOS[proto], from: PATTERNS[from], ruri: PATTERNS[ruri],
            tag: Some(tag), priority,
        }).collect();
        let table = table(&rows);
        for (source, proto, from, ruri) in asked {
            let (source, proto, from, ruri) = (SOURCES[source], PROTOS[proto], URIS[from], URIS[ruri]);
            let mut expected: Vec<_> = rows.iter().filter(|row| {
                row.source == source && (row.proto == "any" || proto == "any" || row.proto == proto)
                    && fits(row.from, from) && fits(row.ruri, ruri)
            }).collect();
            expected.sort_by_key(|row| -row.priority);
            let expected: Vec<_> = expected.iter().map(|row| row.tag.unwrap()).collect();
            prop_assert_eq!(tags(&table, source, Proto::parse(proto).unwrap(), from, ruri), expected);
        }
    }
}
