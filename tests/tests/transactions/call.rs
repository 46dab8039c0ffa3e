//! The steps of a call. Each waits until what it describes has happened.

use std::borrow::Borrow;

use portcullis_testkit::messages::Request;
use portcullis_testkit::peer::{Peer, Seen, branch_of};

use crate::site::{Site, Summary};

/// A call of a scenario, at its caller. A step that involves a callee names it.
pub(crate) struct Call {
    site: Site,
    /// The caller.
    pub(crate) caller: Peer,
    /// What the caller has sent.
    pub(crate) invite: Request,
}

impl Call {
    /// A caller sends an INVITE to a new callee, which is returned, too.
    pub(crate) fn start(site: impl Borrow<Site>) -> (Self, Peer) {
        let site = site.borrow();
        let callee = site.callee();
        (Self::to(site, &callee.uri()), callee)
    }

    /// A caller sends an INVITE to this URI.
    pub(crate) fn to(site: &Site, uri: &str) -> Self {
        let caller = site.caller();
        let invite = caller.request("INVITE", uri);
        Self::of(site, caller, invite)
    }

    /// A caller sends this INVITE.
    pub(crate) fn of(site: &Site, caller: Peer, invite: Request) -> Self {
        site.send(&caller, &invite);
        Self {
            site: *site,
            caller,
            invite,
        }
    }

    /// The caller sends its INVITE once more.
    pub(crate) fn repeat(&self) {
        self.site.send(&self.caller, &self.invite);
    }

    /// The caller hears a 100.
    pub(crate) fn is_tried(&self) {
        self.caller.first_response("INVITE", 100);
    }

    /// The INVITE comes to the callee.
    pub(crate) fn arrives_at(&self, callee: &Peer) -> Seen {
        callee.first_request("INVITE")
    }

    /// The INVITE comes to the callee, which rings; the caller hears it. Returns the INVITE.
    pub(crate) fn rings_at(&self, callee: &Peer) -> Seen {
        let before = self.caller.times_of_responses("INVITE", 180).len();
        let seen = self.arrives_at(callee);
        callee.answer(&seen, 180);
        self.caller.nth_response(before, "INVITE", 180);
        seen
    }

    /// The callee answers 200, the first one that the caller hears. Returns it.
    pub(crate) fn is_answered_by(&self, callee: &Peer, seen: &Seen) -> Seen {
        callee.answer(seen, 200);
        self.caller.first_response("INVITE", 200)
    }

    /// The callee refuses, and gets an ACK.
    pub(crate) fn is_refused_by(&self, callee: &Peer, seen: &Seen, code: u16) {
        let before = callee.times_of("ACK").len();
        callee.answer(seen, code);
        callee.nth_request(before, "ACK");
    }

    /// The caller acknowledges a 200; the ACK comes to the callee.
    pub(crate) fn is_confirmed_to(&self, callee: &Peer, ok: &Seen) -> Seen {
        let before = callee.times_of("ACK").len();
        self.site.ack(&self.caller, &self.invite, ok);
        callee.nth_request(before, "ACK")
    }

    /// The caller hangs up. Whatever the proxy has sent to the callee before has then arrived.
    pub(crate) fn hangs_up(&self, callee: &Peer, ok: &Seen) {
        self.site.hang_up(&self.caller, callee, &self.invite, ok);
    }

    /// The caller acknowledges a 200 and hangs up.
    pub(crate) fn is_completed_with(&self, callee: &Peer, ok: &Seen) {
        self.is_confirmed_to(callee, ok);
        self.hangs_up(callee, ok);
    }

    /// The caller sends one more CANCEL, and hears a 200 to it.
    pub(crate) fn cancels(&self) {
        let before = self.caller.times_of_responses("CANCEL", 200).len();
        self.site.send(&self.caller, &self.invite.cancel());
        self.caller.nth_response(before, "CANCEL", 200);
    }

    /// A CANCEL comes to the callee, which answers 200 to it and then refuses the INVITE. Returns the CANCEL.
    pub(crate) fn is_cancelled_at(&self, callee: &Peer, seen: &Seen, code: u16) -> Seen {
        let cancel = callee.first_request("CANCEL");
        callee.answer(&cancel, 200);
        self.is_refused_by(callee, seen, code);
        cancel
    }

    /// The caller cancels while the callee rings. CANCEL and ACK come to the callee with the branch of its INVITE, whichever process relays them.
    /// Returns the ACK.
    pub(crate) fn is_cancelled_on_the_branch_of(&self, callee: &Peer, seen: &Seen) -> Seen {
        self.site.send(&self.caller, &self.invite.cancel());
        let cancel = callee.first_request("CANCEL");
        assert_eq!(branch_of(&cancel.message), branch_of(&seen.message));
        callee.answer(&cancel, 200);
        self.caller.first_response("CANCEL", 200);
        callee.answer(seen, 487);
        self.fails_with(487);
        let ack = callee.first_request("ACK");
        assert_eq!(branch_of(&ack.message), branch_of(&seen.message));
        ack
    }

    /// The caller sends its INVITE once more. The copy comes to the callee with the branch of the first one. Returns the copy.
    pub(crate) fn is_copied_to(&self, callee: &Peer, seen: &Seen) -> Seen {
        let before = callee.times_of("INVITE").len();
        self.repeat();
        let copy = callee.nth_request(before, "INVITE");
        assert_eq!(branch_of(&copy.message), branch_of(&seen.message));
        copy
    }

    /// The caller hears this failure and acknowledges it. Returns the failure.
    pub(crate) fn fails_with(&self, code: u16) -> Seen {
        let failure = self.caller.first_response("INVITE", code);
        self.site.ack_failure(&self.caller, &self.invite, &failure);
        failure
    }

    /// What the caller and the callee have seen, after whatever the proxy has sent to the callee has arrived there.
    pub(crate) fn settled_summary(&self, callee: &Peer) -> Summary {
        self.site.settle(&self.caller, callee);
        self.summary(callee)
    }

    /// What the caller and the callee have seen.
    pub(crate) fn summary(&self, callee: &Peer) -> Summary {
        Summary::of(&self.caller, callee, &self.invite)
    }
}
