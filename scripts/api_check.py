#!/usr/bin/env python3
"""Every status that docs/openapi.json has of a call is brought about here, or in the reports of Schemathesis, or is in NEVER with the
reason; an answer that it does not have fails. Arguments: the program (with the feature `faults`), a folder to work in, and
which part: `schemathesis` prints the address of a bridge to be fuzzed and waits for its input to end; `states` does the rest."""
import collections
import glob
import http.client
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time

WRITER, READER, WEBHOOK = "a-writers-token-of-the-check", "a-readers-token-of-the-check", "a-webhooks-token-of-the-check"
JSON, LINES, PATCH = "application/json", "application/x-ndjson", "application/merge-patch+json"
PATIENCE = 300
# What no request from outside brings about.
NEVER = {("reload", "409"): "only the bridge inside `fleetbus demo` was not started from a file"}

described = json.load(open("docs/openapi.json"))
CALLS = {}
for path, item in described["paths"].items():
    for method, call in item.items():
        if isinstance(call, dict) and "responses" in call:
            CALLS[call["operationId"]] = (method.upper(), path, call)
seen = collections.defaultdict(set)
wrong = []


class Bridge:
    """A running bridge: its ports, and how it is asked."""

    def __init__(self, program, folder, admin, rest):
        os.makedirs(folder)
        self.config = f"{folder}/fleetbus.yaml"
        self.text = f"""listen: {{ address: 127.0.0.1:0 }}
admin: {{ address: 127.0.0.1:0{admin} }}
data_dir: {folder}/data
custom_data: {{ memory: 1MiB }}
accounts:
  - id: acme
    provider: linxup
    webhook: {{ token: {{ env: CHECK_WEBHOOK }} }}
    poll: [{{ api: v2, base_url: "http://127.0.0.1:9", token: {{ env: CHECK_WEBHOOK }}, feeds: {{ trips: 1h, trackers: 1h }} }}]
  - id: other
    provider: linxup
    webhook: {{ token: {{ env: CHECK_WEBHOOK }} }}
    poll: [{{ api: v2, base_url: "http://127.0.0.1:9", token: {{ env: CHECK_WEBHOOK }}, feeds: {{ trips: 1h }} }}]
{rest}
"""
        self.write(self.text)
        self.failing = f"{folder}/store-fails"
        variables = {"CHECK_WRITER": WRITER, "CHECK_READER": READER, "CHECK_WEBHOOK": WEBHOOK, "FLEETBUS_STORE_FAILS": self.failing}
        self.log = f"{folder}/log"
        self.process = subprocess.Popen(
            [program, "run", "--config", self.config], stderr=open(self.log, "w"), env={**os.environ, **variables}
        )
        self.admin, self.webhook = self.port("admin.listening"), self.port("webhook.listening")

    def write(self, text):
        with open(self.config, "w") as file:
            file.write(text)

    def port(self, event):
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and self.process.poll() is None:
            for line in open(self.log):
                if f'"message":"{event}"' in line:
                    return int(json.loads(line)["address"].rsplit(":", 1)[1])
            time.sleep(0.05)
        sys.exit(f"the bridge did not start:\n{open(self.log).read()}")

    def push(self, body):
        connection = http.client.HTTPConnection("127.0.0.1", self.webhook, timeout=PATIENCE)
        connection.request("POST", "/webhooks/acme", json.dumps(body), {"authorization": f"Bearer {WEBHOOK}"})
        answer = connection.getresponse()
        assert answer.status == 201, answer.read()

    def ask(self, call, path=None, body=None, kind=JSON, token=WRITER, headers=(), source="127.0.0.1", read=True):
        """One request; its status counts as seen. Not read, the answer stays open and is returned with its connection."""
        method, plain, _ = CALLS[call]
        headers = {**({"authorization": f"Bearer {token}"} if token else {}), **dict(headers)}
        if kind and method != "GET":
            headers["content-type"] = kind
        body = json.dumps(body) if isinstance(body, (dict, list)) else body
        connection = http.client.HTTPConnection("127.0.0.1", self.admin, timeout=PATIENCE, source_address=(source, 0))
        if not read:
            connection.connect()
            connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        try:
            connection.request(method, path or plain, body, headers)
        except OSError:
            pass  # A body that is too large is answered before all of it was sent.
        try:
            answer = connection.getresponse()
        except OSError as error:
            wrong.append(f"{call} {path or plain}: {error!r} instead of an answer")
            return 0, {}
        note(call, answer.status, answer.getheader("content-type") or "")
        if not read:
            return answer.status, (connection, answer)
        text = answer.read()
        connection.close()
        try:
            return answer.status, json.loads(text)
        except ValueError:
            return answer.status, text

    def stop(self):
        self.process.kill()
        self.process.wait()


