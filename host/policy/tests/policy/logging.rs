//! Log lines of policies, and their limits.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};

use crate::support::{Host, both_forms, guest, invite, table, unauthorised};

#[test]
fn log_lines_name_policy_and_call() {
    let mut host = Host::new();
    host.addresses = table(&[(200, "192.0.2.1", 32, 0, None)]);

    for policy in both_forms(&host, &guest("page")) {
        let lines = logged(|| {
            host.ask(&policy, invite()).unwrap();
        });

        let [line] = &*lines else {
            panic!("{lines:?}");
        };
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["text"], "Coming from address group 200");
        assert_eq!(line["policy"], "inline");
        assert_eq!(line["call_id"], "call-1\\r\\n @192.0.2.1");
    }
}

#[test]
fn lines_above_the_limit_are_dropped_and_counted() {
    let mut host = Host::new();

    for policy in both_forms(&host, &guest("log-flood")) {
        let lines = logged(|| {
            assert_eq!(host.ask(&policy, invite()), Ok(unauthorised()));
        });

        assert_eq!(lines.len(), 17);
        for line in &lines[..16] {
            let message = &line["text"];
            assert!(message.starts_with("\\nxxxx"), "{message}");
            assert!(message.ends_with("… (4000 bytes)"), "{message}");
            assert!(message.len() < 1100);
        }
        assert_eq!(
            lines[16]["text"],
            "84 more lines of this call dropped (key `log-lines`)"
        );
        assert_eq!(policy.dropped_log_lines(), 84);
    }
}

#[test]
fn the_trial_run_logs_nothing() {
    let host = Host::new();

    let lines = logged(|| {
        host.load("log-flood");
    });

    assert!(lines.is_empty(), "{lines:?}");
}

/// The log lines of policies during `run`.
pub(crate) fn logged(run: impl FnOnce()) -> Vec<BTreeMap<&'static str, String>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let subscriber = tracing_subscriber::registry().with(Capture(Arc::clone(&lines)));
    tracing::subscriber::with_default(subscriber, run);
    std::mem::take(&mut lines.lock().unwrap())
}

struct Capture(Arc<Mutex<Vec<BTreeMap<&'static str, String>>>>);

struct Fields(BTreeMap<&'static str, String>);

impl<S: tracing::Subscriber> Layer<S> for Capture {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() != "policy" {
            return;
        }
        let mut fields = Fields(BTreeMap::new());
        event.record(&mut fields);
        let level = event.metadata().level().to_string();
        fields.0.insert("level", level);
        self.0.lock().unwrap().push(fields.0);
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}
