//! The side of the new process.

use std::env;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use portcullis_config::Config;
use portcullis_control::{Heritage, Lent};
use portcullis_dataplane::flow_pings::Registration;
use portcullis_dataplane::shared::Shared;
use portcullis_dataplane::transport::WorkerSockets;
use portcullis_dispatcher::Remembered;
use portcullis_text::one_line;
use portcullis_udp::Channel;
use tokio::runtime::Handle;

use super::elders::{Elder, Elders};
use super::note::{Note, Terms};
use super::{PROTOCOL, VARIABLE};
use crate::seal_keys::SealKeys;

/// How long the old process may take for one step.
const PATIENCE: Duration = Duration::from_secs(20);

/// Interval at which the end of the old process is looked for.
const WATCH: Duration = Duration::from_secs(1);

/// The process that has the sockets until this one takes them over.
pub(crate) struct Predecessor {
    channel: Channel,
    terms: Terms,
}

/// What that process lends.
#[derive(Default)]
pub(crate) struct Inheritance {
    /// By worker.
    pub(crate) sockets: Vec<WorkerSockets>,
    pub(crate) control: Heritage,
    /// The flows of clients that it pings.
    flows: Vec<Registration>,
    /// The processes that had the sockets before, the last of them first.
    elders: Vec<Elder>,
}

impl Predecessor {
    /// The process that has started this one for an upgrade; `None` after another start.
    ///
    /// # Errors
    /// When it does not speak the same protocol.
    pub(crate) fn of_environment() -> anyhow::Result<Option<Self>> {
        if env::var_os(VARIABLE).is_none() {
            return Ok(None);
        }
        let input = io::stdin().as_fd().try_clone_to_owned()?;
        let channel = Channel::of(input).with_context(|| {
            format!("{VARIABLE} is for processes that a host starts itself, to upgrade: unset it")
        })?;
        channel.set_patience(PATIENCE)?;
        let hello = Note::Hello {
            protocol: PROTOCOL,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        say(&channel, &hello)?;
        match hear(&channel)? {
            (Note::Terms(terms), _) => Ok(Some(Self { channel, terms })),
            (note, _) => bail!("the running process says {note:?} in place of its terms"),
        }
    }

    /// Whether a process with this configuration can take over, with the keys of the file, or of the old process if there is no file.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn keys(&self, config: &Config, file: Option<SealKeys>) -> anyhow::Result<SealKeys> {
        if let Some(problem) = self.terms.problem(config) {
            bail!(problem);
        }
        let Some((&current, earlier)) = self.terms.keys.split_first() else {
            bail!("the running process has no key");
        };
        match file {
            None => Ok(SealKeys {
                current,
                earlier: earlier.to_vec(),
            }),
            Some(keys) if keys.current == current => Ok(keys),
            Some(_) => bail!(
                "the first key of `key-file` in `[sip]` is another one than at the start of the running process: a restart changes it"
            ),
        }
    }

    /// Asks for the sockets: when everything else is loaded.
    ///
    /// # Errors
    /// When the old process has ended, or cannot lend them.
    pub(crate) fn ask(&self) -> anyhow::Result<Inheritance> {
        let workers = self.terms.workers;
        let mut lent = Inheritance::default();
        lent.sockets.resize_with(workers, WorkerSockets::default);
        let elders = &mut lent.elders;
        elders.push(Elder::new(self.channel.duplicate()?, workers));
        say(&self.channel, &Note::Ask)?;
        loop {
            match hear(&self.channel)? {
                (
                    Note::Sip {
                        transport,
                        worker,
                        addr,
                    },
                    Some(descriptor),
                ) if worker < workers => lent.sockets[worker].add(transport, addr, descriptor),
                (Note::Elder, Some(descriptor)) => {
                    elders.push(Elder::new(Channel::of(descriptor)?, workers));
                }
                (Note::Link { elder, worker }, Some(descriptor))
                    if elder < elders.len() && worker < workers =>
                {
                    elders[elder].links[worker] = Some(descriptor.into());
                }
                (Note::Control(name), descriptor) => lent.control.add(name, descriptor),
                (
                    Note::Names {
                        elder,
                        worker,
                        names,
                    },
                    None,
                ) if elder < elders.len() && worker < workers => elders[elder].add(worker, names),
                (Note::Flows(flows), None) => lent.flows.extend(flows),
                (Note::Lent, None) => return Ok(lent),
                (note, _) => bail!("the running process says {note:?} in place of a socket"),
            }
        }
    }

