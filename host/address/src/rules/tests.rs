use super::*;

fn loaded(allow: &str, deny: &str) -> LoadedRules {
    LoadedRules::of([("test", allow, deny)])
}

fn rules(allow: &str, deny: &str) -> Rules {
    let loaded = loaded(allow, deny);
    assert_eq!(loaded.errors, []);
    loaded.rules
}

fn error(line: &str) -> String {
    let loaded = loaded(line, "");
    assert_eq!((loaded.skipped, loaded.rules.len()), (1, 0), "{line}");
    loaded.errors[0].to_string()
}

#[test]
fn allow_rules_precede_deny_rules_and_no_match_allows() {
    let rules = rules("\"^sip:boss@\" : ALL\n", "ALL : \"^sip:0900\"\n");
    assert!(rules.allows("test", "sip:boss@x", Some("sip:0900123@gw")));
    assert!(!rules.allows("test", "sip:bob@x", Some("sip:0900123@gw")));
    assert!(rules.allows("test", "sip:bob@x", Some("sip:030123@gw")));
    assert!(
        !rules.allows("test", "sip:boss@x", None),
        "an invalid text is denied"
    );
}

#[test]
fn missing_files_allow_everything() {
    let rules = rules("", "# nothing but a comment\n\n");
    assert!(rules.allows("test", "a", Some("b")), "an empty pair");
    assert!(rules.allows("test", "a", None));
    assert!(rules.allows("other", &"x".repeat(999), None), "no pair");
    assert!(rules.test("test", "a", "b"));
    assert!(
        !rules.test("other", "a", "b"),
        "Kamailio's testUri denies if the files do not exist"
    );
}

#[test]
fn lists_exceptions_and_comments() {
    let rules = rules(
        "",
        "\"^sip:a@\", \"^sip:b@\" EXCEPT \"@good\", \"@fine\" : ALL EXCEPT \"^sip:112@\" # not for a:b\n\
         plain@x : \"#\", \",\"\r\n",
    );
    let allows = |left, right| rules.allows("test", left, Some(right));
    assert!(!allows("sip:a@bad", "sip:1@x"));
    assert!(!allows("sip:B@bad", "sip:1@x"), "without case");
    assert!(allows("sip:a@good", "sip:1@x"));
    assert!(allows("sip:b@fine", "sip:1@x"));
    assert!(allows("sip:c@bad", "sip:1@x"));
    assert!(allows("sip:a@bad", "sip:112@x"));
    assert!(!allows("plain@x", "a#b"));
    assert!(!allows("plain@x", "a,b"));
    assert!(allows("plain@x", "ab"));
}

#[test]
fn the_last_colon_outside_quotes_separates_the_sides() {
    let rules = rules("", "sip:a@x : \"^sip:1@\"\n");
    assert!(!rules.allows("test", "sip:a@x", Some("sip:1@y")));
    assert!(rules.allows("test", "sip:a@y", Some("sip:1@y")));
}

#[test]
fn texts_above_kamailios_limit_are_denied() {
    let rules = rules("ALL : ALL\n", "");
    let long = "x".repeat(257);
    assert!(rules.allows("test", &long[1..], Some(&long[1..])));
    assert!(!rules.allows("test", &long, Some("x")));
    assert!(!rules.allows("test", "x", Some(&long)));
}

#[test]
fn invalid_lines_are_reported() {
    assert!(
        error("\"a\" \"b\"").starts_with("test.allow line 1: \"\\\"a\\\" \\\"b\\\"\" has no colon")
    );
    assert!(error("\n\n: ALL").contains("line 3: \": ALL\" has nothing on one side"));
    assert!(error("ALL :  # x").contains("nothing on one side"));
    assert!(error("\"a\",, \"b\" : ALL").contains("empty pattern"));
    assert!(error("\"a\", : ALL").contains("empty pattern"));
    assert!(error("\"\" : ALL").contains("empty pattern"));
    assert!(error("\"[a\" : ALL").contains("\"[a\" has a [ without its ]"));
    assert!(error("\"(a)\\1\" : ALL").contains("back-reference"));
    assert!(
        error(&format!("\"{}\" : ALL", "x".repeat(256))).contains("has 256 bytes; use at most 255")
    );
    let latin = RuleFolder::default();
    assert_eq!(latin.load().unwrap().files, 0);
}

#[test]
fn long_lines_are_parsed_completely() {
    let list = ["\"^sip:bob@\""; 60].join(",");
    let rules = rules(
        "",
        &format!("{list},\"^sip:carol@\" : ALL\n\"^sip:dave@\" : ALL # {list} : ALL\n"),
    );
    let allows = |left| rules.allows("test", left, Some("sip:1@x"));
    assert!(!allows("sip:carol@x") && !allows("sip:dave@x"));
    assert!(allows("sip:alice@x"));
}

