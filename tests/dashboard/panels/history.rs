//! Samples of an hour, made from the server's own exposition, as Prometheus would have scraped them from several pods.

use std::fmt::Write as _;

/// The length of the history.
pub const LENGTH_S: u64 = 3600;

/// A program that was scraped: the labels of its target, and its exposition.
pub struct Scraped<'a> {
    pub labels: &'a str,
    pub exposition: &'a str,
}

/// Returns samples in OpenMetrics with timestamps, one for each scrape interval until `end_s`. Counters increase
/// steadily to a thousand times the exposition's value; gauges are constant.
pub fn samples(programs: &[Scraped], scrape_interval_s: u64, end_s: u64) -> String {
    let mut text = String::new();
    for Scraped { labels, exposition } in programs {
        let own = ["up 1", "scrape_duration_seconds 0.001", "scrape_samples_scraped 100"];
        let lines = exposition
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'));
        for line in lines.chain(own) {
            // An exemplar may follow the value.
            let sample = line.split(" # ").next().unwrap();
            let (series, value) = sample.rsplit_once(' ').unwrap();
            let value: f64 = value.parse().unwrap();
            let (name, of_series) = series
                .split_once('{')
                .map_or((series, ""), |(name, rest)| (name, rest.strip_suffix('}').unwrap()));
            let separator = if of_series.is_empty() { "" } else { "," };
            let series = format!("{name}{{{of_series}{separator}{labels}}}");
            let counts = ["_total", "_bucket", "_count", "_sum"]
                .iter()
                .any(|end| name.ends_with(end));
            for scrape in 0..=LENGTH_S / scrape_interval_s {
                let elapsed_s = scrape * scrape_interval_s;
                let value = if counts {
                    (1000.0 * value * elapsed_s as f64 / LENGTH_S as f64).floor()
                } else {
                    value
                };
                writeln!(text, "{series} {value} {}", end_s - LENGTH_S + elapsed_s).unwrap();
            }
        }
    }
    text + "# EOF\n"
}
