//! The complete list of deliberate differences between Portcullis and Kamailio. For each of them, the oracle gives Kamailio a case without the
//! difference. All other answers must be equal.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use super::case::{Answer, Case, Found, Question, Row};
use super::text::Text;

/// A deliberate difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Its name in documentation and tests.
    pub name: &'static str,
    /// The behaviour of Kamailio 5.6.3.
    pub kamailio: &'static str,
    /// The behaviour of Portcullis.
    pub portcullis: &'static str,
    /// The reason for the difference.
    pub reason: &'static str,
}

/// A row of group 0.
pub const GROUP_ZERO: Exception = Exception {
    name: "group-zero",
    kamailio: "refuses the whole table because of one row with grp 0",
    portcullis: "skips the row and names it",
    reason: "one bad row must not keep all others from being loaded",
};

/// A row or question with a group that does not fit 31 bits.
pub const GROUP_ABOVE_31_BITS: Exception = Exception {
    name: "group-above-31-bits",
    kamailio: "reads grp 2147483648 and above, which the column can hold, as negative and refuses the whole table",
    portcullis: "takes every group from 1 to 4294967295",
    reason: "the column is unsigned",
};

/// A row with a mask that its address cannot have.
pub const MASK_OUT_OF_RANGE: Exception = Exception {
    name: "mask-out-of-range",
    kamailio: "refuses the whole table because of one row with a negative mask or one above 32 (IPv6: 128)",
    portcullis: "skips the row and names it",
    reason: "one bad row must not keep all others from being loaded",
};

/// Digits and dots that are no IPv4 address, in a row or a question.
pub const IPV4_TEXT: Exception = Exception {
    name: "ipv4-text",
    kamailio: "reads octets modulo 256 and absent ones as 0 (300.1.1.1 is 44.1.1.1, 1..2.3 is 1.0.2.3), and what has fewer or more \
               than three dots as a name",
    portcullis: "skips such a row and names it; in a question it is no address and matches nothing",
    reason: "a typing error must not allow somebody else's address",
};

/// Text with a colon or bracket that is no IPv6 address, in a row or a question.
pub const IPV6_TEXT: Exception = Exception {
    name: "ipv6-text",
    kamailio: "drops the upper digits of groups that are too long (12345::1 is 2345::1), accepts other malformed spellings, and \
               takes the rest (with port, zone, a lone bracket) for a name",
    portcullis: "skips such a row and names it; in a question it is no address and matches nothing",
    reason: "a typing error must not allow somebody else's address",
};

/// A row whose `ip_addr` can be neither address nor host name.
pub const NEITHER_ADDRESS_NOR_NAME: Exception = Exception {
    name: "neither-address-nor-name",
    kamailio: "takes an empty ip_addr, one with blanks, a network in CIDR form or a pattern for a name that only the same text matches",
    portcullis: "skips the row and names it, with what was probably meant",
    reason: "no source address ever matches such a row, which nobody notices",
};

/// IPv6 spellings of RFC 4291 that Kamailio does not know, in a row or a question.
pub const IPV6_SPELLING: Exception = Exception {
    name: "ipv6-spelling",
    kamailio: "takes IPv6 that ends in a dotted quad (64:ff9b::192.0.2.1), or in which :: stands for a single group at an end, for a name",
    portcullis: "reads the address",
    reason: "it is one (RFC 4291 §2.2)",
};

/// IPv4-mapped IPv6 addresses, in a row or a question.
pub const IPV4_MAPPED: Exception = Exception {
    name: "ipv4-mapped",
    kamailio: "never lets ::ffff:192.0.2.1 equal 192.0.2.1",
    portcullis: "reads it as the IPv4 address, the mask of a row less 96; skips a row whose mask is 1 to 96",
    reason: "they are one host; which form a source has depends on the socket that it reached",
};

/// More networks than Kamailio's default limit. The oracle raises that limit.
pub const SUBNET_LIMIT: Exception = Exception {
    name: "subnet-limit",
    kamailio: "drops all networks from the 513th on (parameter max_subnets) and answers \"Reload OK\"",
    portcullis: "has no limit",
    reason: "a reload must not lose rows",
};

/// Tags of several matches. The oracle empties the variable before each question.
pub const TAGS_STACK: Exception = Exception {
    name: "tags-stack",
    kamailio: "adds the tag of each match to the variable of peer_tag_avp; the tag of an earlier match shows behind one without a tag",
    portcullis: "tells the tag of the last match only, none if that row has none",
    reason: "a policy that asks twice must not take the first answer for the second",
};

