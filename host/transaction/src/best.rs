//! The best of the failures of several targets (RFC 3261 §16.7(6), §16.7(7)).

use portcullis_sip::{HeaderName, Message};

use crate::buffers::Buffers;

/// The best answer so far.
#[derive(Debug)]
pub(crate) struct Best {
    is_invite: bool,
    chosen: Option<Chosen>,
    /// The best answer of targets of earlier turns: the sender gets it if no later target answers.
    earlier: Option<Chosen>,
    /// The challenges of the other 401 and 407 responses, as header lines.
    challenges: Vec<u8>,
}

/// An answer that a sender may get.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) code: u16,
    /// The response as received; empty for a failure of our own.
    pub(crate) response: Vec<u8>,
}

impl Best {
    pub(crate) fn new(is_invite: bool) -> Self {
        Self {
            is_invite,
            chosen: None,
            earlier: None,
            challenges: Vec::new(),
        }
    }

    /// Takes a failure that no target has sent: a timeout, an error, or a refusal by this host.
    pub(crate) fn offer_local(&mut self, code: u16, buffers: &mut Buffers) {
        if self.is_worse_than(self.rank(code, true)) {
            self.choose(code, &[], buffers);
        }
    }

    /// Takes the failure of a target. Of two with the same rank, the first one is kept.
    pub(crate) fn offer(&mut self, code: u16, response: Message<'_>, buffers: &mut Buffers) {
        if self.is_worse_than(self.rank(code, false)) {
            // 401 and 407 have the same rank: one that is replaced is replaced by a 6xx or 3xx, which has no use for its challenges.
            self.choose(code, response.bytes(), buffers);
        } else if is_challenge(code) {
            add_challenges(response, &mut self.challenges, buffers);
        }
    }

    /// The best one of this turn.
    pub(crate) fn chosen(&self) -> Option<&Chosen> {
        self.chosen.as_ref()
    }

    /// The best one of this turn; that of an earlier turn, if no target of this turn gave an answer that can be sent.
    pub(crate) fn answer(&self) -> Option<&Chosen> {
        let chosen = self.chosen.as_ref();
        let answered = chosen.filter(|chosen| self.is_answer(chosen));
        answered.or(self.earlier.as_ref()).or(chosen)
    }

    /// The header lines to add to the chosen response.
    pub(crate) fn challenges(&self) -> &[u8] {
        match &self.chosen {
            Some(chosen) if is_challenge(chosen.code) => &self.challenges,
            _ => &[],
        }
    }

    /// A new turn begins: the answer so far only counts if the turn brings none.
    pub(crate) fn set_aside(&mut self, buffers: &mut Buffers) {
        buffers.take_back(&mut self.challenges);
        let Some(chosen) = self.chosen.take() else {
            return;
        };
        let forgotten = if self.is_answer(&chosen) {
            self.earlier.replace(chosen)
        } else {
            Some(chosen)
        };
        release(forgotten, buffers);
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self, buffers: &mut Buffers) {
        release(self.chosen.take(), buffers);
        release(self.earlier.take(), buffers);
        buffers.take_back(&mut self.challenges);
    }

    /// Whether it was received and can be sent to the sender of the request.
    fn is_answer(&self, chosen: &Chosen) -> bool {
        let can_be_sent = self.is_invite || chosen.code != 408;
        can_be_sent && !chosen.response.is_empty()
    }

    fn is_worse_than(&self, rank_of_other: u8) -> bool {
        let own = self.chosen.as_ref();
        own.is_none_or(|own| self.rank(own.code, own.response.is_empty()) > rank_of_other)
    }

    fn choose(&mut self, code: u16, response: &[u8], buffers: &mut Buffers) {
        release(self.chosen.take(), buffers);
        let response = match response {
            [] => Vec::new(),
            response => buffers.copy(response),
        };
        self.chosen = Some(Chosen { code, response });
    }

