//! What shows the latency: `dashboard.json`, the recording and alerting rules with the drills for them, and the live page.

mod drills;
mod live_page;
mod panels;
mod rules;
