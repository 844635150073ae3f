#!/usr/bin/env bash
# Schemathesis against the running program: no answer that the description does not have, no 5xx, and every documented status
# seen that can be brought about from outside. The report goes to target/api-check in the cache.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${FLEETBUS_CACHE:-$HOME/.cache/fleetbus}
venv=$cache/schemathesis
[ -x "$venv/bin/schemathesis" ] || { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet schemathesis==4.32.5; }
cargo build --quiet
program=${CARGO_TARGET_DIR:-target}/debug/fleetbus
work=$(mktemp -d)
trap 'kill "$bridge" 2>/dev/null || true; rm -rf "$work"' EXIT
cat > "$work/fleetbus.yaml" <<YAML
listen: { address: 127.0.0.1:0 }
admin:
  address: 127.0.0.1:0
  token: { env: API_CHECK_TOKEN }
  tokens: [{ name: reader, scope: read, token: { env: API_CHECK_READER } }]
data_dir: $work/data
accounts:
  - id: acme
    provider: linxup
    webhook: { token: { env: API_CHECK_TOKEN } }
    poll: [{ api: v2, base_url: "http://127.0.0.1:9", token: { env: API_CHECK_TOKEN }, feeds: { trips: 1h, trackers: 1h } }]
YAML
export API_CHECK_TOKEN=a-token-of-the-api-check API_CHECK_READER=a-readers-token-of-the-api-check
"$program" run --config "$work/fleetbus.yaml" 2> "$work/log" & bridge=$!
for _ in $(seq 300); do
  address=$(sed -n 's/.*"message":"admin.listening".*"address":"\([^"]*\)".*/\1/p; s/.*"address":"\([^"]*\)".*"message":"admin.listening".*/\1/p' "$work/log" | head -1)
  [ -n "$address" ] && break
  kill -0 "$bridge" || { cat "$work/log"; exit 1; }
  sleep 0.1
done
api=http://$address/openapi.json
# A stream that follows does not end: tests/admin.rs reads it. A guess at the token slows its peer, so that guesses come last.
run() {
  "$venv/bin/schemathesis" run "$api" --exclude-path /v1/events --request-timeout 20 --seed 1 --no-color --continue-on-failure \
    --report har,ndjson --report-dir "$work/report-$1" "${@:2}"
}
failed=0
run all -H "Authorization: Bearer $API_CHECK_TOKEN" --max-examples "${API_CHECK_EXAMPLES:-30}" \
  --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,unsupported_method || failed=1
run reader -H "Authorization: Bearer $API_CHECK_READER" --phases examples,coverage --max-examples 2 \
  --checks not_a_server_error,status_code_conformance,content_type_conformance || failed=1
run nobody --phases examples,coverage --max-examples 2 --checks not_a_server_error,status_code_conformance,content_type_conformance || failed=1
python3 - "$work" docs/openapi.json <<'PYTHON' || failed=1
import collections, glob, json, re, sys
work, described = sys.argv[1], json.load(open(sys.argv[2]))
seen = collections.defaultdict(set)
shapes = [(re.compile("^" + re.sub(r"\{[^}]*\}", "[^/]+", path) + "$"), path) for path in described["paths"]]
for har in glob.glob(work + "/report-*/har-*.json"):
    for entry in json.load(open(har))["log"]["entries"]:
        path = re.sub(r"^https?://[^/]*", "", entry["request"]["url"]).split("?")[0]
        for shape, name in shapes:
            if shape.match(path):
                seen[name, entry["request"]["method"].lower()].add(str(entry["response"]["status"]))
# Not to be brought about from outside: a store that fails, a limit that is reached, a body that is larger than any that is made.
rare = {"503", "507", "413", "408", "415"}
calls = total = 0
unseen = []
for path, item in described["paths"].items():
    for method, operation in item.items():
        if path == "/v1/events" or not isinstance(operation, dict) or "responses" not in operation:
            continue
        calls += 1
        missing = set(operation["responses"]) - seen[path, method] - rare
        total += len(set(operation["responses"]) - rare)
        unseen += [f"{method.upper()} {path}: {' '.join(sorted(missing))}"] if missing else []
print(f"{calls} calls described; {total - sum(len(line.split(': ')[1].split()) for line in unseen)} of {total} documented statuses seen")
print("\n".join("not seen: " + line for line in unseen))
fives = sum(status.startswith("5") for statuses in seen.values() for status in statuses)
print(f"calls that answered 5xx: {fives}")
sys.exit(1 if fives or not seen else 0)
PYTHON
exit $failed