#[test]
fn an_invalid_line_does_not_affect_the_others() {
    let loaded = loaded("", "nonsense\nALL : \"^sip:1@\"\n\"[\" : ALL\n");
    assert_eq!((loaded.skipped, loaded.rules.len()), (2, 1));
    assert!(!loaded.rules.allows("test", "a", Some("sip:1@x")));
}

#[test]
fn a_folder_holds_pairs_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &[u8]| std::fs::write(folder.path().join(name), text).unwrap();
    write("permissions.deny", b"ALL : \"^sip:1@\"\n");
    write("permissions.allow", b"\"^sip:boss@\" : ALL\n");
    write("register.deny", b"ALL : ALL # \xff\n\xff : ALL\n");
    write("notes.txt", b"not ours");
    write(".allow", b"nonsense");
    std::fs::create_dir(folder.path().join("old.deny")).unwrap();
    let rules = RuleFolder::new(folder.path());
    let loaded = rules.load().unwrap();
    assert_eq!(
        (loaded.files, loaded.skipped, loaded.has_default()),
        (3, 1, true)
    );
    assert!(
        loaded.errors[0]
            .to_string()
            .contains("register.deny line 2:"),
        "{:?}",
        loaded.errors
    );
    assert_eq!(
        loaded.rules.names(),
        [("permissions", 1, 1), ("register", 0, 1)]
    );
    assert!(
        !loaded
            .rules
            .allows(DEFAULT_RULES, "sip:bob@x", Some("sip:1@x"))
    );
    assert!(
        !loaded
            .rules
            .allows("register", "sip:bob@x", Some("sip:2@x"))
    );

    let before = rules.stamp().unwrap();
    assert_eq!(before, rules.stamp().unwrap());
    write("register.deny", b"ALL : \"x\"\n");
    assert_ne!(before, rules.stamp().unwrap());
    std::fs::remove_file(folder.path().join("register.deny")).unwrap();
    assert_eq!(rules.load().unwrap().files, 2);
    drop(folder);
    let error = rules.load().unwrap_err().to_string();
    assert!(error.contains("`folder` in [permissions]"), "{error}");
}

/// Compared with the naive way: all lines, one after the other.
#[test]
fn blocks_of_lines_give_the_results_of_a_list_of_lines() {
    // Long lists of patterns on both sides, and more lines than a block has.
    let list = |from: usize, count: usize| {
        let patterns = (from..from + count).map(|n| format!("\"^sip:{n}@\""));
        patterns.collect::<Vec<_>>().join(", ")
    };
    let mut deny = String::new();
    let mut lines = Vec::new();
    for n in 0..150 {
        let (any, except, right) = (n % 37 + 1, n % 5 * 7, n % 3 * 20);
        let left = match except {
            0 => list(n, any),
            _ => format!("{} EXCEPT {}", list(n, any), list(n, except)),
        };
        let right_list = match right {
            0 => "ALL".to_owned(),
            _ => list(2 * n, right),
        };
        deny += &format!("{left} : {right_list}\n");
        lines.push((n, any, except, right));
    }
    let rules = rules("", &deny);
    assert_eq!(rules.len(), 150);
    for left in (0..200).step_by(3) {
        for right in (0..340).step_by(7) {
            let fits = |&(n, any, except, count): &(usize, usize, usize, usize)| {
                (n..n + any).contains(&left)
                    && !(n..n + except).contains(&left)
                    && (count == 0 || (2 * n..2 * n + count).contains(&right))
            };
            let expected = !lines.iter().any(fits);
            let (left, right) = (format!("sip:{left}@x"), format!("sip:{right}@x"));
            let allowed = rules.allows("test", &left, Some(&right));
            assert_eq!(allowed, expected, "{left} {right}");
        }
    }
}

#[test]
fn patterns_above_the_memory_limit_keep_the_previous_rules() {
    let folder = tempfile::tempdir().unwrap();
    let write = |text: &str| std::fs::write(folder.path().join("permissions.deny"), text).unwrap();
    let rules = RuleFolder::new(folder.path()).with_pattern_memory(100_000);
    write("ALL : \"^sip:1@\"\n");
    assert_eq!(rules.load().unwrap().rules.len(), 1);
    let line = |n: usize| format!("ALL : \"^sip:{n}[a-f]{{200}}@\"\n");
    write(&(0..100).map(line).collect::<String>());
    let error = rules.load().unwrap_err().to_string();
    assert!(
        error.contains("permissions.deny") && error.contains("`pattern-memory` in [permissions]"),
        "{error}"
    );
}
