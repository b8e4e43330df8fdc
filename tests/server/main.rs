//! The server as well-behaved clients and its operator see it.

mod clients;
mod concurrency;
mod drain;
mod endpoints;
mod flags;
mod http;
mod idle;
mod panics;
mod process;

use support::client::Client;
use support::server::Server;
use support::wait_for;

/// Returns clients that wait for their responses to `/`, each on its own connection, once the server has all requests.
fn waiting_clients(server: &Server, count: usize) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..count).map(|_| server.connect()).collect();
    for client in &mut clients {
        client.request("GET", "/", &[]);
    }
    // The scrape itself is in flight, too.
    wait_for(
        &format!("{count} requests to be in flight beside the scrape"),
        || server.metric("http_requests_in_flight"),
        |in_flight| *in_flight > Some(count as f64),
    );
    clients
}
