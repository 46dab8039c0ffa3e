//! Which worker has the transaction of a message, for the kernel: a filter that reads datagrams as far as this needs.
//!
//! A transaction belongs to the worker that its *owner byte* names, the low byte of [`Transaction::number`](crate::Transaction::number). For a
//! request it is a keyed hash of the branch alone, because a request, its retransmissions, its CANCEL and the ACK to a failure share little
//! else, and because a classic BPF program can compute it. Our own branch contains the name of the transaction, so that a response brings
//! the byte back in two hexadecimal digits.

/// An instruction of a classic BPF program (`sock_filter` of linux/filter.h): code, jumps if true and if false, and value.
pub type FilterStep = (u16, u8, u8, u32);

/// The hash that gives a branch its owner byte.
///
/// Its secret keeps strangers from sending everything to one worker. It is no more than that: who sees many branches and their bytes can
/// compute it.
#[derive(Clone)]
pub struct Steering {
    weights: [u32; HASHED],
    mixer: u32,
}

/// Characters after the magic cookie that are hashed: as many as a conditional jump of the filter reaches over. Senders have their random
/// digits there.
const HASHED: usize = 28;

/// The first byte at which the magic cookie is looked for: less is before it in no message.
const FIRST: u32 = 20;

/// Bytes whose presence the filter checks at once.
const BLOCK: u32 = 64;

/// Bytes of a loaded word.
const WORD: u32 = 4;

/// Bytes of the magic cookie.
const COOKIE: u32 = 7;

/// The words that the magic cookie has at each distance from its start. Of every four places that are one byte apart, one begins a word.
const COOKIE_WORDS: [u32; 4] = [word(b"z9hG"), word(b"9hG4"), word(b"hG4b"), word(b"G4bK")];

impl Steering {
    /// Most blocks of 64 bytes that a filter can look through: a program has at most 4,096 instructions.
    pub const MOST_BLOCKS: u32 = 32;

    /// `number` gives secret numbers for the counters from 0 on.
    pub(crate) fn new(number: impl Fn(u8) -> u64) -> Self {
        // An odd factor loses no bit.
        let factor = |counter: usize| number(counter as u8) as u32 | 1;
        Self {
            weights: std::array::from_fn(factor),
            mixer: factor(HASHED),
        }
    }

    /// The owner byte of a branch, whose magic cookie is cut off.
    pub(crate) fn owner(&self, identifier: &[u8]) -> u8 {
        let hashed = identifier.iter().take_while(|byte| !is_end(**byte));
        let sum = hashed
            .zip(&self.weights)
            .fold(0, |sum: u32, (byte, weight)| {
                sum.wrapping_add(u32::from(*byte).wrapping_mul(*weight))
            });
        ((sum ^ sum >> 16).wrapping_mul(self.mixer) >> 24) as u8
    }

    /// A filter for a group of sockets that share a port (`SO_ATTACH_REUSEPORT_CBPF`), one for each of `workers`, in their order. It looks for
    /// the first magic cookie in the first blocks of 64 bytes, at most [`Steering::MOST_BLOCKS`] of them.
    ///
    /// The filter returns a number that no socket has for a datagram that it cannot place: the kernel then chooses a socket by the addresses.
    /// It never loads bytes beyond the end, for which the kernel would choose the first socket.
    pub fn filter(&self, workers: u32, blocks: u32) -> Vec<FilterStep> {
        let workers = workers.max(1);
        let blocks = blocks.min(Self::MOST_BLOCKS);
        let mut program = Program::default();
        let per_block = 3 + BLOCK / WORD * 7;
        let found = blocks * per_block + 1;
        for block in 0..blocks {
            let start = FIRST + block * BLOCK;
            program.require(start + BLOCK, workers);
            for at in (start..start + BLOCK).step_by(WORD as usize) {
                program.look_at(at, found);
            }
        }
        program.step(RETURN, workers);
        program.go_to_cookie(workers);
        self.place(&mut program, workers);
        program.0
    }

