//! The image: built from the unchanged Containerfile, inspected, and run as in a cluster.

mod compose;
mod container;
mod network;
mod pod;
mod podman;

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use container::Container;
use podman::{IMAGE, Podman, stdout};
use serde_json::Value;
use support::client::Client;
use support::prometheus::free_address;
use support::server::value_of;
use support::{PATIENCE, root, wait_for};

/// The series that counts the delayed requests that were answered.
const ANSWERED: &str = r#"http_request_duration_seconds_count{method="GET",path="/",status="200"}"#;

/// Prints a figure for the documentation, bypassing the test harness, which hides the output of a test that passes.
fn report(figure: &str) {
    let line = format!("\nfigure: {figure}\n");
    std::io::stderr().write_all(line.as_bytes()).unwrap();
}

#[test]
fn hadolint_finds_nothing_in_the_containerfile() {
    let hadolint = root().join(".tools/venv/bin/hadolint");
    let findings = stdout(Command::new(hadolint).arg(root().join("Containerfile")));
    assert_eq!(findings, "");
}

/// The other suites start it meanwhile.
#[test]
fn the_binary_starts_at_any_time_while_the_image_is_built_again() {
    let podman = Podman::with_image();
    thread::scope(|scope| {
        let build = scope.spawn(podman::build);
        while !build.is_finished() {
            let started = Command::new(&podman.binary)
                .arg("--version")
                .stdout(Stdio::null())
                .status();
            assert!(started.expect("the binary starts").success());
        }
        assert_eq!(build.join().unwrap(), podman.binary);
    });
}

#[test]
fn the_image_has_only_the_binary_and_at_most_3_mib() {
    let podman = Podman::with_image();
    let mounted = PathBuf::from(podman.run(&["image", "mount", IMAGE]).trim());
    let files: Vec<PathBuf> = fs::read_dir(&mounted)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    let metadata = fs::metadata(mounted.join("httpserver")).unwrap();
    podman.run(&["image", "unmount", IMAGE]);
    assert_eq!(files, [mounted.join("httpserver")]);
    assert!(metadata.is_file());
    assert_eq!(metadata.permissions().mode() & 0o111, 0o111, "any user may execute it");

    let size_bytes: u64 = podman
        .run(&["image", "inspect", "--format={{.Size}}", IMAGE])
        .trim()
        .parse()
        .unwrap();
    assert!(size_bytes <= 3 << 20, "{size_bytes} bytes");
    report(&format!(
        "image {:.2} MiB, its binary {:.2} MiB",
        size_bytes as f64 / f64::from(1 << 20),
        metadata.len() as f64 / f64::from(1 << 20)
    ));
}

