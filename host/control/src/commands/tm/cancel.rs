//! `tm.cancel`.

use portcullis_dataplane::active::CallName;
use portcullis_dataplane::inspection;
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
    /// The number of targets that are not done yet, and what that means; nothing if all are done.
    type Reply = Vec<Record>;

    async fn execute(self, control: &Control, _: &Caller) -> Result<Vec<Record>, Fault> {
        let cancelled = inspection::cancel(&control.shared, &self.call).await;
        let cancelled = cancelled.map_err(|error| Fault::new(500, error.to_string()))?;
        match cancelled.ok_or_else(not_found)? {
            0 => Ok(Vec::new()),
            pending => Ok(vec![
                Record::Number(i64::try_from(pending).unwrap_or(i64::MAX)),
                Record::Text("branches remaining (waiting for timeout)".into()),
            ]),
        }
    }
}

fn not_found() -> Fault {
    Fault::new(400, "Transaction not found")
}