    /// Takes over: returns when the workers of this process receive, and the service manager follows it. They were started without
    /// receiving.
    ///
    /// # Errors
    /// When the old process has ended or does not let go.
    pub(crate) async fn take_over(
        self,
        inheritance: Inheritance,
        control: &[Lent],
        shared: &Arc<Shared>,
        elders: &Elders,
    ) -> anyhow::Result<()> {
        if let Some(pings) = &shared.flow_pings {
            pings.inherit(inheritance.flows);
        }
        let mut inherited = inheritance.elders;
        for lent in control.iter().filter(|lent| lent.is_inherited()) {
            say(&self.channel, &Note::Taken(lent.name().to_owned()))?;
        }
        say(&self.channel, &Note::Ready)?;
        let mut states: Vec<Remembered> = Vec::new();
        loop {
            match tokio::task::block_in_place(|| hear(&self.channel))? {
                (
                    Note::Names {
                        elder,
                        worker,
                        names,
                    },
                    None,
                ) if elder < inherited.len() && worker < self.terms.workers => {
                    inherited[elder].add(worker, names);
                }
                (Note::Destinations(lines), None) => {
                    // A state that cannot be read is that of the row.
                    let lines = lines.lines();
                    states.extend(lines.filter_map(|line| line.parse::<Remembered>().ok()));
                }
                (Note::Calls { secret, calls }, None) => {
                    let sets = shared.dispatcher.current();
                    shared.dispatcher.calls().adopt(secret, &calls, &sets);
                }
                (Note::Go, None) => break,
                (note, _) => bail!("the running process says {note:?} and does not let go"),
            }
        }
        // In one go: each call goes through all destinations.
        shared.dispatcher.remember(&states);
        for worker in 0..self.terms.workers {
            let predecessors = inherited.iter().map(|elder| elder.predecessor(worker));
            let predecessors = predecessors.filter_map(Result::transpose);
            let predecessors = predecessors.collect::<io::Result<_>>()?;
            shared.orders.succeed(worker, predecessors).await?;
        }
        let channels = inherited.iter().map(|elder| elder.channel.duplicate());
        let channels = channels.collect::<io::Result<Vec<_>>>()?;
        *elders.lock() = inherited;
        shared.orders.receive().await?;
        shared.drain.set_predecessor(true);
        say(&self.channel, &Note::Serving)?;
        for lent in control {
            lent.keep();
        }
        // Without this note, the old process has ended; the service manager starts another one then, or nobody watches.
        let _done = tokio::task::block_in_place(|| hear(&self.channel));
        let (shared, elders, runtime) = (Arc::clone(shared), elders.clone(), Handle::current());
        std::thread::spawn(move || wait_for_end(&channels, &shared, &elders, &runtime));
        Ok(())
    }

    /// Says why this process does not take over.
    pub(crate) fn refuse(&self, error: &anyhow::Error) {
        // The old process logs it, if it is still there.
        let _told = say(&self.channel, &Note::Refused(one_line(error)));
    }
}

/// Has the workers pass nothing on any more when all processes before this one have ended.
fn wait_for_end(channels: &[Channel], shared: &Shared, elders: &Elders, runtime: &Handle) {
    for channel in channels {
        // A note is `Done`, which has come late.
        while channel.is_open(WATCH) {}
    }
    shared.drain.set_predecessor(false);
    elders.lock().clear();
    runtime.block_on(shared.orders.forget());
    tracing::info!(
        event = "predecessor_ended",
        "the previous process has ended: the upgrade is complete"
    );
}

fn say(channel: &Channel, note: &Note) -> anyhow::Result<()> {
    let said = channel.send(&note.bytes(), None);
    said.context("the running process cannot be reached")
}

fn hear(channel: &Channel) -> anyhow::Result<(Note, Option<std::os::fd::OwnedFd>)> {
    let heard = channel.recv();
    let heard = heard.context("the running process does not answer")?;
    let parcel = heard.context("the running process has ended, or has given the upgrade up")?;
    let note = Note::parse(&parcel.bytes).context("the running process speaks another protocol")?;
    Ok((note, parcel.descriptor))
}
