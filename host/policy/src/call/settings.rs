//! Answers of the interface `settings`.

use serde_json::json;

use crate::settings::Settings;
use crate::tape::{Answer, SideEffect};

use super::Call;

impl Call {
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
        self.answered("settings.json", SideEffect::None, arguments, |call| {
            call.scope().settings().json().to_owned()
        })
    }

    fn setting<T: Answer>(
        &mut self,
        function: &'static str,
        key: &str,
        read: impl FnOnce(&Settings, &str) -> T,
    ) -> T {
        let arguments = || json!([key]);
        self.answered(function, SideEffect::None, arguments, |call| {
            read(call.scope().settings(), key)
        })
    }
}
