//! Properties of every capture, as assertions that tests and the fuzz target share.

use crate::replay::capture::{Capture, read_from};

/// Reads a packet capture. Panics if more comes out of it than is in it, or another thing the second time.
pub fn capture(file: &[u8]) {
    let (first, second) = (read_from(file, &"file"), read_from(file, &"file"));
    let (capture, again) = match (first, second) {
        (Ok(capture), Ok(again)) => (capture, again),
        (Err(error), Err(again)) => return assert_eq!(error.to_string(), again.to_string()),
        (first, second) => panic!("{first:?}, then {second:?}"),
    };
    assert_eq!(
        texts(&capture),
        texts(&again),
        "a file reads the same twice"
    );
    assert_eq!(capture.lost, again.lost);

    // Either form has 16 bytes around each packet.
    let length = file.len() as u64;
    assert!(capture.packets * 16 <= length);
    assert!(capture.cut <= capture.packets);
    let messages = capture.requests.iter();
    let messages = messages.map(|found| found.request.message().bytes().len() as u64);
    assert!(messages.sum::<u64>() <= length);
    assert!(capture.requests.is_sorted_by_key(|found| found.packet));
    for found in &capture.requests {
        assert!((1..=capture.packets).contains(&found.packet));
        assert!(found.request.is_request());
    }
    for (_, _, lost) in &capture.lost {
        assert!((1..=capture.packets).contains(&lost.first_packet) || lost.first_packet == 0);
        assert!(lost.skipped_bytes <= length);
        assert!(lost.messages > 0 && !lost.is_nothing());
    }
}

fn texts(capture: &Capture) -> Vec<(u64, String)> {
    let requests = capture.requests.iter();
    requests
        .map(|found| (found.packet, found.request.as_text().into_owned()))
        .collect()
}
