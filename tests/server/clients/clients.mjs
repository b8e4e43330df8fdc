// Sends requests with one of Node's HTTP clients: clients.mjs CLIENT URL COUNT. Fails on any error and any status other
// than 200.
import http from "node:http";

const PARALLEL = 10;

function check(status, line) {
  if (status !== 200 || !line.startsWith("answered after ")) {
    throw new Error(`${status}: ${line}`);
  }
}

const agent = new http.Agent({ keepAlive: true, maxSockets: PARALLEL });

const clients = {
  http: (url) =>
    new Promise((resolve, reject) => {
      const request = http.get(url, { agent }, (response) => {
        let line = "";
        response.setEncoding("utf8");
        response.on("data", (chunk) => (line += chunk));
        response.on("end", () => resolve([response.statusCode, line]));
        response.on("error", reject);
      });
      request.on("error", reject);
    }),
  // undici
  fetch: async (url) => {
    const response = await fetch(url);
    return [response.status, await response.text()];
  },
};

const [client, url, count] = process.argv.slice(2);

async function requests(count) {
  for (let number = 0; number < count; number++) {
    check(...(await clients[client](url)));
  }
}

await Promise.all(Array.from({ length: PARALLEL }, () => requests(count / PARALLEL)));
agent.destroy();