def note(call, status, kind):
    seen[call].add(str(status))
    if str(status) not in CALLS[call][2]["responses"]:
        wrong.append(f"{call} answered {status}, which is not described")
    if status >= 400 and not kind.startswith("application/problem+json"):
        wrong.append(f"{call} answered {status} as {kind!r}, not as a problem")


def expect(what, got, *expected):
    if got not in expected:
        wrong.append(f"{what}: {got} instead of {' or '.join(map(str, expected))}")


OBJECT = "/v1/accounts/acme/custom-data/tracker/350000000000017"
FEED = "/v1/accounts/acme/feeds/v2/trips"
PAST = {"feed": "trips", "from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"}


def plausible(seq, token):
    """A request of each call that is understood: path, body, content type."""
    one = lambda path, body=None, kind=JSON: (path, body, kind)
    known = {
        "beginBackfill": one("/v1/accounts/acme/backfills", PAST),
        "importCustomData": one("/v1/accounts/acme/custom-data", json.dumps({"kind": "item", "id": "1", "data": {}}), LINES),
        "setCustomData": one(OBJECT, {"depot": "north"}),
        "patchCustomData": one(OBJECT, {"depot": "south"}, PATCH),
        "moveCursor": one(f"{FEED}/cursor", {"position": "2026-01-01T00:00:00Z"}),
        "createToken": one("/v1/accounts/acme/tokens", {"name": "one"}),
        "rotateToken": one(f"/v1/accounts/acme/tokens/{token}/rotate", {"overlap": "1h"}),
        "importParked": one("/v1/parked/import", "", LINES),
        "editParked": one(f"/v1/parked/{seq}/edit", {"body": "{\"pushType\":\"NOVELTY\"}"}),
        "beginReplay": one("/v1/replays", {"reason": "not-json"}),
        "discardParked": one("/v1/parked?reason=not-json"),
        "followEvents": one("/v1/events?follow=false"),
    }
    fill = {"id": "acme", "api": "v2", "feed": "trips", "kind": "tracker", "object": "350000000000017", "seq": seq, "token": token}
    for call, (_, path, _) in CALLS.items():
        known.setdefault(call, one(re.sub(r"\{(\w+)\}", lambda part: str(fill[part[1]]), path)))
    return known


def who_is_not_let_in(guarded, loopback, requests):
    """401 and 429 come of tokens: each guess from an address of its own, then all from one that has guessed too often."""
    for number, (call, (path, body, kind)) in enumerate(requests.items(), start=2):
        expect(f"{call} without a token", guarded.ask(call, path, body, kind, token=None, source=f"127.0.1.{number}")[0], 401)
        evil = {"host": "evil.example"}
        expect(f"{call} for another host", loopback.ask(call, path, body, kind, token=None, headers=evil)[0], 403)
        if CALLS[call][0] != "GET":
            expect(f"{call} by a reader", guarded.ask(call, path, body, kind, token=READER)[0], 403)
            expect(f"{call} as a form", loopback.ask(call, path, body, kind=None, token=None)[0], 415)
    for _ in range(10):
        guarded.ask("listAccounts", token="a guess", source="127.0.2.1")
    for call, (path, body, kind) in requests.items():
        expect(f"{call} after guesses", guarded.ask(call, path, body, kind, source="127.0.2.1")[0], 429)