    /// The smaller, the better. 6xx first, else the lowest class; within 4xx those that say how to repeat the request; 503 last. A failure of
    /// our own is worse than any answer of a target. For requests other than INVITE, 408 is worse than all of these, because it is never sent
    /// (RFC 4320 §4.2).
    fn rank(&self, code: u16, is_local: bool) -> u8 {
        let rank = match code {
            408 if !self.is_invite => return 20,
            600.. => 0,
            ..400 => 1,
            401 | 407 | 415 | 420 | 484 => 2,
            400..500 => 3,
            503 => 5,
            500..600 => 4,
        };
        rank + if is_local { 10 } else { 0 }
    }
}

fn release(chosen: Option<Chosen>, buffers: &mut Buffers) {
    if let Some(mut chosen) = chosen {
        buffers.take_back(&mut chosen.response);
    }
}

fn is_challenge(code: u16) -> bool {
    matches!(code, 401 | 407)
}

fn add_challenges(response: Message<'_>, lines: &mut Vec<u8>, buffers: &mut Buffers) {
    let challenges = response.fields().filter(|field| {
        matches!(
            field.name,
            HeaderName::WwwAuthenticate | HeaderName::ProxyAuthenticate
        )
    });
    for field in challenges {
        // A bound on what targets can make us store.
        if lines.len() + field.line.len() > MOST_CHALLENGES {
            return;
        }
        let line = response.bytes().get(field.line);
        buffers.append(lines, line.unwrap_or_default());
    }
}

/// Bytes of the challenges of all other targets.
const MOST_CHALLENGES: usize = 8_192;

#[cfg(test)]
mod tests {
    use portcullis_sip::{Framing, Index, Limits, scan};

    use super::*;

    fn offer(best: &mut Best, code: u16, lines: &str, buffers: &mut Buffers) {
        let text = format!(
            "SIP/2.0 {code} X\r\nVia: SIP/2.0/UDP a\r\nFrom: <sip:a@b>\r\nTo: <sip:a@b>\r\nCall-ID: 1\r\nCSeq: 1 INVITE\r\n{lines}\r\n"
        );
        let mut index = Index::default();
        scan(
            text.as_bytes(),
            Framing::Datagram,
            &Limits::default(),
            &mut index,
        )
        .unwrap();
        let message = Message::new(text.as_bytes(), &index);
        best.offer(code, message, buffers);
    }

    /// The best of these codes; a negative one is a failure of our own.
    fn best_of(codes: &[i16]) -> u16 {
        let mut best = Best::new(true);
        let mut buffers = Buffers::default();
        for &code in codes {
            let number = code.unsigned_abs();
            match code {
                ..0 => best.offer_local(number, &mut buffers),
                0.. => offer(&mut best, number, "", &mut buffers),
            }
        }
        best.chosen().unwrap().code
    }

    #[test]
    fn the_best_answer_is_chosen_in_any_order() {
        for (codes, expected) in [
            (&[486, 603, 302][..], 603),
            (&[500, 486, 404, 302], 302),
            (&[500, 404, 486], 404),
            (&[404, 486], 404),
            (&[404, 484], 484),
            (&[486, 407], 407),
            (&[503, 500], 500),
            (&[-408, 503], 503),
            (&[-408, 486], 486),
            (&[-503, -408], 408),
        ] {
            assert_eq!(best_of(codes), expected, "{codes:?}");
            // Equal ranks keep their order, so only a distinct best one survives the reversal.
            let reversed: Vec<_> = codes.iter().rev().copied().collect();
            if !matches!(codes, [404, 486] | [500, 404, 486]) {
                assert_eq!(best_of(&reversed), expected, "{reversed:?}");
            }
        }
    }

    #[test]
    fn challenges_of_the_others_are_merged_into_a_challenge() {
        let mut best = Best::new(true);
        let mut buffers = Buffers::default();
        let mut offer = |best: &mut Best, code, lines| offer(best, code, lines, &mut buffers);
        offer(&mut best, 486, "");
        offer(&mut best, 401, "WWW-Authenticate: Digest realm=\"a\"\r\n");
        offer(&mut best, 407, "Proxy-Authenticate: Digest realm=\"b\"\r\n");
        assert_eq!(best.chosen().unwrap().code, 401);
        assert_eq!(
            best.challenges(),
            b"Proxy-Authenticate: Digest realm=\"b\"\r\n"
        );
        offer(&mut best, 600, "");
        assert_eq!(best.challenges(), b"");
    }
}
