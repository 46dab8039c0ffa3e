use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;

fn basic(pattern: &str) -> Pattern {
    Pattern::new(pattern, Syntax::Basic).unwrap()
}

fn extended(pattern: &str) -> Pattern {
    Pattern::new(pattern, Syntax::Extended).unwrap()
}

fn fault(pattern: &str, syntax: Syntax) -> String {
    Pattern::new(pattern, syntax).unwrap_err().to_string()
}

#[test]
fn patterns_match_anywhere_unless_they_are_anchored() {
    assert!(basic("@example").is_match("sip:bob@example.com"));
    assert!(!basic("^example").is_match("sip:bob@example.com"));
    assert!(basic(r"^sip:.*@example\.com$").is_match("sip:bob@example.com"));
    assert!(basic("").is_match("anything"));
    assert!(basic("").is_match(""));
}

#[test]
fn the_two_syntaxes_differ() {
    // Case-sensitive, and + is an ordinary character.
    assert!(!basic("SIP:").is_match("sip:bob"));
    assert!(basic("a+").is_match("a+"));
    assert!(!basic("^a+$").is_match("aa"));
    assert!(basic(r"^a\{2\}$").is_match("aa"));
    assert!(basic(r"^\(a\|b\)$").is_match("b"));
    // Case-insensitive, and + is a repetition.
    assert!(extended("SIP:").is_match("sip:bob"));
    assert!(extended("^a+$").is_match("AA"));
    assert!(extended("^(a|b){2}$").is_match("aB"));
    assert!(extended(r"^\+49[0-9]+@").is_match("+4930@x"));
}

#[test]
fn errors_are_described() {
    assert!(fault(r"\(a\)\1", Syntax::Basic).contains(r"back-reference, \1"));
    assert!(fault(r"(a)\1", Syntax::Extended).contains("write out what it refers to"));
    assert!(fault("[a", Syntax::Basic).contains("[ without its ]"));
    assert!(fault("(a", Syntax::Extended).contains("( without its )"));
    assert!(fault(r"a\)", Syntax::Basic).contains(r"\) without its \("));
    assert!(fault("+a", Syntax::Extended).contains("nothing to repeat"));
    assert!(fault("a\\", Syntax::Extended).contains("ends with a backslash"));
    assert!(fault("[[:letter:]]", Syntax::Basic).contains("class of characters"));
    assert!(fault("(((a{999}){999}){999})", Syntax::Extended).contains("too much memory"));
    assert!(fault(&"(".repeat(1000), Syntax::Extended).contains("nested groups"));
    assert!(fault(&"a".repeat(5000), Syntax::Basic).contains("5000 bytes"));
}

#[test]
fn matching_takes_linear_time() {
    // Backtracking engines take 2^n steps for this.
    let text = "a".repeat(10_000);
    assert!(!extended("^(a|aa)+$b").is_match(&text));
    assert!(!extended("^(a*)*b$").is_match(&text));
}

