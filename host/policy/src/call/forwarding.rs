//! Answers of the interface `forwarding`.

use serde_json::json;

use crate::forwarding::{
    ForwardTarget, Forwarding, MAX_MEMO, MAX_TARGET_BYTES, MAX_TARGETS, Place, Refusal, check_codes,
};
use crate::tape::{Answer, SideEffect};

use super::Call;

impl Call {
    /// `forwarding.add`
    pub(crate) fn add_target(&mut self, target: ForwardTarget) -> Result<(), Refusal> {
        let arguments = || json!([target.as_json()]);
        let none = SideEffect::None;
        self.answered("forwarding.add", none, arguments, |call| {
            call.admit_target(&target)
        })?;
        // A replayed answer may be repeated any number of times.
        let added = self.forwarding().map_or(0, |now| now.targets.len());
        if added >= MAX_TARGETS.into() || !self.has_room(&target) {
            return Err(Refusal::TooMany);
        }
        self.forwarding_mut().targets.push(target);
        Ok(())
    }

    /// `forwarding.share`
    pub(crate) fn share(&mut self, on: bool) {
        let arguments = || json!([on]);
        let none = SideEffect::None;
        self.answered("forwarding.share", none, arguments, |_| ());
        self.forwarding_mut().share = on;
    }

    /// `forwarding.retry-on`
    pub(crate) fn retry_on(&mut self, codes: Vec<u16>) -> Result<(), Refusal> {
        let arguments = || json!([codes]);
        let none = SideEffect::None;
        self.answered("forwarding.retry-on", none, arguments, |_| {
            check_codes(&codes)
        })?;
        self.forwarding_mut().retry_on = Some(codes);
        Ok(())
    }

    /// `forwarding.memo`
    pub(crate) fn set_memo(&mut self, bytes: Vec<u8>) -> Result<(), Refusal> {
        let arguments = || json!([bytes.write()]);
        let none = SideEffect::None;
        self.answered("forwarding.memo", none, arguments, |_| {
            match bytes.len() <= MAX_MEMO {
                true => Ok(()),
                false => Err(Refusal::BadValue),
            }
        })?;
        self.forwarding_mut().memo = bytes;
        Ok(())
    }

    /// What the call has said about where the request goes, if anything.
    pub(crate) fn forwarding(&self) -> Option<&Forwarding> {
        self.forwarding.as_deref()
    }

    /// Takes what the call has said about where the request goes.
    pub(crate) fn take_forwarding(&mut self) -> Option<Box<Forwarding>> {
        self.forwarding.take()
    }

    /// Whether the call has added a target.
    pub(crate) fn has_targets(&self) -> bool {
        self.forwarding()
            .is_some_and(|forwarding| !forwarding.targets.is_empty())
    }

    fn admit_target(&self, target: &ForwardTarget) -> Result<(), Refusal> {
        target.check()?;
        if self.has_named(target) {
            return Err(Refusal::BadValue);
        }
        let before = self.failed().map_or(0, |failed| failed.named);
        let added = self.forwarding().map_or(0, |now| now.targets.len());
        if before + added >= self.scope().targets() || !self.has_room(target) {
            return Err(Refusal::TooMany);
        }
        let mut headers = target.headers.iter();
        if !headers.all(|(name, _)| self.scope().admits_header(name)) {
            return Err(Refusal::NotPermitted);
        }
        self.scope().admit_place(&target.place)
    }

    /// Whether the texts of all targets of the request stay within their limit with this one.
    pub(super) fn has_room(&self, target: &ForwardTarget) -> bool {
        let before = self.failed().map_or(0, |failed| failed.named_bytes);
        let added = self.forwarding().map_or(&[][..], |now| &now.targets);
        let added: usize = added.iter().map(ForwardTarget::text_bytes).sum();
        before + added + target.text_bytes() + MAX_MEMO <= MAX_TARGET_BYTES
    }

    /// Whether the call has added the same place with the same request URI, or the request has been there (RFC 3261 §16.5).
    fn has_named(&self, target: &ForwardTarget) -> bool {
        let is_same = |place: &Place, request_uri: &Option<String>| {
            *place == target.place
                && self.sent_uri(request_uri) == self.sent_uri(&target.request_uri)
        };
        let tried = self.failed().map_or(&[][..], |failed| &failed.tried);
        let added = self.forwarding().map_or(&[][..], |now| &now.targets);
        tried
            .iter()
            .any(|one| is_same(&one.place, &one.request_uri))
            || added
                .iter()
                .any(|one| is_same(&one.place, &one.request_uri))
    }

    /// The request URI of a target.
    fn sent_uri<'c>(&'c self, own: &'c Option<String>) -> &'c [u8] {
        match own {
            Some(uri) => uri.as_bytes(),
            None => self.request().request_uri(),
        }
    }

    pub(super) fn forwarding_mut(&mut self) -> &mut Forwarding {
        let failed = self.failed.as_deref();
        self.forwarding.get_or_insert_with(|| {
            Box::new(Forwarding {
                memo: failed.map(|failed| failed.memo.clone()).unwrap_or_default(),
                ..Forwarding::default()
            })
        })
    }
}
