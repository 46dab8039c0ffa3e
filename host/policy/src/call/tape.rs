//! Records answers on the tape of the call, or replays them from it.

use serde_json::{Value, json};

use crate::tape::{Answer, Asked, SideEffect, Tape};

use super::Call;

impl Call {
    /// Answers a query by `live`. A tape records the answer, or replays a recorded one instead.
    #[inline]
    pub(crate) fn answered<T: Answer>(
        &mut self,
        function: &'static str,
        side_effect: SideEffect,
        arguments: impl FnOnce() -> Value,
        live: impl FnOnce(&mut Self) -> T,
    ) -> T {
        match self.tape().is_some_and(Tape::is_listening) {
            false => live(self),
            true => self.answered_by_tape(function, side_effect, arguments(), live),
        }
    }

    #[cold]
    fn answered_by_tape<T: Answer>(
        &mut self,
        function: &'static str,
        side_effect: SideEffect,
        arguments: Value,
        live: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let recorded = self.with_tape(|tape| match tape.is_live {
            true => None,
            false => tape.take(function, &arguments),
        });
        let read = recorded
            .as_ref()
            .and_then(|asked| T::read(&asked.answer).map(|answer| (answer, asked.left.clone())));
        if let Some((answer, left)) = read {
            if let Some(left) = &left
                && answer.is_positive()
            {
                self.restore(side_effect, left);
            }
            self.with_tape(|tape| {
                if let Some(asked) = recorded {
                    tape.note(asked, false);
                }
            });
            return answer;
        }
        let answer = live(self);
        // The deadline has passed while the query ran. The call ends, so the answer is not recorded.
        if !self.end.is_ahead() {
            return answer;
        }
        let left = match side_effect {
            _ if !answer.is_positive() => None,
            SideEffect::None => None,
            SideEffect::Tag => Some(json!(self.last_tag())),
            SideEffect::Tags => Some(json!(self.trusted_tags())),
        };
        let asked = Asked {
            function: function.into(),
            arguments,
            answer: answer.write(),
            left,
        };
        self.with_tape(|tape| {
            if !tape.is_live {
                tape.note(asked.clone(), true);
            }
            tape.note(asked, false);
        });
        answer
    }
}
