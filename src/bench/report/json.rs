//! The report for programs.

use super::Report;
use serde_json::error::Error;

/// The report as one JSON document.
///
/// # Errors
/// None that a report could cause.
pub fn write(report: &Report) -> Result<String, Error> {
    serde_json::to_string_pretty(report).map(|text| text + "\n")
}

/// The report that [`write()`] made `text` of.
///
/// # Errors
/// Where it is not one.
pub fn read(text: &str) -> Result<Report, Error> {
    serde_json::from_str(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::report::tests::example;

    #[test]
    fn a_report_survives_being_written() {
        let text = write(&example()).expect("a report can be written");
        assert_eq!(read(&text).expect("it can be read"), example());
    }
}