def what_is_misused(bridge, requests):
    large = {"importParked": 33 << 20, "importCustomData": 65 << 20}
    nonsense = {"setCustomData": "[]", "patchCustomData": "[]", "editParked": "{}"}
    for call, (path, body, kind) in requests.items():
        statuses = CALLS[call][2]["responses"]
        if "400" in statuses:
            expect(f"{call} with half a body", bridge.ask(call, path, "{", kind)[0], 400)
        if "413" in statuses:
            expect(f"{call} with a large body", bridge.ask(call, path, b" " * large.get(call, 3 << 20), kind)[0], 413)
        if "requestBody" in CALLS[call][2]:
            expect(f"{call} with nonsense", bridge.ask(call, path, nonsense.get(call, '{"nonsense":1}'), kind)[0], 422)
        elif "422" in statuses and call != "reload":
            expect(f"{call} with a wrong key", bridge.ask(call, f"{path.split('?')[0]}?nonsense=1")[0], 422)
        if "404" in statuses and call != "followEvents":
            unknown = re.sub(r"\{\w+\}", "0", CALLS[call][1])
            expect(f"{call} of nothing", bridge.ask(call, unknown, body, kind)[0], 404)


def slow_bodies(bridge, requests):
    """Headers, and never a body: each in a thread, for the bridge is patient."""

    def wait(call, path, kind):
        connection = socket.create_connection(("127.0.0.1", bridge.admin), timeout=PATIENCE)
        head = f"{CALLS[call][0]} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {WRITER}\r\n"
        connection.sendall(f"{head}content-type: {kind}\r\ncontent-length: 100\r\n\r\n".encode())
        answer = http.client.HTTPResponse(connection)
        try:
            answer.begin()
        except OSError as error:
            wrong.append(f"{call} without its body: {error!r} instead of an answer")
            return
        note(call, answer.status, answer.getheader("content-type") or "")
        expect(f"{call} without its body", answer.status, 408)

    asked = [(call, path, kind) for call, (path, _, kind) in requests.items() if "408" in CALLS[call][2]["responses"]]
    threads = [threading.Thread(target=wait, args=one, daemon=True) for one in asked]
    for thread in threads:
        thread.start()
    return threads


def custom_data(bridge):
    row = lambda number, size: json.dumps({"kind": "vehicle", "id": str(number), "data": {"a": "x" * size}})
    expect("a set", bridge.ask("setCustomData", OBJECT, {"depot": "north"})[0], 200)
    expect("a patch", bridge.ask("patchCustomData", OBJECT, {"depot": "south"}, PATCH)[0], 200)
    expect("a look", bridge.ask("showCustomData", OBJECT)[0], 200)
    imports = "/v1/accounts/acme/custom-data"
    expect("an import", bridge.ask("importCustomData", imports, row(1, 10), LINES)[0], 200)
    expect("a list", bridge.ask("listCustomData", imports)[0], 200)
    full = "\n".join(row(number, 12_000) for number in range(100))
    expect("an import beyond memory", bridge.ask("importCustomData", imports, full, LINES)[0], 507)
    for number in range(200):
        if bridge.ask("setCustomData", f"{imports}/fleet/{number}", {"a": "x" * 12_000})[0] == 507:
            break
    expect("a patch beyond memory", bridge.ask("patchCustomData", OBJECT, {"b": "x" * 15_000}, PATCH)[0], 507)
    expect("a removal", bridge.ask("removeCustomData", OBJECT)[0], 200)


def tokens(bridge):
    path = "/v1/accounts/acme/tokens"
    status, made = bridge.ask("createToken", path, {"name": "one"})
    expect("a token", status, 201)
    for expected in (201, 409):
        expect("an import", bridge.ask("createToken", path, {"token": "a-token-that-the-portal-has"})[0], expected)
    expect("a rotation", bridge.ask("rotateToken", f"{path}/{made['id']}/rotate", {"overlap": "1h"})[0], 201)
    expect("a rotation of the configuration's", bridge.ask("rotateToken", f"{path}/config/rotate", {"overlap": "1h"})[0], 409)
    expect("a revocation of the configuration's", bridge.ask("revokeToken", f"{path}/config")[0], 409)
    expect("a revocation", bridge.ask("revokeToken", f"{path}/{made['id']}")[0], 200)
    expect("a list", bridge.ask("listTokens", path)[0], 200)


def polls(bridge):
    for call in ("showAccount", "pauseFeed", "pauseAccount", "resumeAccount", "resumeFeed"):
        expect(call, bridge.ask(call, plausible(1, "config")[call][0])[0], 200)
    bridge.ask("pauseFeed", f"{FEED}/pause")
    move = lambda position: bridge.ask("moveCursor", f"{FEED}/cursor", {"position": position})[0]
    until = time.monotonic() + PATIENCE
    while move("2026-01-01T00:00:00Z") != 200 and time.monotonic() < until:
        time.sleep(0.2)  # A poll is in hand.
    expect("a cursor that leaves something out", move("2026-01-02T00:00:00Z"), 409)


