//! `tm.cancel`.

use portcullis_dataplane::active::CallName;
use portcullis_dataplane::inspection::{self, Cancelled};
use portcullis_rpc::{Call, Fault, Param};

use crate::Control;
use crate::caller::Caller;
use crate::commands::core::Record;
use crate::commands::{FromCall, Procedure};

/// `tm.cancel`: cancels the INVITE with this Call-ID and CSeq number.
#[derive(Debug)]
pub(crate) struct Cancel {
    call: CallName,
}

impl FromCall for Cancel {
    /// Kamailio takes the number as a text only, and finds no transaction for one that is not a number.
    fn from_call(call: &Call) -> Result<Self, Fault> {
        let missing = || Fault::new(400, "Callid and CSeq expected as parameters");
        let [Param::Text(call_id), cseq] = &call.params[..] else {
            return Err(missing());
        };
        let cseq = match cseq {
            Param::Text(cseq) => cseq.parse().ok(),
            Param::Int(cseq) => u32::try_from(*cseq).ok(),
            Param::Double(_) | Param::Other(_) => return Err(missing()),
        };
        let call_id = call_id.clone();
        let cseq = cseq.ok_or_else(not_found)?;
        Ok(Self {
            call: CallName { call_id, cseq },
        })
    }
}

impl Procedure for Cancel {
    /// The number of targets that are not done yet, and what that means; nothing if all are done. Then the workers that did not answer.
    type Reply = Vec<Record>;

    async fn execute(self, control: &Control, _: &Caller) -> Result<Vec<Record>, Fault> {
        let cancelled = inspection::cancel(&control.shared, &self.call).await;
        let cancelled = cancelled.map_err(|error| Fault::new(500, error.to_string()))?;
        reply_to(&cancelled)
    }
}

/// That a worker did not answer is the fault only if the call was not found on another one.
fn reply_to(cancelled: &Cancelled) -> Result<Vec<Record>, Fault> {
    let unanswered = cancelled.unanswered.iter();
    let unanswered = unanswered.map(|worker| format!("worker {worker} does not answer"));
    let Some(pending) = cancelled.pending else {
        let cause = unanswered.reduce(|all, one| all + ", " + &one);
        return Err(cause.map_or_else(not_found, |cause| {
            Fault::new(500, format!("Transaction not found, but {cause}"))
        }));
    };
    let mut reply = Vec::new();
    if pending > 0 {
        reply.extend([
            Record::Number(i64::try_from(pending).unwrap_or(i64::MAX)),
            Record::Text("branches remaining (waiting for timeout)".into()),
        ]);
    }
    reply.extend(unanswered.map(Record::Text));
    Ok(reply)
}

fn not_found() -> Fault {
    Fault::new(400, "Transaction not found")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_names_the_workers_that_do_not_answer() {
        let reply = |pending, unanswered: &[usize]| {
            let unanswered = unanswered.to_vec();
            reply_to(&Cancelled {
                pending,
                unanswered,
            })
        };
        let remaining = Record::Text("branches remaining (waiting for timeout)".into());
        let silent = Record::Text("worker 1 does not answer".into());
        assert_eq!(reply(Some(0), &[]), Ok(Vec::new()));
        assert_eq!(reply(Some(0), &[1]), Ok(vec![silent.clone()]));
        assert_eq!(
            reply(Some(2), &[1]),
            Ok(vec![Record::Number(2), remaining, silent])
        );
        assert_eq!(reply(None, &[]), Err(not_found()));
        let text = "Transaction not found, but worker 1 does not answer, worker 3 does not answer";
        assert_eq!(reply(None, &[1, 3]), Err(Fault::new(500, text)));
    }
}
