//! A local date and time.

/// A local date and time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalTime {
    /// The year.
    pub year: u16,
    /// 1 to 12
    pub month: u8,
    /// 1 to 31
    pub day: u8,
    /// 0 to 23
    pub hour: u8,
    /// 0 to 59
    pub minute: u8,
    /// 0 to 59
    pub second: u8,
    /// 1 for Monday to 7 for Sunday (ISO 8601)
    pub weekday: u8,
    /// Seconds ahead of UTC; negative west of Greenwich.
    pub offset: i32,
}
