//! A headless Chromium, driven through tests/dashboard/live_page/drive.mjs.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use support::{PATIENCE, root, wait_for};

/// How long to wait before another look at the page, which costs the page processor time.
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

pub struct Browser {
    child: Child,
    /// Taken when the browser is to end.
    commands: Option<ChildStdin>,
    answers: Receiver<String>,
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
        let folder = root().join("tests/dashboard/live_page");
        assert!(
            folder.join("node_modules").is_dir(),
            "tests/dashboard/live_page has no node_modules: tests/run installs them"
        );
        let mut child = Command::new("node")
            .arg("drive.mjs")
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is installed");
        let commands = child.stdin.take();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (answer, answers) = channel();
        thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| answer.send(line)));
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
        let line = self.answers.recv_timeout(PATIENCE);
        let line = line.unwrap_or_else(|error| panic!("the driver does not answer {command}: {error}"));
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

    /// Blocks until the value of an expression in the page is as wanted, and returns it.
    pub fn wait_for(&mut self, script: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        wait_for(
            script,
            || {
                thread::sleep(BETWEEN_LOOKS);
                self.evaluate(script)
            },
            wanted,
        )
    }

    /// Blocks until the page has drawn anew what it polled from now on.
    pub fn wait_for_drawing(&mut self) {
        let now = self.evaluate("performance.now()").as_f64();
        self.wait_for("page.answeredAtMs", |at| at.as_f64() > now);
    }

    pub fn press(&mut self, key: &str) {
        self.call("press", json!({ "key": key }));
    }

    /// Shows the live page in a colour scheme and a size.
    pub fn look(&mut self, scheme: &str, width: u32, height: u32) {
        self.call("look", json!({ "scheme": scheme }));
        self.call("size", json!({ "width": width, "height": height }));
        self.wait_for_drawing();
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
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(BETWEEN_LOOKS);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
