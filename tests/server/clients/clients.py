"""Sends requests with one of Python's HTTP clients: clients.py CLIENT URL COUNT.

Fails on any error and any status other than 200.
"""

import asyncio
import http.client
import sys
from urllib.parse import urlsplit

PARALLEL = 10

# Seconds. On a busy machine, a response may be late.
TIMEOUT = 60


def check(status, line):
    if status != 200 or not line.startswith("answered after "):
        sys.exit(f"{status}: {line!r}")


def with_http_client(url, count):
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT)
    for _ in range(count):
        connection.request("GET", parts.path)
        response = connection.getresponse()
        check(response.status, response.read().decode())


def with_requests(url, count):
    import requests

    with requests.Session() as session:
        session.trust_env = False
        for _ in range(count):
            response = session.get(url, timeout=TIMEOUT)
            check(response.status_code, response.text)


def with_httpx(url, count):
    import httpx

    with httpx.Client(trust_env=False, timeout=TIMEOUT) as client:
        for _ in range(count):
            response = client.get(url)
            check(response.status_code, response.text)


def with_aiohttp(url, count):
    import aiohttp

    async def requests(session, count):
        for _ in range(count):
            async with session.get(url) as response:
                check(response.status, await response.text())

    async def main():
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT)) as session:
            await asyncio.gather(*(requests(session, count // PARALLEL) for _ in range(PARALLEL)))

    asyncio.run(main())


CLIENTS = {
    "http.client": with_http_client,
    "requests": with_requests,
    "httpx": with_httpx,
    "aiohttp": with_aiohttp,
}

client, url, count = sys.argv[1:]
CLIENTS[client](url, int(count))
