//! Merges the core modules of a component: `merge IN OUT`.

#![allow(clippy::unwrap_used, reason = "an example may panic")]

fn main() {
    let mut args = std::env::args().skip(1);
    let (from, to) = (args.next().unwrap(), args.next().unwrap());
    let begin = std::time::Instant::now();
    let merged = portcullis_merge::merge(&std::fs::read(from).unwrap());
    println!(
        "{} core instances merged in {:?}; {:?}",
        merged.instances,
        begin.elapsed(),
        merged.unmerged
    );
    std::fs::write(to, merged.bytes).unwrap();
}
