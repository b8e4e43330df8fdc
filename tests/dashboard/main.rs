//! What shows the latency: `dashboard.json`, the recording and alerting rules, and the live page.

mod drills;
mod live_page;
mod panels;
mod rules;
