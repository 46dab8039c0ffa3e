//! Answers of the interface `edits`.

use serde_json::json;

use crate::edits::Edit;
use crate::tape::SideEffect;
use crate::verdict::InvalidVerdict;

use super::Call;

impl Call {
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

    fn edit(
        &mut self,
        function: &'static str,
        name: &str,
        arguments: impl FnOnce() -> serde_json::Value,
        edit: impl FnOnce() -> Edit,
    ) -> Result<bool, InvalidVerdict> {
        let edit = edit();
        edit.check()?;
        let admitted = self.answered(function, SideEffect::None, arguments, |call| {
            call.scope().admits_header(name)
        });
        if admitted {
            self.edits().push(edit)?;
        }
        Ok(admitted)
    }
}
