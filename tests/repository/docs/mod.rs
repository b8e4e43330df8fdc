//! The README and the pages of docs/: links lead somewhere, tables say what the program says, and commands work.

mod commands;
mod names;
mod page;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use commands::{Surroundings, commands};
use names::suites;
use page::{Page, read};
use support::client::load_until;
use support::prometheus::{Major, Prometheus, percent_encoded, scrape_config};
use support::server::{Server, run};
use support::{PATIENCE, root, wait_for};

/// Lines of the README at most.
const README_MAX: usize = 175;

/// Returns a path without `..` and `.` in it.
fn normalized(path: &Path) -> PathBuf {
    let mut normalized = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => drop(normalized.pop()),
            Component::CurDir => {}
            other => normalized.push(other),
        }
    }
    normalized
}

/// Returns the text in backquotes.
fn code(cell: &str) -> &str {
    cell.trim_matches('`')
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let pages = Page::all();
    let mut broken = Vec::new();
    for page in &pages {
        for link in page.links().into_iter().filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = match file {
                "" => page.path.clone(),
                file => normalized(&page.path.parent().unwrap().join(file)),
            };
            let has_anchor = || {
                let target = pages.iter().find(|page| page.path == target);
                target.is_some_and(|target| target.anchors().iter().any(|known| known == anchor))
            };
            if !root().join(&target).exists() || !(anchor.is_empty() || has_anchor()) {
                broken.push(format!("{}: {link}", page.path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn the_readme_is_short() {
    let lines = read("README.md").lines().count();
    assert!(lines <= README_MAX, "{lines} lines");
}

#[test]
fn the_table_of_flags_is_that_of_the_help() {
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    let part = |text: &str, begin: &str, end: char| Some(text.split_once(begin)?.1.split(end).next()?.to_owned());
    let flags: BTreeSet<[String; 3]> = help
        .split("\n      --")
        .skip(1)
        .map(|flag| {
            let default = flag
                .split_once("[default: ")
                .map(|(_, rest)| rest.lines().next().unwrap().trim_end_matches(']'));
            [
                format!("--{}", flag.split(' ').next().unwrap()),
                part(flag, "[env: ", '=').expect("a variable"),
                default.unwrap_or("none").to_owned(),
            ]
        })
        .collect();
    let table = Page::read("README.md").table("## Flags");
    let documented: BTreeSet<[String; 3]> = table
        .iter()
        .map(|row| [0, 1, 2].map(|cell| code(&row[cell]).to_owned()))
        .collect();
    assert_eq!(documented, flags);
}

#[test]
fn the_table_of_endpoints_is_what_the_server_answers() {
    let not_found = Server::start(&[]).get("/nothing");
    assert_eq!(not_found.status, 404);
    let listed = not_found
        .text()
        .split_once("there are ")
        .unwrap()
        .1
        .trim()
        .replace(" and ", ", ");
    let listed: BTreeSet<String> = listed.split(", ").map(str::to_owned).collect();
    let mut documented = BTreeSet::new();
    for row in Page::read("README.md").table("## Endpoints") {
        let [path, delayed, response, ..] = &row[..] else {
            panic!("{row:?}");
        };
        if path == "anything else" {
            assert_eq!((delayed.as_str(), response.as_str()), ("no", "404"));
            continue;
        }
        // Longer than the client waits, so that what is delayed is not answered at all.
        let delay = if delayed == "yes" { "300ms" } else { "1h" };
        let server = Server::start(&["--delay-min", delay, "--delay-max", delay]);
        let asked = Instant::now();
        let status = server.get(code(path)).status.to_string();
        let least = if delayed == "yes" {
            Duration::from_millis(300)
        } else {
            Duration::ZERO
        };
        assert!(asked.elapsed() >= least, "{path}");
        assert!(response.starts_with(&status), "{path}: {status}");
        documented.insert(code(path).to_owned());
    }
    assert_eq!(documented, listed);
}

#[test]
fn the_table_of_metrics_is_that_of_the_exposition() {
    let exposition = Server::start(&["--concurrency=20"]).metrics();
    let types = exposition
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let exported: BTreeMap<String, String> = types.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect();
    let table = Page::read("README.md").table("## Metrics");
    let documented: BTreeMap<String, String> = table
        .iter()
        .map(|row| (code(&row[0]).to_owned(), row[1].clone()))
        .collect();
    assert_eq!(documented, exported);
    for row in table {
        // Of its first series, without the buckets' own label.
        let name = code(&row[0]);
        let series = exposition
            .lines()
            .find(|line| line.starts_with(name) && !line.contains("le=\""))
            .unwrap();
        let labels = series
            .split_once('{')
            .map_or("", |(_, rest)| rest.split('}').next().unwrap());
        let labels: Vec<&str> = labels
            .split(',')
            .filter_map(|pair| Some(pair.split_once('=')?.0))
            .collect();
        let documented: Vec<&str> = row[2].split(", ").filter(|label| !label.is_empty()).map(code).collect();
        assert_eq!(labels, documented, "{name}");
    }
}

#[test]
fn the_table_of_suites_has_those_of_tests_and_the_script_runs_each() {
    let table = Page::read("docs/development.md").table("### Suites");
    let documented: BTreeSet<String> = table.iter().map(|row| code(&row[0]).to_owned()).collect();
    assert_eq!(documented, suites());
    let script = read("tests/run");
    let lists = ["waiting=(", "alone=("].map(|begin| script.split_once(begin).unwrap().1.split(')').next().unwrap());
    let run: BTreeSet<String> = lists.join(" ").split(' ').map(str::to_owned).collect();
    assert_eq!(run, suites());
}

#[test]
fn every_command_works_or_is_known_not_to_run_here() {
    let mut surroundings = Surroundings::new();
    let mut wrong = Vec::new();
    for page in Page::all() {
        for block in page.blocks.iter().filter(|block| block.is_commands()) {
            for command in commands(block) {
                if let Err(error) = surroundings.check(&command) {
                    wrong.push(format!("{}: `{command}`: {error}", page.path.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(surroundings.unused(), [""; 0], "no page has these any more");
}

#[test]
fn every_block_has_a_language_that_is_checked() {
    for page in Page::all() {
        for block in &page.blocks {
            let path = page.path.display();
            match block.language.as_str() {
                // By other tests of this file, or nothing to check.
                "sh" | "console" | "promql" | "text" => {}
                "yaml" => {
                    let value: serde_yaml_ng::Value = serde_yaml_ng::from_str(&block.text).expect("YAML");
                    if value.get("global").is_some() || value.get("scrape_configs").is_some() {
                        check_config(&block.text);
                    }
                }
                other => panic!("{path}: nothing checks a block of {other:?}"),
            }
        }
    }
}

/// Has promtool check a part of a configuration of Prometheus.
fn check_config(text: &str) {
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("prometheus-of-docs.yml");
    std::fs::write(&file, text).unwrap();
    let output = Major::Three
        .promtool()
        .args(["check", "config"])
        .arg(file)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn every_query_is_valid_and_those_in_blocks_have_a_result() {
    let server = Server::start(&["--concurrency=20"]);
    let native = "global:\n  scrape_native_histograms: true\n  always_scrape_classic_histograms: true\n";
    let config = scrape_config(&[server.address]).replace("global:\n", native);
    let prometheus = Prometheus::start(&config, &[]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| load_until(server.address, "/", 20, PATIENCE, &stop));
        let pages = Page::all();
        let blocks = pages.iter().flat_map(|page| &page.blocks);
        let mut without: Vec<&str> = blocks
            .filter(|block| block.language == "promql")
            .map(|block| block.text.as_str())
            .collect();
        assert!(!without.is_empty());
        wait_for(
            "each of these queries to have a result",
            || {
                without.retain(|query| {
                    let result = prometheus.query(query);
                    result.first().is_none_or(|series| series["value"][1] == "NaN")
                });
                without.clone()
            },
            Vec::is_empty,
        );
        stop.store(true, Ordering::Relaxed);
    });
    let queries: Vec<String> = Page::all()
        .iter()
        .flat_map(Page::code)
        .filter(|code| is_query(code))
        .collect();
    assert!(!queries.is_empty());
    for query in queries {
        prometheus.api(&format!("/api/v1/format_query?query={}", percent_encoded(&query)));
    }
}

#[test]
fn the_queries_of_the_readme_have_results_with_its_scrape_configuration() {
    let readme = Page::read("README.md");
    let blocks = |language: &'static str| readme.blocks.iter().filter(move |block| block.language == language);
    let configs: Vec<&str> = blocks("yaml").map(|block| block.text.as_str()).collect();
    assert_eq!(configs.len(), 1, "{configs:?}");
    let server = Server::start(&[]);
    let config = configs[0].replace("localhost:19004", &server.address.to_string());
    assert_ne!(config, configs[0]);
    let prometheus = Prometheus::start(&config, &[]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| load_until(server.address, "/", 20, 2 * PATIENCE, &stop));
        for query in blocks("promql") {
            // Within two scrapes of 15 s, and a `rate` needs two.
            let value = wait_for(
                &query.text,
                || prometheus.value(&query.text).filter(|value| !value.is_nan()),
                Option::is_some,
            );
            println!("{}= {value:?}", query.text);
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// Returns whether inline code is a query, not a name alone or a part of one.
fn is_query(code: &str) -> bool {
    let names_a_metric = ["http_request", "process_cpu"].iter().any(|name| code.contains(name));
    names_a_metric
        && ["rate(", "sum ", "count by", " / "]
            .iter()
            .any(|part| code.contains(part))
}

#[test]
fn every_version_is_that_of_cargo_toml() {
    let version = env!("CARGO_PKG_VERSION");
    let mut files: Vec<PathBuf> = Page::all().into_iter().map(|page| page.path).collect();
    let named = [
        "Containerfile",
        "Cargo.lock",
        "yaml/deployment.yaml",
        "yaml/compose/compose.yaml",
    ];
    files.extend(named.map(PathBuf::from));
    for file in files {
        let text = read(&file);
        for begin in [
            "localhost/httpserver:",
            "image.version=\"",
            "name = \"httpserver\"\nversion = \"",
        ] {
            for rest in text.split(begin).skip(1) {
                assert!(rest.starts_with(version), "{}: {begin}{:.9}", file.display(), rest);
            }
        }
    }
    let changelog = read("CHANGELOG.md");
    let mut headings = changelog.lines().filter(|line| line.starts_with("## "));
    let newest = headings.find(|heading| *heading != "## Unreleased").unwrap();
    assert!(newest.starts_with(&format!("## {version} - ")), "{newest}");
}

#[test]
fn the_table_of_limits_is_that_of_the_sources() {
    for row in Page::read("docs/robustness.md").table("### Limits") {
        let [name, value, file, ..] = &row[..] else {
            panic!("{row:?}");
        };
        let constant = format!("const {}: ", code(name));
        let source = read(code(file));
        let definition = source
            .split_once(&constant)
            .unwrap_or_else(|| panic!("{file} has no {name}"))
            .1;
        let defined = definition.split_once(" = ").unwrap().1.split(';').next().unwrap();
        let (number, unit) = value.split_once(' ').unwrap_or((value, ""));
        let number = number.replace(',', "");
        let documented = match unit {
            "s" => format!("Duration::from_secs({number})"),
            "ms" => format!("Duration::from_millis({number})"),
            "µs" => format!("Duration::from_micros({number})"),
            "KiB" => format!("{number} * 1024"),
            _ => number,
        };
        assert_eq!(defined.replace('_', ""), documented.replace('_', ""), "{name}");
    }
}
