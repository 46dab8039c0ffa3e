use portcullis_policy::{Evaluator, NoGeneration, SettingsError, Trial};
use portcullis_request::Request;
use portcullis_sip::{Arrival, Framing, Transport};
use tempfile::TempDir;
use tokio::sync::watch;

use portcullis_config::Config;
// Accepts any settings.
use crate::ShipError;
use crate::policy_files::tests::rejecting;
use crate::resolve::Resolver;

use super::*;

/// A host with one tenant whose settings change.
struct Lab {
    folder: TempDir,
    registry: Registry,
    _never: watch::Sender<bool>,
}

impl Lab {
    async fn new(settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        write(&folder, settings);
        let path = folder.path().join("portcullis.toml");
        let config = Config::load(&path).unwrap();
        let (_never, stop) = watch::channel(false);
        let registry = Registry::new(&config, 1, stop).unwrap();
        let registry = registry.with_file(path, config.clone());
        registry.apply(&config, &config.tenants).await.unwrap();
        Self {
            folder,
            registry,
            _never,
        }
    }

    fn seat(&self) -> Arc<Seat> {
        Arc::clone(self.registry.current().load().seat("a").unwrap())
    }

    /// Activates a policy, and returns the number of its generation.
    fn serve(&self, module: &[u8]) -> u64 {
        let (runtime, seat) = (self.registry.runtime(), self.seat());
        let settings = seat.scope.settings();
        let load = runtime.load_within("a.wasm", module, runtime.limits(), settings);
        seat.slot.publish(load.unwrap()).number
    }

    /// Changes the settings. Returns the error if they are refused.
    async fn change(&self, settings: &str) -> Option<String> {
        write(&self.folder, settings);
        let done = self.registry.reconfigure().await;
        done.err().map(|error| error.to_string())
    }
}

fn write(folder: &TempDir, settings: &str) {
    let text = format!("[tenants.a]\nsource-groups = [1]\n[tenants.a.settings]\n{settings}\n");
    std::fs::write(folder.path().join("portcullis.toml"), text).unwrap();
}

const REFUSES: &str =
    "the policy refuses its settings: open!; correct `settings` in its configuration";

#[tokio::test]
async fn settings_that_the_active_policy_refuses_change_nothing() {
    let lab = Lab::new("open = true").await;
    lab.serve(&particular());
    assert_eq!(lab.change("open = true\nmore = 1").await, None);
    let before = lab.seat();
    let told = lab.change("open = false").await;
    assert_eq!(told, Some(format!("tenant a: {REFUSES}")));
    assert!(Arc::ptr_eq(&lab.seat(), &before), "nothing has changed");
}

#[tokio::test]
async fn settings_that_a_candidate_refuses_change_nothing() {
    let lab = Lab::new("open = true").await;
    let particular = lab.serve(&particular());
    lab.serve(&rejecting(480));
    let trial = lab
        .registry
        .deployments()
        .try_out("a", particular, Trial::Shadow, "ann");
    trial.await.unwrap();
    let told = lab.change("open = false").await;
    assert_eq!(told, Some(format!("tenant a: {REFUSES}")));
    lab.registry
        .deployments()
        .end_trial("a", "ann")
        .await
        .unwrap();
    assert_eq!(lab.change("open = false").await, None);
}

#[tokio::test]
async fn earlier_generations_are_checked_against_new_settings() {
    let lab = Lab::new("open = true").await;
    let registry = lab.registry.deployments();
    let particular = lab.serve(&particular());
    let tolerant = lab.serve(&rejecting(480));
    let fallback = || {
        let lineup = lab.seat().slot.lineup().unwrap();
        lineup.fallback.as_ref().map(|generation| generation.number)
    };
    assert_eq!(fallback(), Some(particular));

    assert_eq!(lab.change("open = false").await, None);
    assert_eq!(fallback(), None, "the breaker has nothing to fall back to");
    let refused = ShipError::Settings {
        number: particular,
        source: SettingsError::Refused("open!".to_owned()),
    };
    assert_eq!(refused.to_string(), format!("generation 1: {REFUSES}"));
    let refused = Some(refused);
    let by = "ann";
    assert_eq!(registry.activate("a", particular, by).await.err(), refused);
    let trial = registry.try_out("a", particular, Trial::Shadow, by);
    assert_eq!(trial.await.err(), refused);
    let back = registry.roll_back("a", Some(particular), by);
    assert_eq!(back.await.err(), refused);
    let back = registry.roll_back("a", None, by).await.err();
    let kept = vec![particular, tolerant];
    assert_eq!(back, Some(NoGeneration::Previous { kept }.into()));
    assert_eq!(lab.seat().slot.number(), tolerant);

    assert_eq!(lab.change("open = true").await, None);
    registry.activate("a", particular, by).await.unwrap();
    assert_eq!(lab.seat().slot.number(), particular);
    assert_eq!(fallback(), Some(tolerant));
}

