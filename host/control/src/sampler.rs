//! Notes the traffic of each second.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{MissedTickBehavior, interval};

use crate::Control;

/// Notes each second until the task is dropped.
pub(super) async fn watch(control: Arc<Control>) {
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let tenants = control.shared.tenants.load();
        control.history.note(&tenants, SystemTime::now());
    }
}
