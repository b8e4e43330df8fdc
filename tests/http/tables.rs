//! Generates the tables of `docs/robustness.md` from the cases.

use std::fs;
use std::path::Path;

use crate::groups;

const BEGIN: &str = "<!-- tests/http: begin -->\n";
const END: &str = "<!-- tests/http: end -->\n";

#[test]
fn the_tables_in_robustness_md_match_the_cases() {
    let mut tables = String::new();
    for group in groups() {
        tables += &format!(
            "\n### {}\n\n{}\n\n| sent | response |\n| --- | --- |\n",
            group.title, group.about
        );
        for case in &group.cases {
            tables += &case.row();
            tables.push('\n');
        }
    }
    tables.push('\n');
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/robustness.md");
    let page = fs::read_to_string(&path).expect("docs/robustness.md");
    let (before, rest) = page.split_once(BEGIN).expect("the marker of the beginning");
    let (now, after) = rest.split_once(END).expect("the marker of the end");
    if now == tables {
        return;
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, [before, BEGIN, &tables, END, after].concat()).expect("docs/robustness.md can be written");
        return;
    }
    let line = now
        .lines()
        .zip(tables.lines())
        .find(|(now, from_cases)| now != from_cases);
    panic!("docs/robustness.md is not up to date (UPDATE_DOCS=1 writes it); the first difference: {line:#?}");
}
