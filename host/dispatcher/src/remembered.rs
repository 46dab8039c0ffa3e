//! The state of a destination on its way to another process, as one line.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::member::{Identity, Member};
use crate::state::State;

/// The state of a destination, and what it is the state of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    set: u32,
    uri: Box<str>,
    /// The socket in the attributes; empty if there is none.
    socket: Box<str>,
    /// The flags of the row.
    flags: u32,
    state: State,
    /// The last sign.
    last: u64,
}

/// Not the state of a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("not the state of a destination")]
pub struct NotRemembered;

impl Remembered {
    pub(crate) fn of(member: &Member) -> Self {
        let (set, uri, socket) = member.identity();
        Self {
            set,
            uri,
            socket,
            flags: member.runtime.flags(),
            state: member.runtime.state(),
            last: member.runtime.last_bits(),
        }
    }

    /// What it is the state of.
    pub(crate) fn identity(&self) -> Identity {
        (self.set, self.uri.clone(), self.socket.clone())
    }

    /// Gives the same destination this state, if the flags of its row are those.
    pub(crate) fn restore(&self, member: &Member) {
        if self.flags == member.runtime.flags() {
            member.runtime.restore(self.state, self.last);
        }
    }
}

/// `SET FLAGS STATE LAST SOCKET URI`, with `-` for no socket.
impl fmt::Display for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            set,
            uri,
            socket,
            flags,
            state,
            last,
        } = self;
        let state = state.to_bits();
        let socket = if socket.is_empty() { "-" } else { socket };
        write!(f, "{set} {flags} {state} {last} {socket} {uri}")
    }
}

impl FromStr for Remembered {
    type Err = NotRemembered;

    fn from_str(line: &str) -> Result<Self, NotRemembered> {
        fn number<T: FromStr>(word: Option<&str>) -> Result<T, NotRemembered> {
            word.and_then(|word| word.parse().ok()).ok_or(NotRemembered)
        }
        let mut words = line.splitn(6, ' ');
        Ok(Self {
            set: number(words.next())?,
            flags: number(words.next())?,
            state: State::of_bits(number(words.next())?),
            last: number(words.next())?,
            socket: match words.next().ok_or(NotRemembered)? {
                "-" => "".into(),
                socket => socket.into(),
            },
            uri: words.next().ok_or(NotRemembered)?.into(),
        })
    }
}
