//! The task that exchanges.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use redis::{RedisResult, Value};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval, timeout_at};

use super::ledger::Ledger;
use super::link::{Link, Open};
use super::options::{Options, Place};
use super::shared::{Change, Shared};
use super::status::Status;
use super::store::{self, Own};
use super::trouble::Trouble;

/// Most items of one part that one exchange stores; it reads twice as many. Redis does nothing else meanwhile.
const MOST_SENT: usize = 1_000;

/// The same if answers are slow, and for the first exchange: many hosts may come at once.
const FEWEST_SENT: usize = 100;

/// An answer that takes longer is slow: fewer items are sent. After a faster one there may be more.
const SLOW: Duration = Duration::from_millis(100);

/// Most exchanges in one interval, if there is more to send or to read than one exchange takes.
const MOST_ROUNDS: usize = 20;

/// Most nodes of a cluster that are asked in one interval, because each refers to another one.
const MOST_MOVES: usize = 3;

/// Difference of the clocks from which it is told.
const LARGE_SKEW_MS: u64 = 2_000;

/// Time between two lines of the log about the same trouble.
const REMIND: Duration = Duration::from_secs(60);

/// What this host and the others exchange through Redis.
pub struct Exchange {
    options: Options,
    own: Own,
    parts: Vec<Part>,
    link: Link,
    open: Option<Open>,
    status: Arc<Status>,
    /// How far the clock of Redis is ahead of that of this host, in milliseconds.
    ahead: i64,
    /// The digest by which the server of the present connection knows the script; `None` until it has been sent, and `ahead` measured.
    script: Option<String>,
    told_skew: bool,
    /// Number of the last exchange.
    number: u64,
    heard: Option<Instant>,
    hosts: Option<usize>,
    present: Present,
    /// Most items of one part that the next exchange stores.
    most: usize,
    garbage: u64,
    /// The kinds of trouble that were told, and when.
    told: Vec<(&'static str, Instant)>,
    swept: Instant,
}

struct Part {
    shared: Arc<dyn Shared>,
    ledger: Ledger,
    /// Whether its last exchange failed alone.
    is_apart: bool,
    refused: u64,
    told: Option<(&'static str, Instant)>,
}

/// What [`probe`] finds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The server, after sentinels and redirections.
    pub server: Place,
    /// How far its clock is ahead of that of this host, in milliseconds.
    pub ahead_ms: i64,
}

/// How many hosts there are. When Redis has started again it knows few of them, and a host that divided by their number would take too much.
#[derive(Debug, Default)]
struct Present {
    hosts: usize,
    /// Since when Redis knows fewer.
    fewer: Option<Instant>,
}

impl Exchange {
    /// Prepares an exchange of these parts. Nothing is sent before [`Exchange::run`]. `instance` is a random number of this process.
    pub fn new(options: Options, instance: [u8; 16], parts: Vec<Arc<dyn Shared>>) -> Self {
        let name = options.host.chars().map(|c| match c.is_ascii_graphic() {
            true => c,
            false => '_',
        });
        let name: String = name.take(64).collect();
        let own = Own {
            instance,
            label: format!("{} {name}", hex::encode(instance)),
            answered: 0,
        };
        let parts = parts.into_iter().map(|shared| Part {
            shared,
            ledger: Ledger::default(),
            is_apart: false,
            refused: 0,
            told: None,
        });
        Self {
            own,
            parts: parts.collect(),
            link: Link::default(),
            open: None,
            status: Arc::new(Status::new()),
            ahead: 0,
            script: None,
            told_skew: false,
            number: 0,
            heard: None,
            hosts: None,
            present: Present::default(),
            most: FEWEST_SENT,
            garbage: 0,
            told: Vec::new(),
            swept: Instant::now(),
            options,
        }
    }

    /// How the exchange is doing.
    pub fn status(&self) -> Arc<Status> {
        Arc::clone(&self.status)
    }

