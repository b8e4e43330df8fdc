//! The commands of the docs: what becomes of each in the test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::page::{Block, read};
use support::prometheus::Major;
use support::server::{Server, binary};
use support::{manifest, root};

/// What is done with a command.
enum Handler {
    /// It is run, beside a server without flags.
    Run,
    /// The server starts with its flags. A build of its own would take minutes, so the binary is this test's.
    Starts,
    /// `names.rs` checks that it has something to run.
    Cargo,
    /// The script exists and knows the arguments.
    Script,
    /// That test does the same: it has each of the flags.
    TestedBy(&'static str),
    /// The test of Compose has each of the flags, there are such services, and the server starts with the variables.
    Compose,
    /// The server starts with the variables.
    Variables,
    /// It makes another manifest of a file, which is not applied.
    Edits,
    /// What it would send to a cluster is made here.
    DryRun,
    /// `tests/cluster` runs it word for word, or the files exist that it applies, each of which `tests/deploy/manifests`
    /// validates.
    Cluster,
}

/// The handlers, by how a command begins. The first that fits is taken.
const HANDLERS: [(&str, Handler); 19] = [
    ("cargo run --release", Handler::Starts),
    ("cargo test ", Handler::Cargo),
    ("cargo bench ", Handler::Cargo),
    ("curl ", Handler::Run),
    ("for ", Handler::Run),
    ("(printf ", Handler::Run),
    (
        "promtool test rules ",
        Handler::TestedBy("tests/dashboard/rules/mod.rs"),
    ),
    ("promtool ", Handler::Run),
    ("tests/run", Handler::Script),
    ("tests/cluster/run", Handler::Script),
    ("podman build ", Handler::TestedBy("tests/deploy/image/build")),
    ("podman run ", Handler::TestedBy("tests/deploy/image/container.rs")),
    ("docker compose ", Handler::Compose),
    ("sed -i ", Handler::TestedBy("tests/dashboard/rules/mod.rs")),
    ("sed ", Handler::Edits),
    ("kubectl set env deployment/httpserver ", Handler::Variables),
    ("kubectl -n monitoring create ", Handler::DryRun),
    ("kubectl apply -k ", Handler::DryRun),
    ("kubectl ", Handler::Cluster),
];

/// Commands that are not run, by how they begin, and why.
const NOT_RUN: [(&str, &str); 19] = [
    (
        "(ulimit -n 400; ",
        "tests/hostile starts a server with as few descriptors",
    ),
    ("kubectl annotate pods ", "tests/cluster keeps its targets up"),
    (
        "kubectl scale deployment/httpserver --replicas=8",
        "tests/cluster scales to 4",
    ),
    ("helm ", "charts are on the internet"),
    ("kind ", "needs a cluster of kind"),
    ("minikube ", "needs a cluster of minikube"),
    ("sudo k3s ", "needs a cluster of k3s"),
    ("podman save ", "only to be loaded into one of those"),
    ("curl http://localhost:8080/", "behind kubectl port-forward"),
    ("kubectl port-forward ", "lasts until it is interrupted"),
    ("kubectl -n monitoring port-forward ", "lasts until it is interrupted"),
    ("kubectl rollout status ", "tests/cluster does it, with a timeout"),
    (
        "kubectl -n monitoring rollout status deployment/grafana",
        "Grafana's image cannot be pulled in tests",
    ),
    (
        "kubectl -n monitoring get secret grafana-admin",
        "Grafana's image cannot be pulled in tests",
    ),
    (
        "kubectl -n monitoring rollout restart ",
        "tests/cluster does not change rules",
    ),
    ("kubectl -n loki-stack ", "needs the chart's release"),
    ("kubectl get nodes ", "needs the chart's release"),
    ("kubectl -n kube-prometheus-stack ", "needs the chart's release"),
    ("kubectl get --raw ", "needs prometheus-adapter"),
];

/// Flags that the tests do not need, since they have the host's network and remove containers themselves.
const FLAGS_OF_PEOPLE: [&str; 2] = ["--rm", "--publish"];

/// Returns the commands of a block: without comments, continued lines joined.
pub fn commands(block: &Block) -> Vec<String> {
    let joined: String = block.text.split("\\\n").map(str::trim_start).collect();
    let commands = joined.lines().map(|line| line.split("    #").next().unwrap().trim());
    commands
        .filter(|command| !command.is_empty() && !command.starts_with('#'))
        .map(str::to_owned)
        .collect()
}

/// What the commands of all pages are run in.
pub struct Surroundings {
    /// Listens on its default port, in a network of its own.
    server: Server,
    /// Has the package's files, so that commands may write beside them.
    folder: PathBuf,
    not_run: [bool; NOT_RUN.len()],
}

impl Surroundings {
    pub fn new() -> Surroundings {
        let mut command = Command::new("unshare");
        let script = "ip link set lo up && exec \"$0\"";
        command.args(["--net", "sh", "-c", script]).arg(binary());
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("docs");
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        for entry in fs::read_dir(root()).unwrap() {
            let name = entry.unwrap().file_name();
            std::os::unix::fs::symlink(root().join(&name), folder.join(&name)).unwrap();
        }
        Surroundings {
            server: Server::spawn(command),
            folder,
            not_run: [false; NOT_RUN.len()],
        }
    }

