//! What the pages and the comments of the sources name: files, tests, and what Cargo is told to run.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::commands::require;
use super::page::{Page, read};
use crate::layout::{entries, files_below};
use support::root;

/// How a path of the repository begins.
const FOLDERS: [&str; 6] = ["tests/", "src/", "benches/", "yaml/", "docs/", ".ci/"];

/// Where identifiers of the docs come from that are not tests.
const SOURCES: [&str; 6] = [
    "src",
    "tests/support",
    "benches",
    "yaml",
    "dashboard.json",
    "Cargo.toml",
];

/// Identifiers that are not from here.
const FOREIGN: [&str; 1] = ["container_cpu_cfs_throttled_periods_total"];

/// A text that names things.
struct Text {
    file: PathBuf,
    text: String,
}

/// A test in the sources.
struct Test {
    /// The suite, or `src` for a unit test.
    target: String,
    /// With its modules, as Cargo's filters see it.
    name: String,
    ignored: bool,
}

/// Returns the names of the suites: a folder with a `main.rs`, or one file.
pub fn suites() -> BTreeSet<String> {
    let (files, folders) = entries(&root().join("tests"));
    let files = files.iter().filter(|file| is_rust(file));
    let folders = folders.iter().filter(|folder| folder.join("main.rs").is_file());
    let stem = |path: &PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    files.chain(folders).map(stem).collect()
}

fn is_rust(file: &Path) -> bool {
    file.extension().is_some_and(|extension| extension == "rs")
}

/// Returns the Rust files of the sources, the tests and the benches.
fn rust_files() -> Vec<PathBuf> {
    let folders = ["src", "tests", "benches"].map(|folder| files_below(&root().join(folder)));
    folders.into_iter().flatten().filter(|file| is_rust(file)).collect()
}

/// Returns the pages and the comments of the sources.
fn texts() -> Vec<Text> {
    let pages = Page::all().into_iter().map(|page| Text {
        // Without the markers of what is generated.
        text: joined(read(&page.path).lines().filter(|line| !line.starts_with("<!--"))),
        file: page.path,
    });
    let comments = rust_files().into_iter().map(|file| {
        let text = read(&file);
        Text {
            text: joined(text.lines().filter(|line| line.trim_start().starts_with("//"))),
            file: file.strip_prefix(root()).unwrap().to_owned(),
        }
    });
    pages.chain(comments).collect()
}

fn joined<'a>(lines: impl Iterator<Item = &'a str>) -> String {
    lines.collect::<Vec<_>>().join("\n")
}

/// Returns the tests of a file, each with its modules and whether it is ignored. `modules` are those that the file is.
fn tests_in(text: &str, modules: &[&str]) -> Vec<(String, bool)> {
    let (mut tests, mut inner, mut ignored) = (Vec::new(), None, None);
    for line in text.lines() {
        if let Some(module) = line.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(" {")) {
            inner = Some(module);
        }
        let line = line.trim();
        if line == "#[test]" {
            ignored = Some(false);
        } else if line.starts_with("#[ignore") {
            ignored = ignored.map(|_| true);
        } else if let Some(rest) = line.strip_prefix("fn ")
            && let Some(ignored) = ignored.take()
        {
            let function = rest.split(['(', '<']).next().unwrap();
            let path: Vec<&str> = modules.iter().copied().chain(inner).chain([function]).collect();
            tests.push((path.join("::"), ignored));
        }
    }
    tests
}

/// Returns all tests: the unit tests and those of the suites.
fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for file in rust_files() {
        let path = file.strip_prefix(root()).unwrap().with_extension("");
        let mut modules: Vec<&str> = path.iter().map(|part| part.to_str().unwrap()).collect();
        let target = match modules.remove(0) {
            "tests" => modules.remove(0),
            folder => folder,
        };
        modules.retain(|module| !["main", "lib", "mod"].contains(module));
        tests.extend(
            tests_in(&read(&file), &modules)
                .into_iter()
                .map(|(name, ignored)| Test {
                    target: target.to_owned(),
                    name,
                    ignored,
                }),
        );
    }
    tests
}

/// Returns whether there is a file or a folder. A `*` stands for a part of its name.
fn exists(path: &str) -> bool {
    let Some((begin, end)) = path.split_once('*') else {
        return root().join(path).exists();
    };
    let (folder, begin) = begin.rsplit_once('/').unwrap();
    fs::read_dir(root().join(folder)).is_ok_and(|mut entries| {
        entries.any(|entry| {
            let name = entry.unwrap().file_name().into_string().unwrap();
            name.starts_with(begin) && name.ends_with(end)
        })
    })
}