def jobs(bridge, begin, path, asked, show, cancel, listed):
    begun = [bridge.ask(begin, path, asked) for _ in range(5)]
    expect(begin, [status for status, _ in begun], [201] * 4 + [409])
    expect(f"{begin}, dry", bridge.ask(begin, path, {**asked, "dry_run": True})[0], 200)
    expect(listed, bridge.ask(listed)[0], 200)
    for _, job in begun[:4]:
        of_it = CALLS[show][1].replace("{id}", job["id"])
        expect(show, bridge.ask(show, of_it)[0], 200)
        expect(cancel, bridge.ask(cancel, of_it)[0], 200)


def streams(bridge):
    """So many answers at once that nobody reads: one more is refused."""
    for call, path, places, refused in [
        ("exportParked", None, 4, 409),
        ("backupStore", None, 1, 409),
        ("followEvents", "/v1/events", 32, 503),
    ]:
        held = [bridge.ask(call, path, read=False) for _ in range(places)]
        expect(call, {status for status, _ in held}, {200})
        expect(f"{call}, one more", bridge.ask(call, path)[0], refused)
        for _, (connection, answer) in held:
            answer.close()
            connection.close()


def parked(bridge, seq):
    expect("a list", bridge.ask("listParked")[0], 200)
    expect("a summary", bridge.ask("countParked")[0], 200)
    status, line = bridge.ask("exportParked", "/v1/parked/export?reason=unrecognized&error=no+such")
    expect("an export", status, 200)
    expect("an import", bridge.ask("importParked", "/v1/parked/import", line or b"", LINES)[0], 200)
    expect("one", bridge.ask("showParked", f"/v1/parked/{seq}")[0], 200)
    trip = json.dumps({"pushType": "POSITION", "imei": "350000000000017", "date": int(time.time() * 1000), "latitude": 1, "longitude": 1})
    expect("an edit", bridge.ask("editParked", f"/v1/parked/{seq}/edit", {"body": trip})[0], 200)
    expect("its original", bridge.ask("showOriginals", f"/v1/parked/{seq}/originals")[0], 200)
    expect("a discard", bridge.ask("discardParked", "/v1/parked?reason=not-json")[0], 200)
    for call in ("listAudit", "listAccounts"):
        expect(call, bridge.ask(call)[0], 200)


def reload(bridge):
    expect("a reload", bridge.ask("reload")[0], 200)
    bridge.write("accounts: nonsense\n")
    expect("a reload of nonsense", bridge.ask("reload")[0], 422)
    bridge.write(bridge.text)


def what_waits_for_the_bus(bridge):
    waiting = bridge.ask("listParked", token=None)[1]["parked"][0]["seq"]
    edited = bridge.ask("editParked", f"/v1/parked/{waiting}/edit", {"topic": "elsewhere"}, token=None)[0]
    expect("an edit of what waits for the bus", edited, 409)
    expect("events of another bus", bridge.ask("followEvents", token=None)[0], 404)


def where_the_store_fails(bridge):
    """What has something to change, or to read, that only the store can."""
    bridge.push([{"pushType": "NOVELTY", "n": number} for number in range(100)])
    seq = bridge.ask("listParked", "/v1/parked?reason=unrecognized", token=None)[1]["parked"][0]["seq"]
    token = bridge.ask("createToken", "/v1/accounts/acme/tokens", {}, token=None)[1]["id"]
    replay = bridge.ask("beginReplay", None, {"rate": 1}, token=None)[1]["id"]
    backfill = bridge.ask("beginBackfill", "/v1/accounts/acme/backfills", PAST, token=None)[1]["id"]
    requests = plausible(seq, token)
    line = {"kind": "raw", "account": "acme", "source": "push", "reason": "not-json", "received_at": "2026-01-01T00:00:00Z", "body": ""}
    requests["importParked"] = ("/v1/parked/import", json.dumps(line), LINES)
    requests["cancelReplay"] = (f"/v1/replays/{replay}", None, JSON)
    requests["cancelBackfill"] = (f"/v1/backfills/{backfill}", None, JSON)
    requests["resumeAccount"] = ("/v1/accounts/other/resume", None, JSON)
    requests["resumeFeed"] = ("/v1/accounts/acme/feeds/v2/trackers/resume", None, JSON)
    for call in ("resumeAccount", "resumeFeed"):
        pause = call.replace("resume", "pause")
        expect(pause, bridge.ask(pause, requests[call][0].replace("resume", "pause"), token=None)[0], 200)
    open(bridge.failing, "w").close()
    for call, (path, body, kind) in requests.items():
        status = bridge.ask(call, path, body, kind, token=None)[0]
        if "503" in CALLS[call][2]["responses"] and call != "followEvents":
            expect(f"{call} with a store that fails", status, 503)


