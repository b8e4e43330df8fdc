//! A headless Chromium, driven through tests/ui/drive.mjs.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::wait_for;

pub struct Browser {
    child: Child,
    /// Taken when the browser is to end.
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

/// What the page did since the last look.
pub struct Traffic {
    /// Errors and warnings in the console, and exceptions that nothing caught.
    pub complaints: Vec<String>,
    /// The address of every request.
    pub requests: Vec<String>,
}

impl Browser {
    /// Starts Chromium and opens a page.
    pub fn open(url: &str, options: Value) -> Browser {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/ui");
        assert!(
            folder.join("node_modules").is_dir(),
            "tests/ui has no node_modules: tests/run installs them"
        );
        let mut child = Command::new("node")
            .arg("drive.mjs")
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is installed");
        let commands = child.stdin.take();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut browser = Browser {
            child,
            commands,
            answers,
        };
        let mut command = options;
        command["url"] = json!(url);
        browser.call("open", command);
        browser
    }

    fn call(&mut self, name: &str, mut command: Value) -> Value {
        command["command"] = json!(name);
        let commands = self.commands.as_mut().expect("the browser is open");
        writeln!(commands, "{command}").expect("the driver reads");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the driver answers");
        let mut answer: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("{name}: {line:?}"));
        assert!(answer.get("error").is_none(), "{command}: {}", answer["error"]);
        answer["value"].take()
    }

    /// The value of an expression in the page.
    pub fn evaluate(&mut self, script: &str) -> Value {
        self.call("evaluate", json!({ "script": script }))
    }

    /// A text in the page.
    pub fn text(&mut self, selector: &str) -> String {
        let script = format!("document.querySelector({}).textContent", json!(selector));
        self.evaluate(&script).as_str().expect("a text").to_owned()
    }

    /// Waits until an expression in the page is true.
    pub fn wait_until(&mut self, script: &str, within: Duration) {
        wait_for(script, within, || (self.evaluate(script) == true).then_some(()));
    }

    pub fn press(&mut self, key: &str) {
        self.call("press", json!({ "key": key }));
    }

    pub fn look(&mut self, scheme: &str, width: u32, height: u32) {
        self.call("look", json!({ "scheme": scheme }));
        self.call("size", json!({ "width": width, "height": height }));
        // The page draws anew when its size or its colours change, at the latest with the next poll.
        self.wait_until(
            "new Promise((done) => setTimeout(() => done(true), 1200))",
            Duration::from_secs(5),
        );
    }

    /// Writes a PNG of the whole page.
    pub fn picture(&mut self, path: &Path) -> PathBuf {
        self.call("picture", json!({ "path": path }));
        path.to_owned()
    }

    /// Faults against WCAG 2.2 that axe-core finds in the page as it stands.
    pub fn accessibility_faults(&mut self) -> Vec<String> {
        strings(&self.call("axe", json!({})))
    }

    pub fn traffic(&mut self) -> Traffic {
        let seen = self.call("seen", json!({}));
        Traffic {
            complaints: strings(&seen["complaints"]),
            requests: strings(&seen["requests"]),
        }
    }
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|one| one.as_str().unwrap().to_owned())
        .collect()
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver closes the browser when its input ends; only a driver that hangs is killed.
        drop(self.commands.take());
        for _ in 0..100 {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