    /// Does with a command what its handler says.
    ///
    /// # Errors
    ///
    /// Returns what is wrong.
    pub fn check(&mut self, command: &str) -> Result<(), String> {
        if let Some(place) = NOT_RUN.iter().position(|(begin, _)| command.starts_with(begin)) {
            self.not_run[place] = true;
            return Ok(());
        }
        // Variables in front of it are for the command's program.
        let mut rest = command;
        while let Some((word, after)) = rest.split_once(' ')
            && word
                .split_once('=')
                .is_some_and(|(name, _)| name.bytes().all(|c| c.is_ascii_uppercase() || c == b'_'))
        {
            rest = match word.contains('"') {
                true => after.split_once("\" ").ok_or("a quotation mark is missing")?.1,
                false => after,
            };
        }
        let handler = HANDLERS.iter().find(|(begin, _)| rest.starts_with(begin));
        match &handler
            .ok_or("no handler knows it; add one to tests/repository/docs/commands.rs")?
            .1
        {
            Handler::Run => self.run(command),
            Handler::Starts => {
                let flags = rest.split(' ').skip_while(|word| *word != "--").skip(1);
                drop(Server::start(&flags.collect::<Vec<_>>()));
                Ok(())
            }
            Handler::Cargo => Ok(()),
            Handler::Script => script_knows(rest),
            Handler::TestedBy(test) => has_each_flag(rest, test),
            Handler::Compose => works_with_compose(command, rest),
            Handler::Variables => starts_with_variables(rest),
            Handler::Edits => self.edits(rest),
            Handler::DryRun => self.dry_run(rest),
            Handler::Cluster => is_run_in_cluster(rest),
        }
    }

    /// Returns the entries of the list of what is not run that no page has.
    pub fn unused(&self) -> Vec<&'static str> {
        let unused = NOT_RUN.iter().zip(self.not_run).filter(|(_, used)| !used);
        unused.map(|((begin, _), _)| *begin).collect()
    }