/// The tag of a name that was found without a group.
pub const NAME_GROUP_TAG: Exception = Exception {
    name: "name-group-tag",
    kamailio: "sets no tag when allow_address_group finds a name, though it does when it finds an address",
    portcullis: "tells the tag of the row that matched",
    reason: "all questions that match tell the tag",
};

/// A dump of several names, or of trusted peers, in JSON.
pub const NAMES_IN_JSON: Exception = Exception {
    name: "names-in-json",
    kamailio: "repeats the keys of one object for each row of domainDump and trustedDump, of which most readers, kamcli among them, \
               keep the last",
    portcullis: "gives a list of objects in the same order; over BINRPC it repeats the keys as Kamailio does",
    reason: "a dump that shows one row of many is of no use, and the keys of a JSON object are unique (RFC 8259 §4)",
};

/// The cause of a fault in JSON.
pub const FAULT_DATA: Exception = Exception {
    name: "fault-data",
    kamailio: "says why a reload failed in its own log only",
    portcullis: "says it in the member \"data\" of the error as well, beside Kamailio's code and message",
    reason: "JSON-RPC 2.0 has a place for it (§5.1)",
};

/// A URI in `permissions.testUri` that is longer than Kamailio's buffer.
pub const LONG_TEST_URI: Exception = Exception {
    name: "long-test-uri",
    kamailio: "copies a URI of more than 1024 bytes beyond the end of its buffer, and its process may die",
    portcullis: "answers with fault 500 \"URI is too long\", as both do for a Contact",
    reason: "a command must not end the server",
};

/// A row of trusted peers with an invalid transport or pattern.
pub const TRUSTED_ROWS: Exception = Exception {
    name: "trusted-rows",
    kamailio: "refuses the whole table because of one unknown proto; uses a from_pattern that is no regular expression all the same, \
               with undefined results",
    portcullis: "skips the row and names it",
    reason: "one bad row must not keep all others from being loaded, and a pattern that means nothing must not let anybody in",
};

/// The source of a trusted peer, in a row or a question, that is not spelled as Kamailio prints addresses.
pub const TRUSTED_SOURCE: Exception = Exception {
    name: "trusted-source",
    kamailio: "compares src_ip as text: 2001:DB8::1, [2001:db8::1] and 010.0.0.1 never equal a source",
    portcullis: "compares addresses",
    reason: "they are one host; a row that never matches is of no use",
};

/// A pattern with a back-reference, in a row of trusted peers or a line of a file.
pub const BACK_REFERENCES: Exception = Exception {
    name: "back-references",
    kamailio: "evaluates them",
    portcullis: "skips the row or line and names it",
    reason: "matching takes time in proportion to the text, whatever the pattern: no caller can make it slow",
};

/// Trusted peers without Kamailio's cache.
pub const TRUSTED_WITHOUT_CACHE: Exception = Exception {
    name: "trusted-without-cache",
    kamailio: "with db_mode=0, the default, tries the row with the lowest priority first, compares src_ip as the database does, in any \
               case and with blanks behind, and finds rows with proto none for a question with any",
    portcullis: "does what Kamailio does with db_mode=1: highest first, letter by letter, rows with none rest",
    reason: "the table is always in memory, which is db_mode=1",
};

/// A line of an allow or deny file that ends with CR LF.
pub const CARRIAGE_RETURN: Exception = Exception {
    name: "carriage-return",
    kamailio: "takes the carriage return and the quote before it for a part of the last pattern behind EXCEPT, which never matches then",
    portcullis: "takes it for a part of the end of the line",
    reason: "an editor that writes lines so must not change what they mean without a word",
};

/// A line of an allow or deny file with more than 499 bytes.
pub const LONG_LINE: Exception = Exception {
    name: "long-line",
    kamailio: "takes what is behind 499 bytes for another line, even the rest of a comment",
    portcullis: "reads the line whole",
    reason: "nobody writes half a rule on purpose",
};

/// A rule that is not UTF-8.
pub const FILES_IN_UTF_8: Exception = Exception {
    name: "files-in-utf-8",
    kamailio: "compares patterns byte by byte, whatever they are written in",
    portcullis: "leaves out a rule that is no UTF-8 and names it; a comment may be what it likes",
    reason: "SIP is UTF-8 (RFC 3261 §7), so that such a pattern would never match what it was written for",
};

/// Branches of a request.
pub const ONE_BRANCH: Exception = Exception {
    name: "one-branch",
    kamailio: "asks the files about each branch in allow_routing, too, unless check_all_branches=0",
    portcullis: "asks about the request URI only",
    reason: "a policy decides before there are branches",
};