#[test]
fn the_image_has_labels_a_user_an_entrypoint_and_a_stop_signal() {
    let podman = Podman::with_image();
    let inspected: Value = serde_json::from_str(&podman.run(&["image", "inspect", IMAGE])).unwrap();
    let config = &inspected[0]["Config"];
    assert_eq!(config["User"], "65532:65532");
    assert_eq!(config["Entrypoint"], serde_json::json!(["/httpserver"]));
    assert_eq!(config["Cmd"], Value::Null);
    assert_eq!(config["ExposedPorts"], serde_json::json!({"19004/tcp": {}}));
    assert_eq!(config["StopSignal"], "SIGTERM");
    let label = |name: &str| &config["Labels"][format!("org.opencontainers.image.{name}")];
    assert_eq!(label("title"), env!("CARGO_PKG_NAME"));
    assert_eq!(label("description"), env!("CARGO_PKG_DESCRIPTION"));
    assert_eq!(label("version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(label("licenses"), env!("CARGO_PKG_LICENSE"));
    assert_eq!(label("source"), "https://example.com/its/sources");
}

#[test]
fn the_binary_needs_no_interpreter_and_no_shared_library() {
    let binary = &Podman::with_image().binary;
    let file = stdout(Command::new("file").arg("--brief").arg(binary));
    assert!(
        file.contains("static-pie linked") || file.contains("statically linked"),
        "{file}"
    );
    assert!(!file.contains("interpreter"), "{file}");
    let ldd = Command::new("ldd").arg(binary).output().unwrap();
    let ldd = String::from_utf8([ldd.stdout, ldd.stderr].concat()).unwrap();
    assert!(
        ldd.contains("statically linked") || ldd.contains("not a dynamic executable"),
        "{ldd}"
    );
    let segments = stdout(
        Command::new("readelf")
            .args(["--wide", "--program-headers", "--dynamic"])
            .arg(binary),
    );
    assert!(!segments.contains("INTERP"), "{segments}");
    assert!(!segments.contains("(NEEDED)"), "{segments}");
}

#[test]
fn the_container_serves_unprivileged_read_only_and_within_a_memory_limit() {
    let server = Container::run(Podman::with_image(), "confined", &[]);
    assert_eq!(
        server.status("Uid").split_whitespace().collect::<Vec<_>>(),
        ["65532"; 4]
    );
    assert_eq!(
        server.status("Gid").split_whitespace().collect::<Vec<_>>(),
        ["65532"; 4]
    );
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(u64::from_str_radix(&server.status(set), 16), Ok(0), "{set}");
    }
    assert_eq!(server.status("NoNewPrivs"), "1");
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", server.pid)).unwrap();
    let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
    assert!(
        root.split(' ').nth(5).unwrap().split(',').any(|option| option == "ro"),
        "{root}"
    );
    assert_eq!(memory_limit_bytes(server.pid), Some(512 << 20));

    for path in ["/healthz", "/readyz", "/?delay=0s", "/metrics", "/ui"] {
        let response = server.get(path);
        assert_eq!(response.status, 200, "{path}: {}", response.text());
    }
    let exposition = server.get("/metrics").text();
    assert_eq!(value_of(&exposition, ANSWERED), Some(1.0));
    report(&format!("memory when idle {}", server.status("VmRSS")));
}

#[test]
fn the_container_serves_as_any_user_that_a_platform_assigns() {
    let server = Container::run_as("1000660000:0", Podman::with_image(), "any-user");
    assert_eq!(server.status("Uid").split_whitespace().next(), Some("1000660000"));
    assert_eq!(server.status("Gid").split_whitespace().next(), Some("0"));
    assert_eq!(server.status("CapBnd"), "0000000000000000");
    for path in ["/healthz", "/readyz", "/?delay=0s", "/metrics", "/ui"] {
        assert_eq!(server.get(path).status, 200, "{path}");
    }
    Podman::with_image().run(&["stop", &server.name]);
    assert_eq!(server.inspect()["State"]["ExitCode"], 0);
}

/// Returns the memory limit of the process's control group, or `None` if the machine has no memory controller.
fn memory_limit_bytes(pid: u32) -> Option<u64> {
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    groups.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let file = match controllers {
            "memory" => format!("/sys/fs/cgroup/memory{path}/memory.limit_in_bytes"),
            "" => format!("/sys/fs/cgroup{path}/memory.max"),
            _ => return None,
        };
        fs::read_to_string(file).ok()?.trim().parse().ok()
    })
}

#[test]
fn podman_stop_answers_every_request_in_flight_within_3_s() {
    const REQUESTS: usize = 200;
    let podman = Podman::with_image();
    let server = Container::run(podman, "stopped", &[]);
    let idle = Container::run(podman, "stopped-idle", &[]);
    let address = server.address;
    // Connections take the longest on a busy machine, and the requests must wait at the same time.
    let mut clients: Vec<Client> = (0..REQUESTS).map(|_| Client::connect(address)).collect();
    for client in &mut clients {
        client.request("GET", "/?delay=1500ms", &[]);
    }
    wait_for(
        "the requests to arrive",
        || {
            let exposition = server.get("/metrics").text();
            let values = ["http_requests_in_flight", ANSWERED].map(|series| value_of(&exposition, series));
            values.map(|value| value.expect("the series exists from the start"))
        },
        // The scrape is in flight, too.
        |[in_flight, answered]| in_flight + answered > REQUESTS as f64,
    );

    let stop = |container: &Container| {
        let begin = Instant::now();
        podman.run(&["stop", &container.name]);
        begin.elapsed()
    };
    let took = stop(&server);
    // What podman takes by itself, in the same seconds.
    let idle = stop(&idle);

    for client in &mut clients {
        let response = client.receive().expect("a response");
        assert_eq!(response.status, 200, "{}", response.text());
    }
    assert_eq!(server.inspect()["State"]["ExitCode"], 0);
    assert!(
        took < Duration::from_secs(3) + idle,
        "{took:?}, and {idle:?} without requests"
    );
    report(&format!(
        "podman stop with {REQUESTS} requests in flight {:.2} s",
        took.as_secs_f64()
    ));
}

