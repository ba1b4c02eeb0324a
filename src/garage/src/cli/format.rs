//! How sizes, times and ids are shown.

use garage_api_admin::Timestamp;
use jiff::tz::TimeZone;

/// The first 16 digits of an id.
pub(crate) fn short(id: &str) -> &str {
    id.get(..16).unwrap_or(id)
}

/// Bytes in binary units, one decimal: `9.3 GiB`.
pub(crate) fn binary_size(bytes: u64) -> String {
    scaled(bytes, 1024.0, &["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"])
}

/// Bytes in both kinds of units: `3.0 MB (2.9 MiB)`.
pub(crate) fn both_sizes(bytes: u64) -> String {
    format!("{} ({})", scaled(bytes, 1000.0, &["kB", "MB", "GB", "TB", "PB", "EB"]), binary_size(bytes))
}

fn scaled(bytes: u64, step: f64, units: &[&str]) -> String {
    let mut value = bytes as f64;
    let mut unit = None;
    for name in units {
        // 1023.96 would be shown as 1024.0: the next unit says it better.
        if (value * 10.0).round() / 10.0 < step {
            break;
        }
        value /= step;
        unit = Some(name);
    }
    match unit {
        Some(unit) => format!("{value:.1} {unit}"),
        None => format!("{bytes} B"),
    }
}

/// `part` of `whole` with one decimal; 0 when there is no whole.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    let share = if whole == 0 { 0.0 } else { part as f64 * 100.0 / whole as f64 };
    format!("{share:.1}%")
}

/// A span in its largest fitting unit: `11 seconds`, `2 hours`.
fn span(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3_600 => (seconds / 60, "minute"),
        3_600..86_400 => (seconds / 3_600, "hour"),
        86_400..2_592_000 => (seconds / 86_400, "day"),
        2_592_000..31_536_000 => (seconds / 2_592_000, "month"),
        _ => (seconds / 31_536_000, "year"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

/// `11 seconds ago`.
pub(crate) fn ago(seconds: u64) -> String {
    format!("{} ago", span(seconds))
}

/// `in 5 minutes`, `in asap`.
pub(crate) fn ahead(seconds: u64) -> String {
    if seconds == 0 { "in asap".into() } else { format!("in {}", span(seconds)) }
}

/// The clock and the time zone of the person who reads.
pub(crate) struct LocalTime {
    /// Milliseconds since 1970 UTC.
    pub(crate) now_ms: i64,
    /// Where they are.
    pub(crate) zone: TimeZone,
}

impl LocalTime {
    /// Those of this machine.
    pub(crate) fn of_system() -> Self {
        LocalTime { now_ms: jiff::Timestamp::now().as_millisecond(), zone: TimeZone::system() }
    }

    /// `2025-01-31`.
    pub(crate) fn date(&self, time: Timestamp) -> String {
        self.show(time, "%Y-%m-%d")
    }

    /// `2025-01-31 23:59:59.000 +01:00`.
    pub(crate) fn time(&self, time: Timestamp) -> String {
        self.show(time, "%Y-%m-%d %H:%M:%S.%3f %:z")
    }

    /// The point in time `duration` from now.
    pub(crate) fn after(&self, duration: std::time::Duration) -> Timestamp {
        let milliseconds = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Timestamp(self.now_ms.saturating_add(milliseconds))
    }

    fn show(&self, time: Timestamp, form: &str) -> String {
        match jiff::Timestamp::from_millisecond(time.0) {
            Ok(instant) => instant.to_zoned(self.zone.clone()).strftime(form).to_string(),
            Err(_) => time.to_string(),
        }
    }
}
