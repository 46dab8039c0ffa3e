//! `policy.…` and `tenant.…`: which policies there are, and which of them decide.

use std::sync::Arc;
use std::time::Duration;

use portcullis_policy::{Generation, Lineup, Mode, Share, Trial};
use portcullis_rpc::{Call, Fault, Param, Reply, Value};

use super::super::Control;
use super::members::{Members, file_of, role, seat_members, stats_members, tenant_members};
use crate::pipeline::PolicyRequest;
use crate::policy_files::{Outcome, PolicyFiles};
use crate::tenants::ShipError;
use crate::time::rfc3339;

type Answer = Result<Reply, Fault>;

/// The seat that a command is about where none is named.
const DEFAULT: &str = "default";

/// Who changes something, if nobody says.
const BY: &str = "operator";

/// What stands before the name of who changes something, in the last parameter.
const SIGNED: &str = "by=";

/// How long the workers may take to see what was published. A call of a policy takes as long as `deadline` at most.
const PATIENCE: Duration = Duration::from_secs(15);

impl Control {
    pub(super) async fn policy_reload(&self, call: &Call) -> Answer {
        let files = self.seat_of(call)?;
        let reloaded = files.reload().await;
        let outcome = reloaded.map_err(|error| Fault::new(500, "Reload failed.").because(error))?;
        let id = outcome.id();
        let status = match outcome {
            Outcome::Published(_) => "Reload OK",
            Outcome::Unchanged(_) => "Reload OK, nothing new",
        };
        let answer = [
            ("status", status.into()),
            ("file", file_of(&files)),
            ("generation", id.generation.into()),
            ("digest", format!("sha256:{}", id.digest).into()),
            ("live_on_all_workers", self.is_live().await.into()),
        ];
        Ok(Reply::One(answer.into()))
    }

    pub(super) fn policy_status(&self, call: &Call) -> Answer {
        let files = self.seat_of(call)?;
        Ok(Reply::One(seat_members(&files)))
    }

    /// Every generation of a seat that can serve at once.
    pub(super) async fn policy_list(&self, call: &Call) -> Answer {
        let files = self.seat_of(call)?;
        let mut all = self.generations(&files);
        let ready = files.slot().numbers();
        let stored = self.registry.stored_generations(&files.seat().name).await;
        for found in stored.map_err(|error| fault(&error))? {
            if ready.contains(&found.number) {
                continue;
            }
            let members: Members = vec![
                ("generation", found.number.into()),
                ("role", "stored".into()),
                ("name", found.name.into()),
                ("digest", format!("sha256:{}", found.digest).into()),
                ("author", found.author.into()),
                ("note", found.note.into()),
            ];
            all.push((found.number, Value::Struct(members)));
        }
        all.sort_by_key(|(number, _)| *number);
        let all = all.into_iter().map(|(_, members)| members);
        Ok(Reply::One(Value::List(all.collect())))
    }

    pub(super) async fn policy_activate(&self, call: &Call) -> Answer {
        let (call, by) = &signed(call);
        let [seat, number] = expect(call, ["seat", "generation"])?;
        let number = generation(&number)?;
        let activated = self
            .registry
            .activate(&seat, number, by)
            .await
            .map_err(|error| fault(&error))?;
        self.changed("Activated", &activated).await
    }

    pub(super) async fn policy_roll_back(&self, call: &Call) -> Answer {
        let (call, by) = &signed(call);
        let texts = call.texts()?;
        let (seat, to) = match texts[..] {
            [seat] => (seat, None),
            [seat, number] => (seat, Some(generation(number)?)),
            _ => {
                return Err(Fault::new(
                    400,
                    "name a seat, and a generation if it is not the previous one",
                ));
            }
        };
        let back = self
            .registry
            .roll_back(seat, to, by)
            .await
            .map_err(|error| fault(&error))?;
        self.changed("Rolled back", &back).await
    }

    pub(super) async fn policy_shadow(&self, call: &Call) -> Answer {
        let (call, by) = &signed(call);
        let [seat, number] = expect(call, ["seat", "generation"])?;
        let number = generation(&number)?;
        let tried = self.registry.try_out(&seat, number, Trial::Shadow, by);
        let tried = tried.await;
        let tried = tried.map_err(|error| fault(&error))?;
        self.changed("Shadowing", &tried).await
    }