/// Returns the paths of the repository in a text.
fn paths(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || "`|<>()[]{}'\",;:=#…".contains(c))
        .map(|word| word.trim_end_matches('.'))
        .filter(|word| FOLDERS.iter().any(|folder| word.starts_with(folder)))
}

#[test]
fn every_path_that_a_page_or_a_comment_names_exists() {
    let mut missing = Vec::new();
    for Text { file, text } in texts() {
        let paths = paths(&text).filter(|path| !exists(path));
        missing.extend(paths.map(|path| format!("{}: {path}", file.display())));
    }
    let files = rust_files();
    for page in Page::all() {
        let names = page.code().into_iter().filter(|code| {
            let is_name = code.ends_with(".rs") && !code.contains(['/', ' ', '*']);
            is_name && !files.iter().any(|file| file.ends_with(code))
        });
        missing.extend(names.map(|name| format!("{}: {name}", page.path.display())));
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_test_that_a_page_names_exists() {
    let tests = tests();
    let mut known: BTreeSet<String> = tests
        .iter()
        .map(|test| test.name.rsplit("::").next().unwrap().to_owned())
        .collect();
    assert!(known.len() > 100, "{known:?}");
    known.extend(FOREIGN.map(str::to_owned));
    for source in SOURCES.map(|source| root().join(source)) {
        let files = if source.is_dir() {
            files_below(&source)
        } else {
            vec![source]
        };
        for text in files.iter().filter_map(|file| fs::read_to_string(file).ok()) {
            let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            known.extend(words.filter(|word| word.contains('_')).map(str::to_owned));
        }
    }
    let is_identifier = |code: &str| {
        let mut characters = code.bytes();
        code.contains('_') && characters.all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_')
    };
    for page in Page::all() {
        let mut unknown = page.code();
        unknown.retain(|code| is_identifier(code) && !known.contains(code));
        assert!(
            unknown.is_empty(),
            "{}: neither a test nor in {SOURCES:?}: {unknown:?}",
            page.path.display()
        );
    }
}

#[test]
fn cargo_finds_what_pages_comments_and_scripts_tell_it_to_run() {
    let tests = tests();
    let scripts = ["tests/run", ".ci/run"].map(|script| Text {
        file: script.into(),
        // Those that are written out.
        text: joined(read(script).lines().filter(|line| !line.contains(['$', '*']))),
    });
    let mut wrong = Vec::new();
    for Text { file, text } in texts().into_iter().chain(scripts) {
        for line in text.lines() {
            let commands = ["cargo test ", "cargo bench "].map(|begin| line.match_indices(begin));
            for (place, _) in commands.into_iter().flatten() {
                let command = line[place..].split(['`', ';', '#']).next().unwrap().trim_end();
                if let Err(error) = finds_something(command, &tests) {
                    wrong.push(format!("{}: `{command}`: {error}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Checks that a `cargo test` or `cargo bench` has something to run: its target exists, and its filters match.
///
/// # Errors
///
/// Returns what does not.
fn finds_something(command: &str, tests: &[Test]) -> Result<(), String> {
    let mut words = command.split(' ').skip(1);
    let subcommand = words.next().unwrap();
    let (mut target, mut filters, mut ignored) = (None, Vec::new(), false);
    while let Some(word) = words.next() {
        match word {
            "--test" | "--bench" => target = words.next(),
            "--lib" => target = Some("src"),
            "--profile" => drop(words.next()),
            "--ignored" => ignored = true,
            word if word.starts_with('-') => {}
            filter => filters.push(filter),
        }
    }
    if subcommand == "bench" {
        let bench = format!("[[bench]]\nname = \"{}\"\n", target.ok_or("no bench")?);
        return require(
            read("benches/Cargo.toml").contains(&bench),
            "benches/Cargo.toml does not have it",
        );
    }
    let mut run = tests
        .iter()
        .filter(|test| target.is_none_or(|target| test.target == target) && test.ignored == ignored);
    let unmatched = filters
        .iter()
        .find(|filter| !run.clone().any(|test| test.name.contains(**filter)));
    require(
        unmatched.is_none(),
        format!("no test has {:?} in its name", unmatched.unwrap_or(&"")),
    )?;
    require(run.next().is_some(), "there is no such test")
}