/// Files that change.
pub const FILES_RELOAD: Exception = Exception {
    name: "files-reload",
    kamailio: "reads allow and deny files at its start only",
    portcullis: "reads them again when they change",
    reason: "a new rule must not cost a restart",
};

/// A Contact that is a telephone number.
pub const TELEPHONE_CONTACT: Exception = Exception {
    name: "telephone-contact",
    kamailio: "compares tel:+4930123 in a Contact as sip:+4930123@",
    portcullis: "cannot read it, and denies it wherever there are rules, as both do with other schemes",
    reason: "a number is no place to send a request to, so there is nothing to register",
};

/// A Contact whose URI is barely valid or barely invalid.
pub const URI_SPELLING: Exception = Exception {
    name: "uri-spelling",
    kamailio: "reads a Contact with a colon and no port, or port 0, behind it, and cannot read one whose host has an underscore",
    portcullis: "cannot read the first and reads the second; what cannot be read is denied wherever there are rules",
    reason: "a colon has a port behind it (RFC 3261 §25.1), and underscores are in use",
};

/// A Contact `*` after other values.
pub const STAR_BEHIND_CONTACTS: Exception = Exception {
    name: "star-behind-contacts",
    kamailio: "ends at a Contact * behind others, and does not look at what comes then",
    portcullis: "denies such a request wherever there are rules",
    reason: "a star stands alone (RFC 3261 §10.2.2), and nothing must hide behind it",
};

/// A retransmission that comes more than five seconds after the final response.
pub const LINGERING: Exception = Exception {
    name: "lingering",
    kamailio: "forgets a transaction 5 s after its final response (wt_timer): a BYE that is retransmitted later goes to the callee again",
    portcullis: "answers retransmissions for 32 s",
    reason: "a sender retransmits for 64·T1 (timer J, RFC 3261 §17.2.2; timer L, RFC 6026 §7.1)",
};

/// A request other than INVITE that nobody answers.
pub const NON_INVITE_TIMEOUT: Exception = Exception {
    name: "non-invite-timeout",
    kamailio: "answers 408 when fr_timer fires",
    portcullis: "answers nothing",
    reason: "the sender has given up by then, and would take a late 408 for that of another request (RFC 4320 §4.2)",
};

/// A request other than INVITE whose answer takes long.
pub const NON_INVITE_TRYING: Exception = Exception {
    name: "non-invite-trying",
    kamailio: "sends no 100 by itself",
    portcullis: "sends 100 over UDP after 3.5 s",
    reason: "the sender then retransmits every 4 s (RFC 4320 §4.1)",
};

/// An INVITE to a silent target.
pub const INVITE_INTERVALS: Exception = Exception {
    name: "invite-intervals",
    kamailio: "retransmits every 4 s after the first ones (retr_timer2), and gives up after 30 s (fr_timer)",
    portcullis: "doubles the interval each time, and gives up after 32 s",
    reason: "timers A and B (RFC 3261 §17.1.1.2)",
};

/// A forked request with Max-Breadth.
pub const MAX_BREADTH: Exception = Exception {
    name: "max-breadth",
    kamailio: "passes Max-Breadth on, and tries all targets at once",
    portcullis: "tries as many targets at once as Max-Breadth allows, and answers 440 if it is 0",
    reason: "several proxies that fork could send any number of requests otherwise (RFC 5393 §5.3)",
};

/// A target over TCP that refuses connections.
pub const TCP_REFUSED: Exception = Exception {
    name: "tcp-refused",
    kamailio: "answers 477; the failure route is not executed unless the script checks what t_relay() returns",
    portcullis: "turns to the next target at once",
    reason: "a transport error is a failure of the target (RFC 3261 §16.9)",
};

/// All exceptions.
pub const EXCEPTIONS: [Exception; 32] = [
    GROUP_ZERO,
    GROUP_ABOVE_31_BITS,
    MASK_OUT_OF_RANGE,
    IPV4_TEXT,
    IPV6_TEXT,
    NEITHER_ADDRESS_NOR_NAME,
    IPV6_SPELLING,
    IPV4_MAPPED,
    SUBNET_LIMIT,
    TAGS_STACK,
    NAME_GROUP_TAG,
    NAMES_IN_JSON,
    FAULT_DATA,
    LONG_TEST_URI,
    TRUSTED_ROWS,
    TRUSTED_SOURCE,
    BACK_REFERENCES,
    TRUSTED_WITHOUT_CACHE,
    CARRIAGE_RETURN,
    LONG_LINE,
    FILES_IN_UTF_8,
    ONE_BRANCH,
    FILES_RELOAD,
    TELEPHONE_CONTACT,
    STAR_BEHIND_CONTACTS,
    URI_SPELLING,
    LINGERING,
    NON_INVITE_TIMEOUT,
    NON_INVITE_TRYING,
    INVITE_INTERVALS,
    MAX_BREADTH,
    TCP_REFUSED,
];