    /// Exchanges until `stop` is true.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut ticks = interval(self.options.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut ended = stop.clone();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = ended.wait_for(|stop| *stop) => return,
            }
            tokio::select! {
                () = self.turn() => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// One interval.
    async fn turn(&mut self) {
        let mut moves = 0;
        for _ in 0..MOST_ROUNDS {
            match self.exchange().await {
                Ok(true) => {}
                Ok(false) => break,
                Err(trouble) => {
                    self.fail(&trouble);
                    // The node that has the keys is asked at once.
                    moves += 1;
                    if !matches!(trouble, Trouble::Moved { .. }) || moves >= MOST_MOVES {
                        break;
                    }
                }
            }
        }
        self.listen();
        self.tidy();
    }

    /// One exchange. Returns whether there is more to send or to read.
    async fn exchange(&mut self) -> Result<bool, Trouble> {
        if self.open.is_none() {
            let place = self.link.first_place(&self.options);
            let opening = self.link.open(&self.options);
            // A connection that takes long must not delay the news that the others are not heard.
            let opened = match self.hosts.and(self.heard) {
                Some(heard) => timeout_at((heard + self.options.silence()).into(), opening).await,
                None => Ok(opening.await),
            };
            let silent = |_| Trouble::Silent { place };
            self.open = Some(opened.map_err(silent)??);
            self.script = None;
        }
        let Some(open) = &mut self.open else {
            return Ok(false);
        };
        let script = match &self.script {
            Some(script) => script.clone(),
            None => {
                let asked = now_ms();
                let mut both = redis::pipe();
                both.cmd("TIME").add_command(store::script());
                let ((seconds, micros), script) = both
                    .query_async::<((i64, i64), String)>(&mut open.connection)
                    .await
                    .map_err(|error| Trouble::of(&open.place, &error))?;
                let middle = asked.midpoint(now_ms());
                self.ahead = seconds.saturating_mul(1000) + micros / 1000 - middle;
                self.script.insert(script).clone()
            }
        };
        let host_now = u64::try_from(now_ms()).unwrap_or(0);
        let now = host_now.saturating_add_signed(self.ahead);
        self.number += 1;
        let mut pipe = redis::pipe();
        pipe.ignore_errors();
        let mut batches = Vec::with_capacity(self.parts.len());
        let mut is_full = false;
        for part in &mut self.parts {
            let room = self.most.saturating_sub(part.ledger.waiting());
            let changes = part.shared.take_changes(room);
            is_full |= changes.len() >= room;
            part.ledger.note(&changes, now, self.ahead);
            let batch = part.ledger.batch(self.most, now);
            let fresh = fresh_epoch();
            pipe.add_command(store::exchange(
                &script,
                &self.options,
                part.shared.name(),
                &self.own,
                self.number,
                part.ledger.cursor(),
                &fresh,
                &batch,
                self.most * 2,
            ));
            batches.push(batch);
        }
        let begun = Instant::now();
        let asked = now_ms();
        let answers: RedisResult<Vec<RedisResult<Value>>> =
            pipe.query_async(&mut open.connection).await;
        let took = begun.elapsed();
        let place = open.place.clone();
        let answers = match answers {
            Ok(answers) if answers.len() == batches.len() => answers,
            other => {
                for (part, batch) in self.parts.iter_mut().zip(&batches) {
                    part.ledger.lost(batch);
                }
                self.most = FEWEST_SENT;
                return Err(match other {
                    Err(error) => Trouble::of(&place, &error),
                    Ok(_) => unreadable(&place),
                });
            }
        };
        let middle = asked.midpoint(now_ms());
        let more = self.take_answers(&place, batches, answers, middle, took)?;
        Ok(more || is_full)
    }

    fn take_answers(
        &mut self,
        place: &Place,
        batches: Vec<Vec<Change>>,
        answers: Vec<RedisResult<Value>>,
        middle: i64,
        took: Duration,
    ) -> Result<bool, Trouble> {
        let read = |answer| match answer {
            Ok(value) => store::reply(value).ok_or_else(|| unreadable(place)),
            Err(error) => Err(Trouble::of(place, &error)),
        };
        let replies: Vec<_> = answers.into_iter().map(read).collect();
        let found = replies.iter().flatten().map(|reply| reply.hosts).max();
        if let Some(found) = found {
            let now = Instant::now();
            self.heard = Some(now);
            self.present.see(found, self.options.absence(), now);
            // News of a host that has just come are those of one host more. After silence, the parts are told when all has been read.
            if self.hosts.is_some() {
                self.set_hosts(Some(self.present.hosts));
            }
        }
        let mut more = false;
        let mut first = None;
        let mut ahead = self.ahead;
        for ((part, batch), reply) in self.parts.iter_mut().zip(batches).zip(replies) {
            let reply = match reply {
                Ok(reply) => reply,
                Err(trouble) => {
                    part.ledger.lost(&batch);
                    if trouble.concerns_part() {
                        tell_part(part, &trouble);
                        part.is_apart = true;
                        part.shared.set_peers(None);
                    }
                    first.get_or_insert(trouble);
                    continue;
                }
            };
            part.told = None;
            part.ledger.stored(&batch);
            ahead = i64::try_from(reply.now).unwrap_or(i64::MAX) - middle;
            part.shared.set_clock(ahead);
            // What has ended first: a sum that falls because of one host would hide by how much it grows because of another one.
            let ended = part.ledger.sums(reply.now, ahead);
            if !ended.is_empty() {
                part.shared.merge(&ended);
            }
            part.ledger.receive(&reply);
            part.shared.merge(&part.ledger.sums(reply.now, ahead));
            if !reply.more && std::mem::take(&mut part.is_apart) {
                part.shared.set_peers(self.hosts);
            }
            if reply.garbage > 0 {
                tracing::warn!(
                    event = "exchange_garbage",
                    part = part.shared.name(),
                    values = reply.garbage,
                    prefix = self.options.prefix.as_str(),
                    "values in Redis that no host writes, skipped"
                );
            }
            if reply.refused > 0 {
                tracing::warn!(
                    event = "exchange_full",
                    part = part.shared.name(),
                    items = reply.refused,
                    "too many shared items, some count on this host only"
                );
            }
            part.refused += reply.refused;
            self.garbage += reply.garbage;
            more |= reply.more || part.ledger.waiting() >= self.most;
        }
        self.ahead = ahead;
        match first {
            Some(trouble) => Err(trouble),
            None => {
                self.own.answered = self.number;
                self.most = match took <= SLOW {
                    true => (self.most * 2).min(MOST_SENT),
                    false => (self.most / 2).max(FEWEST_SENT),
                };
                self.status.succeed(&place.to_string(), took, ahead);
                self.told_back(place);
                self.tell_skew();
                Ok(more)
            }
        }
    }

    /// The other hosts are heard once all has been read and all of them are back, and not any more after some time without an exchange.
    fn listen(&mut self) {
        let silence = self.options.silence();
        if self.heard.is_some_and(|heard| heard.elapsed() <= silence) {
            // The first host to reach a Redis that has lost everything finds nobody there. It must not take the shares of the others.
            if self.hosts.is_some() || self.present.is_complete() {
                self.set_hosts(Some(self.present.hosts));
            }
        } else {
            self.present.lose();
            self.set_hosts(None);
            // What the others had still ends in time.
            let now = u64::try_from(now_ms()).unwrap_or(0);
            let now = now.saturating_add_signed(self.ahead);
            for part in &mut self.parts {
                let sums = part.ledger.sums(now, self.ahead);
                if !sums.is_empty() {
                    part.shared.merge(&sums);
                }
                // Changes wait in the ledger, one for each key, however long it takes.
                let changes = part.shared.take_changes(MOST_SENT);
                part.ledger.note(&changes, now, self.ahead);
            }
        }
    }

    fn set_hosts(&mut self, hosts: Option<usize>) {
        if self.hosts == hosts {
            return;
        }
        match hosts {
            Some(hosts) => tracing::info!(
                event = "exchange_hosts",
                hosts,
                "number of hosts that count together"
            ),
            None => tracing::warn!(
                event = "exchange_lost",
                hosts = self.hosts.unwrap_or_default(),
                "other hosts not heard through Redis: each limits its share"
            ),
        }
        self.hosts = hosts;
        self.status.hear(hosts);
        for part in self.parts.iter().filter(|part| !part.is_apart) {
            part.shared.set_peers(hosts);
        }
    }

    fn fail(&mut self, trouble: &Trouble) {
        if !trouble.keeps_connection() {
            self.open = None;
            self.link.turn(trouble);
        }
        if !trouble.concerns_part() {
            let kind = trouble.kind();
            let is_recent =
                |(told, at): &(&'static str, Instant)| *told == kind && at.elapsed() < REMIND;
            let is_new = !self.told.iter().any(is_recent);
            if is_new && !matches!(trouble, Trouble::Moved { .. }) {
                self.told.retain(|(told, _)| *told != kind);
                self.told.push((kind, Instant::now()));
                tracing::warn!(
                    event = "exchange_failed",
                    cause = trouble.kind(),
                    "{trouble}"
                );
            }
        }
        self.status.fail(trouble.kind(), trouble.to_string());
    }

    fn told_back(&mut self, place: &Place) {
        if !std::mem::take(&mut self.told).is_empty() {
            tracing::info!(event = "exchange_back", server = %place, "exchange through Redis works again");
        }
    }

    fn tell_skew(&mut self) {
        let is_large = self.ahead.unsigned_abs() >= LARGE_SKEW_MS;
        if is_large && !self.told_skew {
            tracing::warn!(
                event = "exchange_clock",
                ahead_ms = self.ahead,
                "clock of Redis differs from that of this host: times are translated, but look at NTP on both"
            );
        }
        self.told_skew = is_large;
    }

    /// Forgets what has ended, and counts.
    fn tidy(&mut self) {
        if self.swept.elapsed() >= Duration::from_secs(5) {
            self.swept = Instant::now();
            let now = u64::try_from(now_ms()).unwrap_or(0);
            let now = now.saturating_add_signed(self.ahead);
            for part in &mut self.parts {
                part.ledger.sweep(now);
            }
        }
        let items = self.parts.iter().map(|part| part.ledger.items()).sum();
        let waiting = self.parts.iter().map(|part| part.ledger.waiting()).sum();
        let lost = self
            .parts
            .iter()
            .map(|part| part.ledger.skipped() + part.refused);
        self.status
            .count(items, waiting, lost.sum::<u64>() + self.garbage);
    }
}

impl Present {
    /// Redis knows this many. Fewer than before count after `absence`.
    fn see(&mut self, found: usize, absence: Duration, now: Instant) {
        let found = found.max(1);
        let is_over = |since: Instant| now.saturating_duration_since(since) >= absence;
        if found < self.hosts && !self.fewer.is_some_and(is_over) {
            self.fewer.get_or_insert(now);
            return;
        }
        self.hosts = found;
        self.fewer = None;
    }

    /// Whether Redis knows as many hosts as count.
    fn is_complete(&self) -> bool {
        self.fewer.is_none()
    }

    /// The others are not heard any more.
    fn lose(&mut self) {
        self.fewer = None;
    }
}

/// Connects once, and tries what the exchange needs. Nothing stays in Redis.
///
/// # Errors
/// Why the exchange would fail.
pub async fn probe(options: &Options) -> Result<Found, Trouble> {
    let mut link = Link::default();
    let mut last = None;
    for _ in 0..options.servers.len() + 2 {
        match ask(&mut link, options).await {
            Ok(found) => return Ok(found),
            Err(trouble) => {
                let moved = matches!(trouble, Trouble::Moved { .. });
                link.turn(&trouble);
                if moved || last.is_none() {
                    last = Some(trouble);
                }
            }
        }
    }
    Err(last.unwrap_or_else(|| unreadable(&options.servers[0])))
}

/// Writes a key that expires at once, by a script as the exchange does.
async fn ask(link: &mut Link, options: &Options) -> Result<Found, Trouble> {
    const TRY: &str = "redis.call('SET', KEYS[1], 1, 'PX', 1) return redis.call('TIME')";
    let mut open = link.open(options).await?;
    let said = |error| Trouble::of(&open.place, &error);
    let mut load = redis::cmd("SCRIPT");
    load.arg("LOAD").arg(TRY);
    let loaded = load.query_async::<String>(&mut open.connection).await;
    let mut command = redis::cmd("EVALSHA");
    command
        .arg(loaded.map_err(said)?)
        .arg(1)
        .arg(format!("{{{}}}:check", options.prefix));
    let asked = now_ms();
    let answer = command
        .query_async::<(i64, i64)>(&mut open.connection)
        .await;
    let (seconds, micros) = answer.map_err(said)?;
    let middle = asked.midpoint(now_ms());
    Ok(Found {
        server: open.place.clone(),
        ahead_ms: seconds.saturating_mul(1000) + micros / 1000 - middle,
    })
}

fn tell_part(part: &mut Part, trouble: &Trouble) {
    let is_new = part
        .told
        .is_none_or(|(kind, at)| kind != trouble.kind() || at.elapsed() >= REMIND);
    if is_new {
        part.told = Some((trouble.kind(), Instant::now()));
        tracing::warn!(
            event = "exchange_failed",
            part = part.shared.name(),
            cause = trouble.kind(),
            "{trouble}"
        );
    }
}

fn unreadable(place: &Place) -> Trouble {
    Trouble::Server {
        place: place.clone(),
        cause: "an answer that the script does not write; is there a proxy between?".to_owned(),
    }
}

/// A name for what Redis has from now on, if it has nothing.
fn fresh_epoch() -> String {
    let mut random = [0; 8];
    match getrandom::fill(&mut random) {
        Ok(()) => hex::encode(random),
        Err(_) => now_ms().to_string(),
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_redis_does_not_know_yet_count_for_a_while() {
        let absence = Duration::from_secs(5);
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        let mut present = Present::default();
        let mut see = |found, seconds| {
            present.see(found, absence, at(seconds));
            present.hosts
        };
        assert_eq!([see(1, 0), see(3, 0), see(4, 1)], [1, 3, 4]);
        // Redis has started again, and knows one after the other.
        assert_eq!([see(1, 10), see(2, 11), see(4, 12)], [4, 4, 4]);
        // One of them does not come back.
        assert_eq!(
            [see(1, 20), see(3, 21), see(3, 24), see(3, 25)],
            [4, 4, 4, 3]
        );
        assert_eq!(see(2, 30), 3);
        assert!(!present.is_complete());
        present.lose();
        present.see(2, absence, at(60));
        assert_eq!(
            present.hosts, 3,
            "it counts from when the others are heard again"
        );
        assert!(!present.is_complete());
        present.see(2, absence, at(65));
        assert_eq!(present.hosts, 2);
        assert!(present.is_complete());
    }
}
