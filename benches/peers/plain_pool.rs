//! The simplest server on tiny_http: 64 threads that each take a request, sleep and respond.

use std::sync::Arc;
use std::thread;

const THREADS: usize = 64;

/// Serves forever, without a delay, on a free port of 127.0.0.1.
pub fn run() {
    let server = Arc::new(tiny_http::Server::http("127.0.0.1:0").expect("a free port"));
    eprintln!("plain pool listening on {}, answering at once", server.server_addr());
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let server = Arc::clone(&server);
            thread::spawn(move || {
                while let Ok(request) = server.recv() {
                    let line = tiny_http::Response::from_string("answered after 0.000000 s\n");
                    // The client may have gone away.
                    let _ = request.respond(line);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("the thread serves forever");
    }
}
