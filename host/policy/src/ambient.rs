//! The functions of the interfaces `counters`, `settings`, `clock` and `edits`.

use serde_json::json;

use crate::call::Call;
use crate::clock::{LocalTime, Moment};
use crate::edits::Edit;
use crate::settings::Settings;
use crate::tape::{Answer, Leaves};
use crate::verdict::InvalidVerdict;

impl Call {
    /// `counters.add`
    pub(crate) fn add(&mut self, name: &str, amount: u64, seconds: u32) -> u64 {
        let arguments = || json!([name, amount, seconds]);
        self.answered("counters.add", Leaves::Nothing, arguments, |call| {
            let now = call.steady();
            call.scope().counters().add(name, amount, seconds, now)
        })
    }

    /// `counters.value`
    pub(crate) fn value(&mut self, name: &str) -> u64 {
        let arguments = || json!([name]);
        self.answered("counters.value", Leaves::Nothing, arguments, |call| {
            let now = call.steady();
            call.scope().counters().value(name, now)
        })
    }

    /// `counters.rate-limit`
    pub(crate) fn rate_limit(&mut self, key: &str, per_second: f64, burst: u32) -> bool {
        let arguments = || json!([key, per_second, burst]);
        self.answered("counters.rate-limit", Leaves::Nothing, arguments, |call| {
            let now = call.steady();
            let counters = call.scope().counters();
            counters.rate_limit(key, per_second, burst, now)
        })
    }

    /// `settings.boolean`
    pub(crate) fn boolean(&mut self, key: &str) -> Option<bool> {
        self.setting("settings.boolean", key, Settings::boolean)
    }

    /// `settings.integer`
    pub(crate) fn integer(&mut self, key: &str) -> Option<i64> {
        self.setting("settings.integer", key, Settings::integer)
    }

    /// `settings.number`
    pub(crate) fn number(&mut self, key: &str) -> Option<f64> {
        self.setting("settings.number", key, Settings::number)
    }

    /// `settings.text`
    pub(crate) fn text(&mut self, key: &str) -> Option<String> {
        let text = |settings: &Settings, key: &str| settings.text(key).map(str::to_owned);
        self.setting("settings.text", key, text)
    }

    /// `settings.texts`
    pub(crate) fn texts(&mut self, key: &str) -> Option<Vec<String>> {
        self.setting("settings.texts", key, Settings::texts)
    }

    /// `settings.keys`
    pub(crate) fn keys(&mut self, key: &str) -> Vec<String> {
        self.setting("settings.keys", key, Settings::keys)
    }

    /// `settings.json`
    pub(crate) fn json(&mut self) -> String {
        let arguments = || json!([]);
        self.answered("settings.json", Leaves::Nothing, arguments, |call| {
            call.scope().settings().json().to_owned()
        })
    }

    /// `clock.now`
    pub(crate) fn now(&mut self) -> u64 {
        self.moment().milliseconds()
    }

    /// `clock.local`
    pub(crate) fn local(&mut self, zone: &str) -> Option<LocalTime> {
        self.moment().local(zone)
    }

    /// `edits.add-header`
    pub(crate) fn add_header(&mut self, name: &str, value: &str) -> Result<bool, InvalidVerdict> {
        let arguments = || json!([name, value]);
        let edit = || Edit::Add {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        self.edit("edits.add-header", name, arguments, edit)
    }

    /// `edits.remove-header`
    pub(crate) fn remove_header(&mut self, name: &str) -> Result<bool, InvalidVerdict> {
        let arguments = || json!([name]);
        let edit = || Edit::Remove {
            name: name.to_owned(),
        };
        self.edit("edits.remove-header", name, arguments, edit)
    }

    fn setting<T: Answer>(
        &mut self,
        function: &'static str,
        key: &str,
        read: impl FnOnce(&Settings, &str) -> T,
    ) -> T {
        let arguments = || json!([key]);
        self.answered(function, Leaves::Nothing, arguments, |call| {
            read(call.scope().settings(), key)
        })
    }

    fn edit(
        &mut self,
        function: &'static str,
        name: &str,
        arguments: impl FnOnce() -> serde_json::Value,
        edit: impl FnOnce() -> Edit,
    ) -> Result<bool, InvalidVerdict> {
        let edit = edit();
        edit.check()?;
        let admitted = self.answered(function, Leaves::Nothing, arguments, |call| {
            call.scope().admits_header(name)
        });
        if admitted {
            self.edits().push(edit)?;
        }
        Ok(admitted)
    }

    /// The time that counters go by.
    fn steady(&mut self) -> std::time::Instant {
        let Moment { steady, .. } = self.moment();
        steady
    }
}