/// Every pattern has the same meaning as in the C library, and is refused if the C library refuses it.
#[test]
fn patterns_mean_what_they_mean_to_the_c_library() {
    let seed = std::env::var("PORTCULLIS_SEED").ok();
    let seed = seed.and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let mut random = Random(seed);
    let mut cases = Vec::new();
    for _ in 0..40_000 {
        let syntax = random.pick(&[Syntax::Basic, Syntax::Extended]);
        let pattern = random.text(&PIECES, 9);
        let texts: Vec<_> = (0..8).map(|_| random.text(&LETTERS, 5)).collect();
        cases.push((syntax, pattern, texts));
    }
    let answers = ask_c_library(&cases);
    let (mut refused, mut wrong) = (0, Vec::new());
    for ((syntax, pattern, texts), theirs) in cases.iter().zip(answers) {
        let ours = match Pattern::new(pattern, *syntax) {
            Ok(pattern) => texts
                .iter()
                .map(|text| if pattern.is_match(text) { '1' } else { '0' })
                .collect(),
            // A known difference.
            Err(error) if error.fault.contains("back-reference") => continue,
            Err(_) => "E".to_owned(),
        };
        refused += usize::from(theirs == "E");
        if ours != theirs {
            wrong.push(format!(
                "{syntax:?} {pattern:?} on {texts:?}: {ours}, not {theirs}"
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "seed {seed}, {} wrong: {:#?}",
        wrong.len(),
        &wrong[..wrong.len().min(10)]
    );
    assert!(
        (1000..39_000).contains(&refused),
        "{refused} refused: the mix is not worth much"
    );
}

/// Different patterns in the engine's syntax, and texts for them.
fn drafts(random: &mut Random, count: usize) -> Vec<Draft> {
    let mut drafts = Vec::new();
    while drafts.len() < count {
        let syntax = random.pick(&[Syntax::Basic, Syntax::Extended]);
        let pattern = random.text(&PIECES, 9);
        drafts.extend(Draft::new(&pattern, syntax).ok().flatten());
    }
    drafts
}

/// A pattern whose table of states would be too large has the same meaning.
#[test]
fn states_are_followed_to_the_same_answers() {
    let mut random = Random(7);
    for draft in drafts(&mut random, 3000) {
        let states = engine::states(&[draft.translated()]).unwrap();
        let table = Engine::alone(draft.translated(), &mut PatternBudget::default()).unwrap();
        assert!(matches!(table, Engine::Dfa(_)), "{draft:?}");
        let states = Engine::Nfa(states);
        for _ in 0..8 {
            let text = random.text(&LETTERS, 6);
            let found =
                |engine: &Engine| engine.found(1, text.as_bytes(), &mut Effort::unbounded());
            assert_eq!(found(&states), found(&table), "{draft:?} {text:?}");
        }
    }
}

#[test]
fn patterns_of_a_bank_match_as_they_do_alone() {
    let mut random = Random(11);
    for count in [1, 2, 15, 16, 17, 33, 63, 64] {
        let drafts = drafts(&mut random, count);
        let mut builder = bank::BankBuilder::new(PatternBudget::default());
        let bank = builder.build(&drafts.iter().collect::<Vec<_>>());
        let engines = drafts
            .iter()
            .map(|draft| Engine::alone(draft.translated(), &mut PatternBudget::default()).unwrap());
        let engines: Vec<_> = engines.collect();
        for _ in 0..50 {
            let text = random.text(&LETTERS, 6);
            let expected = engines.iter().enumerate().map(|(bit, engine)| {
                let found = engine.found(1, text.as_bytes(), &mut Effort::unbounded());
                found.unwrap() << bit
            });
            let expected = expected.fold(0, |all, bit| all | bit);
            let found = bank.found(&text, &mut Effort::unbounded());
            assert_eq!(found, Ok(expected), "{drafts:?} {text:?}");
        }
    }
}

/// Sixty-four patterns as in real files take a few steps per byte, not sixty-four.
#[test]
fn many_patterns_take_the_steps_of_few() {
    let drafts = (0..64).map(|n| {
        let pattern = format!("^sip:\\+49{n}[0-9]*@example\\.com$");
        Draft::new(&pattern, Syntax::Extended).unwrap().unwrap()
    });
    let drafts: Vec<_> = drafts.collect();
    let mut builder = bank::BankBuilder::new(PatternBudget::default());
    let bank = builder.build(&drafts.iter().collect::<Vec<_>>());
    let text = "sip:+4963123456789@example.com";
    let mut effort = Effort::unbounded();
    assert_eq!(bank.found(text, &mut effort), Ok(1 << 6 | 1 << 63));
    assert_eq!(effort.steps(), 4 * (text.len() as u64 + 1));
}

#[test]
fn a_query_ends_at_a_check() {
    // Too large for a table of states: some thousand states are followed in parallel.
    let hard = Draft::new("([ab]{1,480}c){1,8}d", Syntax::Extended);
    let hard = hard.unwrap().unwrap();
    let engine = Engine::alone(hard.translated(), &mut PatternBudget::default()).unwrap();
    assert!(matches!(engine, Engine::Nfa(_)));
    let text = "ab".repeat(30_000);
    let looks = std::cell::Cell::new(0);
    for most in [0, 1, 5] {
        looks.set(0);
        let goes_on = || looks.replace(looks.get() + 1) < most;
        let mut effort = Effort::new(&goes_on);
        assert_eq!(engine.found(1, text.as_bytes(), &mut effort), Err(Spent));
        assert_eq!(looks.get(), most + 1);
        // The states followed for one byte are added to each bound.
        let states = engine::states(&[hard.translated()]).unwrap().states().len() as u64;
        let bound = (most + 1) as u64 * (STEPS_PER_LOOK + states + 1);
        assert!(effort.steps() <= bound, "{} of {bound}", effort.steps());
    }
    let table = basic("x");
    let mut effort = Effort::new(&|| false);
    assert_eq!(table.is_found(&"y".repeat(20_000), &mut effort), Err(Spent));
}

const PIECES: [&str; 59] = [
    "a",
    "b",
    "A",
    "Z",
    "z",
    "_",
    "-",
    "0",
    "@",
    ".",
    "*",
    "+",
    "?",
    "|",
    "(",
    ")",
    "{",
    "}",
    "^",
    "$",
    "\\(",
    "\\)",
    "\\{",
    "\\}",
    "\\|",
    "\\+",
    "\\?",
    "\\.",
    "\\w",
    "\\W",
    "\\s",
    "\\<",
    "\\>",
    "\\b",
    "\\a",
    "\\Z",
    "[ab]",
    "[^a]",
    "[a-z]",
    "[[:alpha:]_]",
    "[[:upper:]]",
    "[^[:space:]]",
    "[]a]",
    "[a-]",
    "[",
    "]",
    "{2}",
    "{1,2}",
    "{,1}",
    "\\{1,\\}",
    "[[.-.]-Z]",
    "[[=a=]z]",
    "\\B",
    "\\`",
    "\\'",
    "[---]",
    "[+--]",
    "[[:digit:]-z]",
    "[\\w]",
];

const LETTERS: [&str; 14] = [
    "a", "b", "A", "z", "Z", "_", "-", "0", "@", ".", " ", "+", "(", "ü",
];

/// A small generator (xorshift), so that a seed gives the same cases everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).unwrap() % bound
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    fn text(&mut self, from: &[&str], most: usize) -> String {
        let count = self.below(most + 1);
        (0..count).map(|_| self.pick(from)).collect()
    }
}

fn ask_c_library(cases: &[(Syntax, String, Vec<String>)]) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("posix");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/pattern/posix.c");
    let built = Command::new("cc")
        .arg("-o")
        .arg(&program)
        .arg(source)
        .status();
    assert!(built.expect("a C compiler").success());
    let mut child = Command::new(&program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut questions = String::new();
    for (syntax, pattern, texts) in cases {
        questions.push(if *syntax == Syntax::Basic { 'b' } else { 'e' });
        for text in std::iter::once(pattern).chain(texts) {
            questions += " x";
            questions.extend(text.bytes().map(|byte| format!("{byte:02x}")));
        }
        questions.push('\n');
    }
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(questions.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    let answers: Vec<_> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect();
    assert_eq!(answers.len(), cases.len());
    answers
}