    /// X is the position of the cookie.
    fn place(&self, program: &mut Program, workers: u32) {
        program.step(STORE_X, 1);
        program.step(LOAD, 0);
        program.jump(JUMP_EQUAL, word(b"SIP/"), 0, 1);
        program.step(JUMP, 2 + HASHED as u32 * 9 + 8);

        program.step(LOAD_VALUE, 0);
        program.step(STORE, 0);
        for (nth, weight) in self.weights.iter().enumerate() {
            let end = (HASHED - nth) * 9;
            program.step(LOAD_BYTE_FROM_X, COOKIE + nth as u32);
            program.jump(JUMP_NOT_BELOW, b'!'.into(), 0, (end - 2) as u8);
            program.jump(JUMP_EQUAL, b';'.into(), (end - 3) as u8, 0);
            program.jump(JUMP_EQUAL, b','.into(), (end - 4) as u8, 0);
            program.step(MULTIPLY, *weight);
            program.step(RECALL_X, 0);
            program.step(ADD_X, 0);
            program.step(STORE, 0);
            program.step(RECALL_X, 1);
        }
        program.step(RECALL, 0);
        program.step(TO_X, 0);
        program.step(SHIFT_RIGHT, 16);
        program.step(XOR_X, 0);
        program.step(MULTIPLY, self.mixer);
        program.step(SHIFT_RIGHT, 24);
        program.step(MODULO, workers);
        program.step(RETURN_A, 0);

        // A response: the digits 15 and 16 of our branch. A digit is its low four bits, and nine more if it is a letter.
        program.step(LOAD_HALF_FROM_X, COOKIE + 14);
        program.step(STORE, 0);
        program.step(AND, 0x0f0f);
        program.step(TO_X, 0);
        program.step(RECALL, 0);
        program.step(SHIFT_RIGHT, 6);
        program.step(AND, 0x0101);
        program.step(MULTIPLY, 9);
        program.step(ADD_X, 0);
        program.step(STORE, 0);
        program.step(AND, 0x0f);
        program.step(TO_X, 0);
        program.step(RECALL, 0);
        program.step(SHIFT_RIGHT, 4);
        program.step(AND, 0xf0);
        program.step(OR_X, 0);
        program.step(MODULO, workers);
        program.step(RETURN_A, 0);
    }
}

impl std::fmt::Debug for Steering {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Steering(secret)")
    }
}

/// Whether a branch ends before this byte.
fn is_end(byte: u8) -> bool {
    byte < b'!' || byte == b';' || byte == b','
}

const fn word(bytes: &[u8; 4]) -> u32 {
    u32::from_be_bytes(*bytes)
}

/// Instructions of linux/bpf_common.h: their class, size, mode, operation and operand, added.
const LOAD: u16 = 0x20;
const LOAD_LENGTH: u16 = 0x80;
const LOAD_VALUE: u16 = 0x00;
const LOAD_FROM_X: u16 = 0x40;
const LOAD_HALF_FROM_X: u16 = 0x48;
const LOAD_BYTE_FROM_X: u16 = 0x50;
const LOAD_X_VALUE: u16 = 0x01;
const RECALL: u16 = 0x60;
const RECALL_X: u16 = 0x61;
const STORE: u16 = 0x02;
const STORE_X: u16 = 0x03;
const ADD_X: u16 = 0x0c;
const SUBTRACT_X: u16 = 0x1c;
const MULTIPLY: u16 = 0x24;
const OR_X: u16 = 0x4c;
const AND: u16 = 0x54;
const SHIFT_RIGHT: u16 = 0x74;
const NEGATE: u16 = 0x84;
const MODULO: u16 = 0x94;
const XOR_X: u16 = 0xac;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_NOT_BELOW: u16 = 0x35;
const RETURN: u16 = 0x06;
const RETURN_A: u16 = 0x16;
const TO_X: u16 = 0x07;