def states(program, folder):
    admin = ", token: { env: CHECK_WRITER }, tokens: [{ name: reader, scope: read, token: { env: CHECK_READER } }]"
    guarded = Bridge(program, f"{folder}/guarded", admin, "")
    loopback = Bridge(program, f"{folder}/loopback", "", "bus: { nats: { url: \"nats://127.0.0.1:1\" } }")
    try:
        for number in range(24):
            guarded.push({"pushType": "NOVELTY", "n": number, "filling": "x" * (700_000 if number else 1)})
        loopback.push({"pushType": "POSITION", "imei": "350000000000017", "date": int(time.time() * 1000), "latitude": 1, "longitude": 1})
        seq = guarded.ask("listParked")[1]["parked"][0]["seq"]
        requests = plausible(seq, "config")
        slow = slow_bodies(guarded, requests)
        who_is_not_let_in(guarded, loopback, requests)
        what_is_misused(guarded, requests)
        custom_data(guarded)
        tokens(guarded)
        polls(guarded)
        jobs(guarded, "beginReplay", "/v1/replays", {"rate": 1}, "showReplay", "cancelReplay", "listReplays")
        jobs(guarded, "beginBackfill", "/v1/accounts/acme/backfills", PAST, "showBackfill", "cancelBackfill", "listBackfills")
        streams(guarded)
        parked(guarded, seq)
        reload(guarded)
        what_waits_for_the_bus(loopback)
        where_the_store_fails(loopback)
        for thread in slow:
            thread.join()
    finally:
        guarded.stop()
        loopback.stop()


def fuzzed(folder):
    """What Schemathesis saw: none of it may be a 5xx."""
    shapes = [(re.compile("^" + re.sub(r"\{[^}]*\}", "[^/]+", path) + "$"), method, call) for call, (method, path, _) in CALLS.items()]
    requests = fives = 0
    for har in glob.glob(f"{folder}/report-*/har-*.json"):
        for entry in json.load(open(har))["log"]["entries"]:
            path = re.sub(r"^https?://[^/]*", "", entry["request"]["url"]).split("?")[0]
            status = entry["response"]["status"]
            requests += 1
            fives += status >= 500
            for shape, method, call in shapes:
                if shape.match(path) and entry["request"]["method"] == method:
                    seen[call].add(str(status))
    if not requests or fives:
        wrong.append(f"Schemathesis: {requests} requests, {fives} answers 5xx")
    return requests


def report(requests):
    total = found = 0
    for call, (method, path, described_call) in CALLS.items():
        statuses = set(described_call["responses"])
        never = {status for status in statuses if (call, status) in NEVER}
        missing = statuses - seen[call] - never
        total += len(statuses)
        found += len(statuses & seen[call])
        if missing:
            wrong.append(f"not seen: {method} {path}: {' '.join(sorted(missing))}")
        if never & seen[call]:
            wrong.append(f"{call} is in NEVER, and was seen")
    print(f"{len(CALLS)} calls, {requests} requests of Schemathesis; {found} of {total} documented statuses seen")
    for (call, status), why in NEVER.items():
        print(f"not seen, as said: {call} {status}: {why}")
    print("\n".join(wrong) or "nothing is wrong")


if __name__ == "__main__":
    program, folder, part = sys.argv[1:]
    if part == "schemathesis":
        bridge = Bridge(program, f"{folder}/fuzzed", "", "")
        print(bridge.admin, flush=True)
        sys.stdin.read()
        bridge.stop()
    else:
        states(program, folder)
        report(fuzzed(folder))
        sys.exit(bool(wrong))