/// The exceptions that Kamailio's configuration applies to all cases.
pub const OF_THE_CONFIGURATION: [Exception; 2] = [SUBNET_LIMIT, TAGS_STACK];

/// The exceptions for trusted peers, and for allow and deny files.
pub const OF_TRUSTED_AND_FILES: [Exception; 12] = [
    TRUSTED_ROWS,
    TRUSTED_SOURCE,
    BACK_REFERENCES,
    TRUSTED_WITHOUT_CACHE,
    CARRIAGE_RETURN,
    LONG_LINE,
    FILES_IN_UTF_8,
    ONE_BRANCH,
    FILES_RELOAD,
    TELEPHONE_CONTACT,
    STAR_BEHIND_CONTACTS,
    URI_SPELLING,
];

/// The exceptions for transactions.
pub const OF_TRANSACTIONS: [Exception; 6] = [
    LINGERING,
    NON_INVITE_TIMEOUT,
    NON_INVITE_TRYING,
    INVITE_INTERVALS,
    MAX_BREADTH,
    TCP_REFUSED,
];

/// The exceptions in the output of clients, which do not affect decisions.
pub const OF_CLIENTS: [Exception; 3] = [NAMES_IN_JSON, FAULT_DATA, LONG_TEST_URI];

/// A case with the exceptions applied: Kamailio's answers to it are the expected ones.
#[derive(Clone, Debug)]
pub struct View {
    /// The table without rows that Kamailio cannot load or interprets differently.
    pub rows: Vec<Row>,
    /// Number of rows that Portcullis skips.
    pub skipped: usize,
    /// The questions, one for each of the case.
    pub questions: Vec<Question>,
    /// The exceptions that apply to the case.
    pub met: BTreeSet<&'static str>,
    /// Questions that must have no match, whatever Kamailio answers.
    unanswerable: Vec<bool>,
    /// Groups that do not fit 31 bits, in ascending order.
    large: Vec<u32>,
}

impl View {
    /// Applies the exceptions to a case.
    pub fn of(case: &Case) -> Self {
        let mut view = Self {
            rows: Vec::new(),
            skipped: 0,
            questions: Vec::new(),
            met: BTreeSet::new(),
            unanswerable: Vec::new(),
            large: large_groups(case),
        };
        for row in &case.rows {
            match view.row(row) {
                Some(row) => view.rows.push(row),
                None => view.skipped += 1,
            }
        }
        for ask in &case.asks {
            let (question, is_unanswerable) = view.question(&ask.question);
            view.questions.push(question);
            view.unanswerable.push(is_unanswerable);
        }
        view
    }

    /// The answer that Portcullis must give to question `at` if Kamailio gives this one.
    pub fn expected(&self, at: usize, kamailio: Answer) -> Answer {
        if self.unanswerable[at] {
            return None;
        }
        let mut found = kamailio?;
        if matches!(
            self.questions[at],
            Question::SourceGroup | Question::AddressGroup { .. }
        ) {
            found.value = self.raised(found.value);
        }
        Some(found)
    }

    /// Whether Portcullis' answer to question `at` is the expected one.
    pub fn accepts(&mut self, at: usize, expected: &Answer, ours: &Answer) -> bool {
        let (Some(expected), Some(ours)) = (expected, ours) else {
            return expected == ours;
        };
        if let Question::AddressGroup { text, .. } = &self.questions[at]
            && Text::of(text) == Text::Name
        {
            // The tag is compared where the same name is asked for with its group.
            let Found { value, tag } = expected;
            self.met.insert(NAME_GROUP_TAG.name);
            return tag.is_none() && *value == ours.value;
        }
        expected == ours
    }