#[derive(Default)]
struct Program(Vec<FilterStep>);

impl Program {
    fn step(&mut self, code: u16, value: u32) {
        self.0.push((code, 0, 0, value));
    }

    fn jump(&mut self, code: u16, value: u32, on_true: u8, on_false: u8) {
        self.0.push((code, on_true, on_false, value));
    }

    /// Goes on only with a datagram of this length.
    fn require(&mut self, length: u32, workers: u32) {
        self.step(LOAD_LENGTH, 0);
        self.jump(JUMP_NOT_BELOW, length, 1, 0);
        self.step(RETURN, workers);
    }

    /// If the word at a place is of a cookie, goes to the instruction `found` with the word in A and the place in X.
    fn look_at(&mut self, at: u32, found: u32) {
        self.step(LOAD, at);
        for (nth, cookie) in (0..).zip(COOKIE_WORDS) {
            let on_false = if nth == 3 { 2 } else { 0 };
            self.jump(JUMP_EQUAL, cookie, 3 - nth, on_false);
        }
        self.step(LOAD_X_VALUE, at);
        self.step(JUMP, found - self.0.len() as u32 - 1);
    }

    /// With a word of a cookie in A and its place in X: makes X the place of the cookie, if all of it and a branch are there.
    fn go_to_cookie(&mut self, workers: u32) {
        let [at_0, at_1, at_2, _] = COOKIE_WORDS;
        self.jump(JUMP_EQUAL, at_0, 10, 0);
        self.jump(JUMP_EQUAL, at_1, 3, 0);
        self.jump(JUMP_EQUAL, at_2, 4, 0);
        self.step(LOAD_VALUE, 3);
        self.step(JUMP, 3);
        self.step(LOAD_VALUE, 1);
        self.step(JUMP, 1);
        self.step(LOAD_VALUE, 2);
        self.step(NEGATE, 0);
        self.step(ADD_X, 0);
        self.step(TO_X, 0);
        self.step(LOAD_LENGTH, 0);
        self.step(SUBTRACT_X, 0);
        self.jump(JUMP_NOT_BELOW, COOKIE + HASHED as u32, 1, 0);
        self.step(RETURN, workers);
        for (offset, cookie) in [(0, word(b"z9hG")), (3, word(b"G4bK"))] {
            self.step(LOAD_FROM_X, offset);
            self.jump(JUMP_EQUAL, cookie, 1, 0);
            self.step(RETURN, workers);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Key;

    fn steering(secret: u8) -> Steering {
        Key::new(&[secret; 16]).steering().clone()
    }

    #[test]
    fn the_longest_filter_fits_the_limit_of_the_kernel() {
        let program = steering(7).filter(4, u32::MAX);
        assert!(program.len() <= 4_096, "{}", program.len());
    }

    #[test]
    fn an_owner_byte_depends_on_the_branch_up_to_its_end() {
        let owner = |text: &str| steering(7).owner(text.as_bytes());
        for end in [";rport", ",SIP/2.0/UDP b", " ;x", "\r\nTo: <sip:a@b>", ""] {
            assert_eq!(owner(&format!("74bf9{end}")), owner("74bf9"), "{end:?}");
        }
        assert_ne!(owner("74bf9"), owner("74bf8"));
    }

    #[test]
    fn branches_in_a_row_are_spread_evenly() {
        for secret in 0..32 {
            let steering = steering(secret);
            for prefix in ["-4711-", "Pj1f0c6e2a-", ""] {
                let mut shares = [0_u32; 4];
                for number in 0..4_000 {
                    let owner = steering.owner(format!("{prefix}{number}-1-0").as_bytes());
                    shares[usize::from(owner) % 4] += 1;
                }
                let is_even = shares.iter().all(|share| (850..1_150).contains(share));
                assert!(is_even, "{secret} {prefix} {shares:?}");
            }
        }
    }
}