#[test]
fn a_container_whose_connections_are_stuck_is_restarted_by_its_health_check_and_loses_no_request() {
    const STUCK: &str = "httpserver_connections_stuck";
    let podman = Podman::with_image();
    let address = free_address();
    // The image has no client, so the health check uses this machine's.
    let check = format!("--health-cmd=[\"/usr/bin/curl\", \"--fail\", \"http://{address}/healthz\"]");
    let flags = [
        "--ulimit=nofile=400:400",
        // podman's own default is more than some machines allow.
        "--ulimit=nproc=32768:32768",
        "--volume=/usr:/usr:ro",
        "--volume=/usr/lib:/lib:ro",
        "--volume=/usr/lib64:/lib64:ro",
        &check,
        // There is no systemd to run it.
        "--health-interval=disable",
        "--health-retries=1",
        "--health-on-failure=restart",
    ];
    let server = Container::run_with(podman, "stuck", address, &flags, &[]);
    let is_healthy = || {
        let mut check = podman.command();
        check.args(["healthcheck", "run", &server.name]);
        check.output().unwrap().status.success()
    };
    assert!(is_healthy());
    let started = |exposition: &str| value_of(exposition, "httpserver_start_time_seconds");
    let before = started(&server.get("/metrics").text());
    let mut stuck: Vec<Client> = (0..60).map(|_| Client::connect(address)).collect();
    for client in &mut stuck {
        client.request("POST", "/", &[("Content-Length", "99999999999999")]);
    }
    wait_for(
        "more than a quarter of the descriptors to be held",
        || value_of(&server.get("/metrics").text(), STUCK),
        |stuck| *stuck == Some(60.0),
    );
    let mut waiting = Client::connect(address);
    waiting.request("GET", "/?delay=2s", &[]);
    wait_for(
        "the request to arrive",
        || value_of(&server.get("/metrics").text(), "http_requests_in_flight"),
        |in_flight| *in_flight == Some(2.0),
    );
    thread::scope(|scope| {
        // podman stops the container within the health check.
        let check = scope.spawn(is_healthy);
        assert_eq!(waiting.receive().expect("a response").status, 200);
        assert!(!check.join().unwrap());
    });
    let after = wait_for(
        "the container to be restarted",
        || {
            let mut client = TcpStream::connect(address).ok()?;
            client.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").ok()?;
            std::io::read_to_string(client).ok()
        },
        |exposition| {
            exposition
                .as_deref()
                .and_then(started)
                .is_some_and(|at| Some(at) != before)
        },
    );
    assert_eq!(value_of(&after.unwrap(), STUCK), Some(0.0));
    assert!(is_healthy());
}

#[test]
fn the_binary_responds_within_a_second_of_its_start() {
    const STARTS: usize = 11;
    let binary = &Podman::with_image().binary;
    let mut took: Vec<Duration> = (0..STARTS)
        .map(|_| {
            // A fixed port that was free a moment ago, since reading the port from the start line takes time.
            let address = free_address();
            let begin = Instant::now();
            let mut server = Command::new(binary)
                .args(["--listen", &address.to_string()])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            while TcpStream::connect(address).is_err() {
                assert!(begin.elapsed() < PATIENCE, "it does not listen");
                thread::sleep(Duration::from_micros(200));
            }
            assert_eq!(Client::connect(address).get("/healthz").status, 200);
            let took = begin.elapsed();
            server.kill().unwrap();
            server.wait().unwrap();
            took
        })
        .collect();
    took.sort();
    assert!(took[STARTS / 2] < Duration::from_secs(1), "{took:?}");
    report(&format!(
        "start to first response {:.1} ms (median of {STARTS})",
        took[STARTS / 2].as_secs_f64() * 1e3
    ));
}