    fn row(&mut self, row: &Row) -> Option<Row> {
        if row.group == 0 {
            return self.skip(GROUP_ZERO);
        }
        let group = self.lowered(row.group);
        let with = |ip_addr: String, mask| Row {
            group,
            ip_addr,
            mask,
            ..row.clone()
        };
        match Text::of(&row.ip_addr) {
            Text::V4(_) if !(0..=32).contains(&row.mask) => self.skip(MASK_OUT_OF_RANGE),
            Text::V6 { addr, .. } if addr.to_ipv4_mapped().is_some() => {
                let addr = addr.to_ipv4_mapped()?;
                match row.mask {
                    0 => self.rewritten(IPV4_MAPPED, with(addr.to_string(), 32)),
                    97..=128 => self.rewritten(IPV4_MAPPED, with(addr.to_string(), row.mask - 96)),
                    _ => self.skip(IPV4_MAPPED),
                }
            }
            Text::V6 { .. } if !(0..=128).contains(&row.mask) => self.skip(MASK_OUT_OF_RANGE),
            Text::V6 { addr, odd: true } => {
                self.rewritten(IPV6_SPELLING, with(spelled_out(addr), row.mask))
            }
            Text::Misread4 => self.skip(IPV4_TEXT),
            Text::Misread6 => self.skip(IPV6_TEXT),
            Text::Neither => self.skip(NEITHER_ADDRESS_NOR_NAME),
            Text::V4(_) | Text::V6 { .. } | Text::Name => Some(with(row.ip_addr.clone(), row.mask)),
        }
    }

    /// The question for Kamailio, and whether it must have no match.
    fn question(&mut self, question: &Question) -> (Question, bool) {
        let mut question = question.clone();
        let (group, text) = match &mut question {
            Question::Source { group } => (Some(group), None),
            Question::SourceGroup => (None, None),
            Question::Address { group, text, .. } => (Some(group), Some(text)),
            Question::AddressGroup { text, .. } => (None, Some(text)),
        };
        if let Some(group) = group {
            *group = self.lowered(*group);
        }
        let Some(text) = text else {
            return (question, false);
        };
        let (exception, plain) = match Text::of(text) {
            Text::Misread4 => (IPV4_TEXT, None),
            Text::Misread6 => (IPV6_TEXT, None),
            Text::V6 { addr, odd } => match (addr.to_ipv4_mapped(), odd) {
                (Some(v4), _) => (IPV4_MAPPED, Some(v4.to_string())),
                (None, true) => (IPV6_SPELLING, Some(spelled_out(addr))),
                (None, false) => return (question, false),
            },
            Text::V4(_) | Text::Name | Text::Neither => return (question, false),
        };
        self.met.insert(exception.name);
        let is_unanswerable = plain.is_none();
        if let Some(plain) = plain {
            *text = plain;
        }
        (question, is_unanswerable)
    }

    fn skip(&mut self, exception: Exception) -> Option<Row> {
        self.met.insert(exception.name);
        None
    }

    fn rewritten(&mut self, exception: Exception, row: Row) -> Option<Row> {
        self.met.insert(exception.name);
        Some(row)
    }

    /// A group that fits Kamailio's type, in place of one that does not. The order of the groups is preserved.
    fn lowered(&mut self, group: u32) -> u32 {
        let Some(rank) = self.large.iter().position(|large| *large == group) else {
            return group;
        };
        self.met.insert(GROUP_ABOVE_31_BITS.name);
        LOWERED + rank as u32
    }

    fn raised(&self, group: u32) -> u32 {
        let rank = group.checked_sub(LOWERED).map(|rank| rank as usize);
        rank.and_then(|rank| self.large.get(rank).copied())
            .unwrap_or(group)
    }
}

/// The first group that replaces one above 31 bits. Cases contain no groups in this range.
pub const LOWERED: u32 = 2_000_000_000;

fn large_groups(case: &Case) -> Vec<u32> {
    let of_rows = case.rows.iter().map(|row| row.group);
    let of_questions = case.asks.iter().filter_map(|ask| match ask.question {
        Question::Source { group } | Question::Address { group, .. } => Some(group),
        Question::SourceGroup | Question::AddressGroup { .. } => None,
    });
    let all: BTreeSet<u32> = of_rows.chain(of_questions).collect();
    // A group that fits, but would change its position relative to replaced ones, is replaced as well.
    let has_large = all.iter().any(|group| i32::try_from(*group).is_err());
    all.into_iter()
        .filter(|group| has_large && *group >= LOWERED)
        .collect()
}

/// An IPv6 address with all eight groups, which every parser accepts.
fn spelled_out(addr: Ipv6Addr) -> String {
    addr.segments().map(|group| format!("{group:x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exception_is_told_to_operators() {
        let page = include_str!("../../../../docs/from-kamailio.md");
        let names: BTreeSet<_> = EXCEPTIONS.iter().map(|exception| exception.name).collect();
        assert_eq!(names.len(), EXCEPTIONS.len(), "two have one name");
        for name in names {
            let row = format!("| <a id=\"{name}\"></a>{name} |");
            assert!(
                page.contains(&row),
                "docs/from-kamailio.md has no row {row}"
            );
        }
    }
}