    fn run(&self, command: &str) -> Result<(), String> {
        let promtool = Major::Three.promtool();
        let tools = Path::new(promtool.get_program()).parent().unwrap().display();
        let output = Command::new("nsenter")
            .arg(format!("--net=/proc/{}/ns/net", self.server.pid()))
            .args(["bash", "-euo", "pipefail", "-c", command])
            .env("PATH", format!("{tools}:{}", std::env::var("PATH").unwrap()))
            .current_dir(&self.folder)
            .output()
            .expect("nsenter starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        output
            .status
            .success()
            .then_some(())
            .ok_or_else(|| format!("{}: {errors}", output.status))
    }

    /// Returns an error unless the edit changes the file that it names, and leaves YAML.
    fn edits(&self, command: &str) -> Result<(), String> {
        let (edit, _) = command.split_once(" | kubectl ").ok_or("nothing is done with it")?;
        self.run(&format!("{edit} > edited.yaml"))?;
        let edited = fs::read_to_string(self.folder.join("edited.yaml")).map_err(|error| error.to_string())?;
        let file = edit.rsplit(' ').next().unwrap();
        require(edited != read(file), format!("{file} has nothing of that"))?;
        manifest::parse(&edited);
        Ok(())
    }

    fn dry_run(&self, command: &str) -> Result<(), String> {
        self.run(&match command.strip_prefix("kubectl apply -k ") {
            Some(folder) => format!("kubectl kustomize {folder}"),
            None => {
                let creation = command.split(" | ").next().unwrap();
                format!(
                    "{} --dry-run=client -o yaml",
                    creation.replace(" --dry-run=client -o yaml", "")
                )
            }
        })
    }
}

/// Returns an error unless the server starts with the variables among the words of a command. It ignores those that it does
/// not know, so Compose has to pass them through.
fn starts_with_variables(command: &str) -> Result<(), String> {
    let passed = read("yaml/compose/compose.yaml");
    let mut server = support::server::command(&["--listen", "127.0.0.1:0"]);
    for (name, value) in command.split(' ').filter_map(|word| word.split_once('=')) {
        require(
            passed.contains(&format!("- {name}\n")),
            format!("there is no variable {name}"),
        )?;
        server.env(name, value);
    }
    drop(Server::spawn(server));
    Ok(())
}

fn works_with_compose(command: &str, without_variables: &str) -> Result<(), String> {
    has_each_flag(without_variables, "tests/deploy/image/compose.rs")?;
    let compose = read("yaml/compose/compose.yaml");
    let words = without_variables
        .split(' ')
        .skip_while(|word| !["stop", "start"].contains(word));
    let unknown = words
        .skip(1)
        .find(|service| !compose.contains(&format!("\n  {service}:\n")));
    require(unknown.is_none(), format!("Compose has no service {unknown:?}"))?;
    starts_with_variables(command.strip_suffix(without_variables).unwrap())
}

/// Returns an error unless `fact` holds.
pub fn require(fact: bool, wrong: impl Into<String>) -> Result<(), String> {
    fact.then_some(()).ok_or_else(|| wrong.into())
}

fn script_knows(command: &str) -> Result<(), String> {
    let mut words = command.split(' ');
    let script = words.next().unwrap();
    let mode = fs::metadata(root().join(script))
        .map_err(|error| error.to_string())?
        .permissions()
        .mode();
    require(mode & 0o111 != 0, format!("{script} cannot be executed"))?;
    let known = match script {
        "tests/cluster/run" => read("tests/cluster/main.py"),
        _ => read(script),
    };
    let known: Vec<&str> = known.split(|c: char| !(c.is_alphanumeric() || c == '-')).collect();
    // The other script's options have values.
    let unknown = words.find(|word| (word.starts_with("--") || script == "tests/run") && !known.contains(word));
    require(unknown.is_none(), format!("{script} does not know {unknown:?}"))
}

fn has_each_flag(command: &str, test: &str) -> Result<(), String> {
    let test_text = read(test);
    let flags = command
        .split(' ')
        .filter(|word| word.starts_with("--") && !FLAGS_OF_PEOPLE.contains(word));
    let missing: Vec<&str> = flags.filter(|flag| !test_text.contains(*flag)).collect();
    require(missing.is_empty(), format!("{test} does not have {missing:?}"))
}

fn is_run_in_cluster(command: &str) -> Result<(), String> {
    if read("tests/cluster/steps.py").contains(&format!("\"{command}\"")) {
        return Ok(());
    }
    let files = ["kubectl apply -f ", "kubectl replace --force -f "]
        .iter()
        .find_map(|begin| command.strip_prefix(begin))
        .ok_or("tests/cluster does not run it")?;
    let missing: Vec<&str> = files.split(" -f ").filter(|file| !root().join(file).exists()).collect();
    require(missing.is_empty(), format!("there is no {missing:?}"))
}