/// The targets that the seat `name` accepts of a guest of `tests/guests`, and the crossings.
async fn targets(tenant: &str, guest: &str, name: &str) -> (usize, u64) {
    let config = Config::parse(&format!(
        "[relay.next-hops]\ncarrier = \"sip:192.0.2.7\"\n[tenants.a]\nsource-groups = [1]\n{tenant}\n"
    ));
    let config = config.unwrap();
    let (_never, stop) = watch::channel(false);
    let registry = Registry::new(&config, 1, stop).unwrap();
    registry.apply(&config, &config.tenants).await.unwrap();
    let routes = Resolver::new(&config.relay, registry.dns())
        .unwrap()
        .routes();
    registry.routes().store(Arc::new(routes));
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/guests");
    let text = std::fs::read(folder.join(guest).with_extension("wat")).unwrap();
    let mut module = wat::parse_bytes(&text).unwrap().into_owned();
    portcullis_policy::embed(&mut module).unwrap();
    let policy = registry.runtime().load(guest, &module).unwrap();
    let seat = Arc::clone(registry.current().load().seat(name).unwrap());
    let mut evaluator = Evaluator::new();
    let (_, answer) = evaluator.decide(&policy, &seat.scope, &Arc::default(), invite());
    answer.unwrap();
    let said = evaluator.take_forwarding();
    let count = said.map_or(0, |said| said.targets.len());
    (count, seat.scope.crossings())
}

fn invite() -> Request {
    const TEXT: &str = "INVITE sip:b@h SIP/2.0\r\nVia: SIP/2.0/UDP h;branch=z9hG4bK1\r\nFrom: <sip:a@h>;tag=1\r\nTo: <sip:b@h>\r\n\
                        Call-ID: 1\r\nCSeq: 1 INVITE\r\nContent-Length: 0\r\n\r\n";
    let here = (std::net::Ipv4Addr::LOCALHOST, 5060).into();
    let arrival = Arrival {
        source: here,
        local: here,
        transport: Transport::Udp,
        connection: None,
    };
    Request::read(TEXT.into(), Framing::Datagram, arrival).unwrap()
}

#[tokio::test]
async fn targets_stay_within_the_configuration_of_their_seat() {
    // 17 times the next hop `carrier`.
    assert_eq!(targets("", "many-targets", "a").await, (0, 17));
    let own = "next-hops = [\"carrier\"]";
    assert_eq!(targets(own, "many-targets", "a").await, (16, 0));
    let few = "next-hops = [\"carrier\"]\ntargets = 3";
    assert_eq!(targets(few, "many-targets", "a").await, (3, 0));
    assert_eq!(targets(few, "many-targets", "default").await, (16, 0));
    // 203.0.113.66
    assert_eq!(targets(own, "foreign-uri", "a").await, (0, 1));
    assert_eq!(targets(own, "foreign-uri", "default").await, (0, 1));
    let wide = "domains = [\"203.0.113.0/24\"]";
    assert_eq!(targets(wide, "foreign-uri", "a").await, (1, 0));
}

/// A policy that accepts only settings with `open = true`.
fn particular() -> Vec<u8> {
    let mut module = wat::parse_str(
        r#"(module
            (import "portcullis:policy/settings@0.1.0" "boolean" (func $boolean (param i32 i32 i32)))
            (memory (export "memory") 1)
            (data (i32.const 16) "\03")
            (data (i32.const 64) "open!")
            (data (i32.const 132) "\40\00\00\00\05\00\00\00")
            (func (export "decide") (result i32) i32.const 16)
            (func (export "validate-settings") (result i32)
              (call $boolean (i32.const 64) (i32.const 4) (i32.const 512))
              (i32.store8 (i32.const 128) (i32.eqz (i32.load8_u (i32.const 513))))
              i32.const 128))"#,
    )
    .unwrap();
    let exports = portcullis_policy::Exports {
        validate_settings: true,
        ..Default::default()
    };
    portcullis_policy::embed_with(&mut module, exports).unwrap();
    module
}