    pub(super) async fn policy_canary(&self, call: &Call) -> Answer {
        let (call, by) = &signed(call);
        let [seat, number, share] = expect(call, ["seat", "generation", "share"])?;
        let share = Share::parse(&share).ok_or_else(|| {
            Fault::new(
                400,
                format!("`{share}` is no share: write 5%, two digits behind the point at most"),
            )
        })?;
        let number = generation(&number)?;
        let trial = Trial::Canary(share);
        let tried = self.registry.try_out(&seat, number, trial, by).await;
        let tried = tried.map_err(|error| fault(&error))?;
        self.changed("Canary", &tried).await
    }

    pub(super) async fn policy_end_trial(&self, call: &Call) -> Answer {
        let (call, by) = &signed(call);
        let [seat] = expect(call, ["seat"])?;
        match self
            .registry
            .end_trial(&seat, by)
            .await
            .map_err(|error| fault(&error))?
        {
            Some(ended) => self.changed("Trial ended", &ended).await,
            None => Err(Fault::new(
                404,
                format!("nothing is tried at the seat `{seat}`"),
            )),
        }
    }

    /// What the candidate of a seat decides otherwise.
    pub(super) fn policy_diff(&self, call: &Call) -> Answer {
        let files = self.seat_of(call)?;
        let seat = &files.seat().name;
        let Some(comparison) = files.seat().comparison() else {
            let lineup = files.seat().slot.guard();
            let text = match lineup.as_ref().and_then(|lineup| lineup.shadow()) {
                Some(candidate) => format!(
                    "generation {} is in the shadow at the seat `{seat}`, and no request has come since: ask again later",
                    candidate.number
                ),
                None => format!(
                    "nothing has been tried in the shadow at the seat `{seat}`: policy.shadow begins it"
                ),
            };
            return Err(Fault::new(404, text));
        };
        let samples = comparison.samples().into_iter().map(|difference| {
            let members = [
                ("at", rfc3339(difference.at).into()),
                ("source", difference.source.to_string().into()),
                ("active", difference.active.into()),
                ("candidate", difference.candidate.into()),
                ("request", difference.request.into()),
            ];
            members.into()
        });
        let answer = [
            ("active", comparison.active.into()),
            ("candidate", comparison.candidate.into()),
            ("same", comparison.same().into()),
            ("different", comparison.different().into()),
            ("not_compared", comparison.not_compared().into()),
            ("samples", Value::List(samples.collect())),
        ];
        Ok(Reply::One(answer.into()))
    }

    pub(super) async fn policy_mode(&self, call: &Call) -> Answer {
        let (call, by) = &signed(call);
        let [seat, mode] = expect(call, ["seat", "mode"])?;
        let mode = match mode.as_str() {
            "enforce" => Mode::Enforce,
            "monitor" => Mode::Monitor,
            other => {
                return Err(Fault::new(
                    400,
                    format!("`{other}` is no mode: write enforce or monitor"),
                ));
            }
        };
        self.registry
            .set_mode(&seat, mode, by)
            .await
            .map_err(|error| fault(&error))?;
        Ok(Reply::One(format!("{seat}: {}", mode.as_str()).into()))
    }

    /// Reads the configuration file again for its tenants.
    pub(super) async fn tenant_reload(&self, call: &Call) -> Answer {
        call.no_params()?;
        let done = self.registry.reconfigure().await;
        let done = done.map_err(|error| Fault::new(500, "Reload failed.").because(error))?;
        let answer = [
            ("status", "Reload OK".into()),
            ("added", done.added.into()),
            ("changed", done.changed.into()),
            ("removed", done.removed.into()),
            ("need_a_start", done.need_a_start.into()),
        ];
        Ok(Reply::One(answer.into()))
    }

    pub(super) fn tenant_list(&self, call: &Call) -> Answer {
        call.no_params()?;
        let tenants = self.shared.tenants.load();
        let all = tenants
            .all()
            .map(|tenant| tenant_members(tenant, self.registry.is_stored(&tenant.name)));
        Ok(Reply::One(Value::List(all.collect())))
    }

