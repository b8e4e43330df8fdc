//! A page of the docs: its links, anchors, tables and blocks.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use support::root;

/// Reads a file by its path from the project's folder.
pub fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A page of Markdown.
pub struct Page {
    /// From the project's folder.
    pub path: PathBuf,
    /// The lines outside of blocks.
    pub prose: Vec<String>,
    pub blocks: Vec<Block>,
}

/// A fenced block.
pub struct Block {
    pub language: String,
    pub text: String,
}

impl Block {
    pub fn is_commands(&self) -> bool {
        ["sh", "console"].contains(&self.language.as_str())
    }
}

impl Page {
    pub fn read(path: impl Into<PathBuf>) -> Page {
        let path = path.into();
        let (mut prose, mut blocks) = (Vec::new(), Vec::new());
        let text = read(&path);
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let Some(language) = line.trim_start().strip_prefix("```") else {
                prose.push(line.to_owned());
                continue;
            };
            let indent = line.len() - line.trim_start().len();
            let block = lines.by_ref().take_while(|line| line.trim() != "```");
            blocks.push(Block {
                language: language.to_owned(),
                text: block
                    .map(|line| line.get(indent..).unwrap_or_default().to_owned() + "\n")
                    .collect(),
            });
        }
        Page { path, prose, blocks }
    }

    /// The README, the changelog and every page of docs/.
    pub fn all() -> Vec<Page> {
        let docs = fs::read_dir(root().join("docs")).unwrap();
        let mut paths: Vec<PathBuf> = docs
            .map(|entry| Path::new("docs").join(entry.unwrap().file_name()))
            .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
            .collect();
        paths.extend(["README.md", "CHANGELOG.md"].map(PathBuf::from));
        paths.sort();
        paths.into_iter().map(Page::read).collect()
    }

    /// Returns the pieces of inline code.
    pub fn code(&self) -> Vec<String> {
        let prose = self.prose.join("\n");
        prose
            .split('`')
            .skip(1)
            .step_by(2)
            .map(|code| code.replace('\n', " "))
            .collect()
    }

    /// Returns the targets of the links and pictures.
    pub fn links(&self) -> Vec<String> {
        let prose = self.prose.join("\n");
        let without_code: String = prose.split('`').step_by(2).collect();
        let targets = without_code.split("](").skip(1);
        targets.map(|rest| rest.split(')').next().unwrap().to_owned()).collect()
    }

    /// Returns the anchors of the headings as GitHub makes them: lower case, without punctuation, with a hyphen
    /// for each space, and a number behind a repeated one.
    pub fn anchors(&self) -> Vec<String> {
        let mut seen = HashMap::new();
        let headings = self.prose.iter().filter(|line| line.starts_with('#'));
        let anchors = headings.map(|line| {
            let heading = line.trim_start_matches('#').trim().to_lowercase();
            let anchor: String = heading
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect();
            let count = seen.entry(anchor.clone()).or_insert(0);
            *count += 1;
            match *count {
                1 => anchor,
                count => format!("{anchor}-{}", count - 1),
            }
        });
        anchors.collect()
    }

    /// Returns the rows of the table below a heading, without the head; each with its cells.
    pub fn table(&self, heading: &str) -> Vec<Vec<String>> {
        let below = self.prose.iter().skip_while(|line| *line != heading);
        let table = below
            .skip_while(|line| !line.starts_with('|'))
            .take_while(|line| line.starts_with('|'));
        table
            .skip(2)
            .map(|row| {
                row.trim_matches('|')
                    .split('|')
                    .map(|cell| cell.trim().to_owned())
                    .collect()
            })
            .collect()
    }
}
