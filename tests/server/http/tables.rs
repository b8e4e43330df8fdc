//! Generates the tables of `docs/http.md` from the cases.

use std::fs;

use support::root;

use super::groups;

const BEGIN: &str = "<!-- tests/server/http: begin -->\n";
const END: &str = "<!-- tests/server/http: end -->\n";

#[test]
fn the_tables_in_http_md_match_the_cases() {
    let mut tables = String::new();
    for group in groups() {
        tables += &format!(
            "\n## {}\n\n{}\n\n| sent | response |\n| --- | --- |\n",
            group.title, group.about
        );
        for case in &group.cases {
            tables += &case.row();
            tables.push('\n');
        }
    }
    tables.push('\n');
    let path = root().join("docs/http.md");
    let page = fs::read_to_string(&path).expect("docs/http.md");
    let (before, rest) = page.split_once(BEGIN).expect("the marker of the beginning");
    let (now, after) = rest.split_once(END).expect("the marker of the end");
    if now == tables {
        return;
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, [before, BEGIN, &tables, END, after].concat()).expect("docs/http.md can be written");
        return;
    }
    let line = now
        .lines()
        .zip(tables.lines())
        .find(|(now, from_cases)| now != from_cases);
    panic!("docs/http.md is not up to date (UPDATE_DOCS=1 writes it); the first difference: {line:#?}");
}
