use proptest::prelude::*;

use super::*;

const FORMATS: [Format; 3] = [Format::Csv, Format::JsonLines, Format::AddressFile];

fn row(group: i64, ip_addr: &str, mask: i64, port: i64, tag: Option<&str>) -> NewRow {
    NewRow {
        group,
        ip_addr: ip_addr.to_owned(),
        mask,
        port,
        tag: tag.map(str::to_owned),
    }
}

fn written(format: Format, rows: &[NewRow]) -> String {
    let mut out = Vec::new();
    let mut writer = RowWriter::new(format, &mut out).unwrap();
    for row in rows {
        writer.write(row).unwrap();
    }
    writer.finish().unwrap();
    String::from_utf8(out).unwrap()
}

fn said(format: Format, text: impl AsRef<[u8]>) -> Vec<String> {
    let import = format.read(text.as_ref(), "rows");
    import.errors.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn all_begin(said: &[String], expected: &[&str]) {
    assert_eq!(said.len(), expected.len(), "{said:#?}");
    for (said, expected) in said.iter().zip(expected) {
        assert!(said.starts_with(expected), "{said}\n{expected}");
    }
}

#[test]
fn formats_are_written_as_documented() {
    let rows = [
        row(200, "192.168.1.0", 24, 5060, Some("Office, \"old\"")),
        row(250, "2001:db8::1", 128, 0, None),
        row(1, "10.0.0.1", 32, 0, Some("")),
        row(1, "10.0.0.2", 32, 0, Some("\\N")),
    ];
    assert_eq!(
        written(Format::Csv, &rows),
        "grp,ip_addr,mask,port,tag\n200,192.168.1.0,24,5060,\"Office, \"\"old\"\"\"\n250,2001:db8::1,128,0,\\N\n\
         1,10.0.0.1,32,0,\n1,10.0.0.2,32,0,\\\\N\n"
    );
    assert_eq!(
        written(Format::JsonLines, &rows[..2]),
        "{\"grp\":200,\"ip_addr\":\"192.168.1.0\",\"mask\":24,\"port\":5060,\"tag\":\"Office, \\\"old\\\"\"}\n\
         {\"grp\":250,\"ip_addr\":\"2001:db8::1\",\"mask\":128,\"port\":0,\"tag\":null}\n"
    );
    assert_eq!(
        written(Format::AddressFile, &rows[1..3]),
        "250 2001:db8::1 128 0\n1 10.0.0.1 32 0\n"
    );
}

#[test]
fn rows_that_an_address_file_cannot_express_are_reported() {
    let mut writer = RowWriter::new(Format::AddressFile, Vec::new()).unwrap();
    for tag in ["Office Subnet", "a#b", "a\nb", "a\u{a0}b"] {
        let error = writer
            .write(&row(200, "10.0.0.1", 32, 0, Some(tag)))
            .unwrap_err();
        assert!(matches!(error, WriteError::Row(_)), "{error}");
        assert!(
            error
                .to_string()
                .starts_with("group 200, address 10.0.0.1: tag \""),
            "{error}"
        );
    }
    writer
        .write(&row(200, "10.0.0.1", 32, 0, Some("")))
        .unwrap();
    writer.write(&row(200, "10.0.0.1", 32, 0, None)).unwrap();
    assert_eq!(writer.finish().unwrap(), 1);
}

#[test]
fn csv_is_read_with_columns_in_any_order_and_defaults() {
    let text = "\u{feff}tag, id,ip_addr,grp\r\nOffice,7,10.0.0.1, 200 \r\n,8,2001:db8::1,1\r\n\\N,9,a.example,1\r\n";
    let import = Format::Csv.read(text.as_bytes(), "rows");
    assert_eq!(import.errors, []);
    assert_eq!(
        import.rows,
        [
            row(200, "10.0.0.1", 32, 0, Some("Office")),
            row(1, "2001:db8::1", 128, 0, Some("")),
            row(1, "a.example", 32, 0, None),
        ]
    );
    assert_eq!(import.warned, 1);
    assert!(
        import.warnings[0]
            .to_string()
            .starts_with("rows:4: ip_addr \"a.example\" is a name")
    );
    let import = Format::Csv.read(b"grp,ip_addr,mask,port\n1,10.0.0.1,,\n", "rows");
    assert_eq!(import.rows, [row(1, "10.0.0.1", 32, 0, None)]);
}

#[test]
fn every_invalid_line_of_csv_is_reported() {
    let text = b"grp,ip_addr,mask,port,tag\n0,10.0.0.1,32,0,\n200,10.0.0.2,wide,0,\n200,10.0.0.3,32,0,\"two\nlines\"\n\
        200,10.0.0.0/24,32,0,\r\n\r\n200,10.0.0.5,32,0\n200,10.0.0.6,32,0,\xff\n200,10.0.0.7,32,70000,\n";
    all_begin(
        &said(Format::Csv, text),
        &[
            "rows:2: grp 0 is not a group; use a group from 1",
            "rows:3: mask \"wide\" is not a whole number; write one",
            "rows:6: ip_addr \"10.0.0.0/24\" is a network in CIDR form",
            "rows:8: line \"200\" has 4 values for 5 columns; write as many",
            "rows:9: tag \"\u{fffd}\" is not text; write the file in UTF-8",
            "rows:10: port 70000 is not a port",
        ],
    );
    let long = format!("grp,ip_addr,tag\n1,10.0.0.1,{}\n", "x".repeat(65));
    assert!(
        said(Format::Csv, long)[0]
            .ends_with("has 65 characters; use at most 64: the column is no wider")
    );
    for (head, expected) in [
        (
            "",
            "rows:1: line \"\" is not a header; begin the file with grp,",
        ),
        ("200,10.0.0.1\n", "rows:1: line \"200\" is not a header"),
        ("grp,mask\n", "rows:1: line \"grpmask\" is not a header"),
        (
            "grp,ip_addr,colour\n",
            "rows:1: line \"colour\" is not a header",
        ),
        ("grp,ip_addr,grp\n", "rows:1: line \"grp\" occurs twice"),
    ] {
        all_begin(&said(Format::Csv, head), &[expected]);
    }
}

#[test]
fn every_invalid_line_of_json_is_reported() {
    let text = "{\"grp\":200,\"ip_addr\":\"10.0.0.1\"}\n\n{\"grp\":\"200\",\"ip_addr\":\"10.0.0.2\"}\n[1]\n{\"grp\":1\n\
        {\"ip_addr\":\"10.0.0.3\"}\n{\"grp\":1,\"ip_addr\":7}\n{\"grp\":1,\"ip_addr\":\"10.0.0.4\",\"mask\":1.5}\n\
        {\"grp\":1,\"ip_addr\":\"10.0.0.5\",\"tag\":5}\n{\"grp\":1,\"ip_addr\":\"10.0.0.6\",\"colour\":1}\n\
        {\"grp\":1,\"ip_addr\":\"10.0.0.7\",\"mask\":33}\n";
    all_begin(
        &said(Format::JsonLines, text),
        &[
            "rows:3: grp \"\\\"200\\\"\" is not a whole number; write one, without quotes",
            "rows:4: line \"[1]\" is not a JSON object (column",
            "rows:5: line \"{\\\"grp\\\":1\" is not a JSON object (column",
            "rows:6: grp \"\" is missing; write one",
            "rows:7: ip_addr \"7\" is not a string",
            "rows:8: mask \"1.5\" is not a whole number",
            "rows:9: tag \"5\" is not a string; write it in quotes, or null",
            "rows:10: line \"colour\" is not a key of a row; the keys are",
            "rows:11: mask 33 is not a mask of an IPv4 address",
        ],
    );
}

#[test]
fn formats_have_names_and_endings() {
    for (name, ending) in [
        ("csv", "a.csv"),
        ("jsonl", "a.b.jsonl"),
        ("jsonl", "a.ndjson"),
    ] {
        assert_eq!(Format::of_file(ending), Some(name.parse().unwrap()));
    }
    assert_eq!("address-file".parse(), Ok(Format::AddressFile));
    assert_eq!(Format::of_file("address.list"), None);
    assert!(
        "xml"
            .parse::<Format>()
            .unwrap_err()
            .to_string()
            .contains("csv, jsonl and address-file")
    );
}

/// Any row that a table takes.
fn rows() -> impl Strategy<Value = Vec<NewRow>> {
    let place = prop_oneof![
        (any::<std::net::Ipv4Addr>(), 0..=32i64).prop_map(|(ip, mask)| (ip.to_string(), mask)),
        (any::<std::net::Ipv6Addr>(), 0..=128i64).prop_map(|(ip, mask)| (ip.to_string(), mask)),
        ("[a-z][a-z0-9.-]{0,40}", 0..=200i64),
    ];
    let tag = prop_oneof![
        Just(None),
        Just(Some(String::new())),
        "\\\\{0,3}N".prop_map(Some),
        "[ ,;\"'\\\\\r\n\t#a-zü]{0,20}".prop_map(Some),
        "\\PC{0,64}".prop_map(Some),
        "[a-zA-Z0-9ü.:-]{1,64}".prop_map(Some),
    ];
    let row =
        (1..=u32::MAX, place, any::<u16>(), tag).prop_map(|(group, (ip_addr, mask), port, tag)| {
            NewRow {
                group: group.into(),
                ip_addr,
                mask,
                port: port.into(),
                tag,
            }
        });
    proptest::collection::vec(
        row.prop_filter("a row that a table takes", |row| row.check().is_ok()),
        0..20,
    )
}

proptest! {
    #[test]
    fn rows_survive_a_round_trip(rows in rows()) {
        for format in FORMATS {
            let mut out = Vec::new();
            let mut writer = RowWriter::new(format, &mut out).unwrap();
            let mut kept = rows.clone();
            kept.retain(|row| writer.write(row).is_ok());
            writer.finish().unwrap();
            let import = format.read(&out, "rows");
            prop_assert_eq!(&import.errors, &[]);
            if format == Format::AddressFile {
                for row in &mut kept {
                    row.tag = row.tag.take().filter(|tag| !tag.is_empty());
                }
            } else {
                prop_assert_eq!(kept.len(), rows.len());
            }
            prop_assert_eq!(import.rows, kept);
        }
    }

    #[test]
    fn no_bytes_cause_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), head in any::<bool>()) {
        for format in FORMATS {
            let head: &[u8] = if head { b"grp,ip_addr,mask,port,tag\n1,10.0.0.1," } else { b"" };
            let _read = format.read(&[head, &bytes].concat(), "rows");
        }
    }
}
