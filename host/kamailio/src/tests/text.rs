//! Directives, included files, and texts that are broken.

use super::*;

#[test]
fn switched_off_parts_are_passed_over_and_told() {
    let text = "#!ifdef WITH_A\n#!ifdef WITH_B\nlisten=udp:10.0.0.1\n#!else\nlisten=udp:10.0.0.2\n#!endif\n\
                #!else\nlisten=udp:10.0.0.3\n#!endif\nport=5070\n";
    let fake = Fake::default().file("/etc/k/k.cfg", text);
    let listen = |defines: &[(&str, &str)]| {
        let import = fake.import(defines);
        let config = Config::parse(&import.text).unwrap();
        (config.listen[0].to_string(), said(&import))
    };
    let (first, said) = listen(&[]);
    assert_eq!(first, "udp:10.0.0.3:5070");
    assert_eq!(
        said[..2],
        [
            "/etc/k/k.cfg:1: #!ifdef WITH_A and #!ifdef WITH_B do not hold, which switches off what k.cfg:3 says about \
             permissions or listening: if Kamailio is started with -A NAME, give --define NAME here",
            "/etc/k/k.cfg:1: #!ifdef WITH_A does not hold, which switches off what k.cfg:5 says about permissions or listening: if \
             Kamailio is started with -A NAME, give --define NAME here",
        ]
    );
    assert_eq!(listen(&[("WITH_A", "")]).0, "udp:10.0.0.2:5070");
    assert_eq!(
        listen(&[("WITH_A", ""), ("WITH_B", "1")]).0,
        "udp:10.0.0.1:5070"
    );
    assert_eq!(listen(&[("WITH_B", "")]).0, "udp:10.0.0.3:5070");
}

#[test]
fn definitions_and_substitutions_reach_the_values() {
    let import = imported(
        "#!substdef \"!HOST!10.0.0.3!g\"\n#!subst \"/USER/kamailio/i\"\n#!defenv DB_HOST\n#!defenv ID=NOT_SET\n\
         #!define A B\n#!define B A\n#!trydef HOST x\n\
         modparam(\"permissions\", \"db_url\", \"mysql://user@HOST/\" \"k\")\n\
         listen=udp:HOST:5060\nalias=DB_HOST\nalias=A\n",
    );
    let config = Config::parse(&import.text).unwrap();
    assert_eq!(
        config.database.url.to_string(),
        "mysql://kamailio@10.0.0.3:3306/k"
    );
    assert_eq!(config.listen[0].to_string(), "udp:10.0.0.3:5060");
    assert_eq!(config.sip.aliases, ["db.example.com", "a"]);
    assert!(
        said(&import)[0]
            .starts_with("/etc/k/k.cfg:4: #!defenv ID=NOT_SET: NOT_SET is not in the environment")
    );
}

#[test]
fn files_are_included_from_beside_the_file_that_names_them() {
    let fake = Fake::default()
        .file(
            "/etc/k/k.cfg",
            "include_file \"more/a.cfg\"\nimport_file \"absent.cfg\"\n#!include_file \"lost.cfg\"\nalias=last.example.com",
        )
        .file("/etc/k/more/a.cfg", "\nlisten=udp:10.0.0.1:5060\n!!include_file \"b.cfg\"\n")
        .file("/etc/k/more/b.cfg", "include_file \"b.cfg\"\nmodparam(\"permissions\", \"max_subnets\", 1)\n");
    let import = fake.import(&[]);
    assert!(
        import.text.contains("\"udp:10.0.0.1:5060\",  # a.cfg:2\n"),
        "{}",
        import.text
    );
    assert!(
        import.text.contains("\"last.example.com\",  # k.cfg:4\n"),
        "{}",
        import.text
    );
    let said = said(&import);
    assert!(
        said.iter().any(|line| line.starts_with("/etc/k/k.cfg:3: include_file lost.cfg: entity not found")),
        "{said:#?}"
    );
    assert!(
        said.iter().any(|line| line
            .starts_with("/etc/k/more/b.cfg:1: include_file b.cfg: files are included too deep")),
        "{said:#?}"
    );
    assert!(
        said.iter()
            .any(|line| line.starts_with("/etc/k/more/b.cfg:2: permissions: max_subnets"))
    );
}

#[test]
fn what_does_not_end_is_told_where_it_starts() {
    for (text, words) in [
        ("a=1\nroute {\n", "k.cfg:2: a block that does not end"),
        ("a=1\n}", "k.cfg:2: a } without its {"),
        ("\n#!ifdef A\n", "k.cfg:2: #!ifdef A has no #!endif"),
        ("#!endif", "k.cfg:1: #!endif without #!ifdef"),
        (
            "#!ifndef A\n#!else # b\n#!endif\n",
            "k.cfg:2: #!else followed by other text: Kamailio and the import",
        ),
        ("\n/* a", "k.cfg:2: a comment that does not end"),
        (
            "a=\"b",
            "k.cfg:1: a text in double quotes that does not end",
        ),
        (
            "route { allow_trusted(",
            "k.cfg:1: allow_trusted: its arguments do not end",
        ),
        (
            "modparam(\"permissions\", 5)",
            "k.cfg:1: modparam: not understood",
        ),
        (
            "loadmodule permissions",
            "k.cfg:1: loadmodule: not understood",
        ),
        (
            "modparam(\"(\", \"a\", 5)",
            "k.cfg:1: modparam of \"(\": not a name of modules",
        ),
    ] {
        let said = said(&imported(text)).join("\n");
        assert!(said.contains(words), "{text:?}: {said}");
    }
}

#[test]
fn a_definition_that_explodes_is_cut_off() {
    let mut text = String::from("#!define A0 x x x x\n");
    for n in 1..20 {
        let m = n - 1;
        text += &format!("#!define A{n} A{m} A{m} A{m} A{m}\n");
    }
    text += "A19\n";
    assert!(said(&imported(&text))[0].contains("more than 1000000 words"));
}

#[test]
fn modules_that_count_are_told_of_their_counterparts() {
    let text = "loadmodule \"pike.so\"\nloadmodule \"htable.so\"\nloadmodule \"ratelimit.so\"\n";
    let said = said(&imported(text)).join("\n");
    for words in [
        "module pike",
        "[guard]",
        "module ratelimit",
        "rate-guard",
        "module htable",
        "counters::add",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(!said.contains("no memory"), "{said}");
}

#[test]
fn the_rate_of_pike_becomes_that_of_the_guard() {
    let text = "modparam(\"pike\", \"sampling_time_unit\", 3)\nmodparam(\"pike\", \"reqs_density_per_unit\", 16)\n\
        modparam(\"pike\", \"remove_latency\", 4)\n";
    let import = imported(text);
    let file = &import.text;
    assert!(file.contains("[guard]\nrate = 6  #"), "{file}");
    assert!(file.contains("burst = 16"), "{file}");
    assert!(said(&import).join("\n").contains("pike: remove_latency"));
    let table = "modparam(\"htable\", \"htable\", \"ipban=>size=8;autoexpire=3600;\")\n\
                 modparam(\"htable\", \"htable\", \"users=>size=8;autoexpire=60;\")\n";
    let bans = imported(&format!("{table}{text}")).text;
    assert!(bans.contains("ban = \"3600s\"  # k.cfg:1: "), "{bans}");
    assert!(!imported(table).text.contains("[guard]"));
    let wrong = imported("modparam(\"pike\", \"sampling_time_unit\", 0)\n");
    assert!(said(&wrong).join("\n").contains("not a number above 0"));
}