    /// What `portcullis.status` tells of the operator's policy.
    pub(super) fn policy_members(&self) -> Value<'static> {
        seat_members(self.registry.default_files())
    }

    /// What it tells of everybody's.
    pub(super) fn alerts(&self) -> Value<'static> {
        let files = self.registry.all_files();
        let alerts = files.iter().filter_map(|files| {
            let alert = files.seat().alert()?;
            Some(
                format!(
                    "{}: {}: {}",
                    files.seat().name,
                    rfc3339(alert.at),
                    alert.text
                )
                .into(),
            )
        });
        let wrong = self.registry.wrong_tenants().into_iter();
        let wrong = wrong
            .map(|(name, error)| format!("tenant {name} of the database can't be used: {error}"));
        Value::List(alerts.chain(wrong.map(Value::from)).collect())
    }

    fn generations(&self, files: &PolicyFiles) -> Vec<(u64, Value<'static>)> {
        let slot = files.slot();
        let lineup = slot.lineup();
        let numbers = slot.numbers().into_iter();
        let all = numbers.filter_map(|number| slot.generation(number));
        let all = all.map(|generation| {
            let members = self.generation_members(files, lineup.as_deref(), &generation);
            (generation.number, members)
        });
        all.collect()
    }

    fn generation_members(
        &self,
        files: &PolicyFiles,
        lineup: Option<&Lineup<PolicyRequest>>,
        generation: &Generation<PolicyRequest>,
    ) -> Value<'static> {
        let origin = self
            .registry
            .provenance(&files.seat().name, generation.number);
        let origin = origin.as_ref();
        let mut members = vec![
            ("generation", generation.number.into()),
            ("role", role(lineup, generation).into()),
            ("name", generation.policy.name().to_owned().into()),
            (
                "digest",
                format!("sha256:{}", generation.policy.digest()).into(),
            ),
            ("loaded_at", rfc3339(generation.loaded_at).into()),
            ("author", origin.map(|origin| origin.author.clone()).into()),
            ("note", origin.map(|origin| origin.note.clone()).into()),
        ];
        members.extend(stats_members(generation));
        Value::Struct(members)
    }

    async fn changed(
        &self,
        status: &'static str,
        generation: &Generation<PolicyRequest>,
    ) -> Answer {
        let answer = [
            ("status", status.into()),
            ("generation", generation.number.into()),
            ("name", generation.policy.name().to_owned().into()),
            (
                "digest",
                format!("sha256:{}", generation.policy.digest()).into(),
            ),
            ("live_on_all_workers", self.is_live().await.into()),
            ("warning", self.unstored().into()),
        ];
        Ok(Reply::One(answer.into()))
    }

    /// What is to be said where pushed policies are kept in memory only.
    pub(in crate::control) fn unstored(&self) -> Option<String> {
        match self.registry.storing() {
            Ok(()) | Err(None) => None,
            Err(Some(error)) => Some(format!("kept until the host ends: {error}")),
        }
    }

    pub(in crate::control) async fn is_live(&self) -> bool {
        self.shared.live_on_all_workers(PATIENCE).await
    }

    /// The seat that the only parameter names; the operator's without one.
    fn seat_of(&self, call: &Call) -> Result<Arc<PolicyFiles>, Fault> {
        let texts = call.texts()?;
        let seat = match texts[..] {
            [] => DEFAULT,
            [seat] => seat,
            _ => {
                return Err(Fault::new(
                    400,
                    "name one seat: a tenant, default, before or after",
                ));
            }
        };
        self.registry
            .seat_files(seat)
            .map_err(|error| fault(&error))
    }
}

/// The fault that an error of shipping is.
pub(in crate::control) fn fault(error: &ShipError) -> Fault {
    let code = match error {
        ShipError::NoSeat { .. } | ShipError::NoGeneration(_) | ShipError::NotPushed(_) => 404,
        ShipError::FollowsFile { .. } => 409,
        ShipError::Busy { .. } => 429,
        ShipError::Store(_) => 503,
        ShipError::Refused(_) | ShipError::Settings { .. } | ShipError::Signature(_) => 422,
        ShipError::Interrupted => 500,
    };
    Fault::new(code, error.to_string())
}

/// The call without its last parameter, if that says who changes something, and who does.
fn signed(call: &Call) -> (Call, String) {
    let mut call = call.clone();
    let name = match call.params.last() {
        Some(Param::Text(text)) => text.strip_prefix(SIGNED).map(str::to_owned),
        _ => None,
    };
    if name.is_some() {
        call.params.pop();
    }
    (call, name.unwrap_or_else(|| BY.to_owned()))
}

/// The parameters, if there are as many as names.
fn expect<const N: usize>(call: &Call, names: [&str; N]) -> Result<[String; N], Fault> {
    let texts = call.texts()?;
    let texts: [&str; N] = texts
        .try_into()
        .map_err(|_| Fault::new(400, format!("{} takes {}", call.method, names.join(", "))))?;
    Ok(texts.map(str::to_owned))
}

fn generation(text: &str) -> Result<u64, Fault> {
    text.parse()
        .map_err(|_| Fault::new(400, format!("`{text}` is not the number of a generation")))
}
