//! The tutorial works: its commands run in their order and print what the page says.

#![forbid(unsafe_code)]

use std::env;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use portcullis_testkit::documents::{Block, Page};
use portcullis_testkit::lease::Lease;
use portcullis_testkit::wait::{self, PATIENCE};
use portcullis_testkit::{binary, root};

/// The terminals of a reader. Their programs end with this.
struct Reader {
    home: PathBuf,
    /// The current directory of the first terminal.
    folder: PathBuf,
    /// The network of the test, in place of that of the page: "127.1.2.".
    network: String,
    /// Programs in terminals of their own, with what they print.
    programs: Vec<(Child, PathBuf)>,
}

/// The network of the page.
const NETWORK: &str = "127.0.0.";

impl Reader {
    fn new(home: &Path, network: String) -> Self {
        Self {
            home: home.to_owned(),
            folder: home.to_owned(),
            network,
            programs: Vec::new(),
        }
    }

    /// A shell for the commands of a block, which prints to this file.
    fn shell(&self, script: &str, output: &Path) -> Command {
        let binary = binary();
        let folder = binary.parent().expect("it is in a directory");
        let path = env::var("PATH").unwrap_or_default();
        let printed = File::create(output).expect("it can be created");
        let mut shell = Command::new("bash");
        shell
            .args(["-euo", "pipefail", "-c", &script.replace(NETWORK, &self.network)])
            .current_dir(&self.folder)
            .env("PATH", format!("{}:{path}", folder.display()))
            .env("NO_COLOR", "1")
            // What the policy depends on has been built for the bundled policies.
            .env("CARGO_NET_OFFLINE", "true")
            .env("CARGO_TARGET_DIR", root().join("target/policies-build"))
            .stdin(Stdio::null())
            .stderr(printed.try_clone().expect("a second handle"))
            .stdout(printed);
        shell
    }

    /// Runs a block to its end, and returns what it prints.
    fn run(&mut self, block: &Block) -> String {
        let output = self.home.join("output");
        let place = self.home.join("place");
        let script = format!("{}\npwd > {}", block.text, place.display());
        let status = self.shell(&script, &output).status().expect("bash runs");
        let printed = self.printed(&output);
        assert!(status.success(), "{}: {status}\n{printed}", block.place());
        let folder = fs::read_to_string(place).expect("the shell says where it is");
        self.folder = PathBuf::from(folder.trim_end());
        printed
    }

    /// Starts the command of a block in a terminal of its own, and waits until it prints this word.
    fn start(&mut self, block: &Block, word: &str) {
        let output = self.home.join(format!("terminal-{}", self.programs.len()));
        let script = format!("exec {}", block.text);
        let program = self.shell(&script, &output).spawn().expect("bash runs");
        self.programs.push((program, output.clone()));
        wait::until(&format!("{} prints {word}", block.place()), || {
            self.printed(&output).contains(word).then_some(())
        });
    }

    /// What the last program in a terminal of its own has printed when it has ended.
    fn last(&mut self) -> String {
        let (program, output) = self.programs.last_mut().expect("a program");
        wait::until("the program ends", || {
            program.try_wait().expect("it is ours")
        });
        let output = output.clone();
        self.printed(&output)
    }

    fn printed(&self, output: &Path) -> String {
        let text = fs::read_to_string(output).expect("it is text");
        text.replace(&self.network, NETWORK)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        for (program, _) in &mut self.programs {
            let _ended = program.kill();
            let _status = program.wait();
        }
    }
}

/// The first line that is not printed: its parts between ellipses are in no line in this order. Widths of columns are not compared.
fn missing<'t>(printed: &str, text: &'t str) -> Option<&'t str> {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let printed: Vec<_> = printed.lines().map(words).collect();
    text.lines().find(|line| {
        let line = words(line);
        !printed.iter().any(|found| {
            let mut rest = found.as_str();
            line.split('…').all(|part| {
                let part = part.trim();
                let at = rest.find(part);
                rest = at.map_or("", |at| &rest[at + part.len()..]);
                at.is_some()
            })
        })
    })
}

#[test]
fn the_tutorial_prints_what_it_says() {
    let lease = Lease::new();
    let network = lease.ip(0).to_string();
    let network = network
        .strip_suffix('0')
        .expect("the first address of a network");
    let home = tempfile::tempdir().expect("a temporary directory");
    let mut reader = Reader::new(home.path(), network.to_owned());

    let blocks = Page::named("docs/tutorial.md").blocks();
    let blocks: Vec<_> = blocks
        .iter()
        .filter(|block| block.reason_not_to_run().is_none())
        .collect();
    let mut printed = String::new();
    let mut compared = 0;
    for (at, block) in blocks.iter().enumerate() {
        match (block.language(), block.attribute("terminal")) {
            ("sh", Some(word)) => reader.start(block, word),
            // What it shows may take a moment.
            ("sh", None) if block.attribute("repeat").is_some() => {
                let expected = &blocks.get(at + 1).expect("its output follows").text;
                wait::within(PATIENCE, || {
                    printed = reader.run(block);
                    missing(&printed, expected).is_none().then_some(())
                });
            }
            ("sh", None) => printed = reader.run(block),
            ("text", _) => {
                if block.attribute("of") == Some("terminal") {
                    printed = reader.last();
                }
                compared += block.text.lines().count();
                let missing = missing(&printed, &block.text);
                assert_eq!(missing, None, "{}\n---\n{printed}", block.place());
            }
            (other, _) => panic!("{}: a block in {other}", block.place()),
        }
    }
    assert!(compared > 30, "{compared}");
}
