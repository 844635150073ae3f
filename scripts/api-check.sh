#!/usr/bin/env bash
# Schemathesis against the running program, and a request for every status that the description has: no answer that it does not
# have, no 5xx that nobody brought about, every documented status seen (api_check.py). Some two minutes: one status is that of
# a body that does not come in time.
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${FLEETBUS_CACHE:-$HOME/.cache/fleetbus}
venv=$cache/schemathesis
[ -x "$venv/bin/schemathesis" ] || { python3 -m venv "$venv" && "$venv/bin/pip" install --quiet schemathesis==4.32.5; }
# With faults, for a store that fails is one of the states.
cargo build --quiet --features faults
program=${CARGO_TARGET_DIR:-target}/debug/fleetbus
work=$(mktemp -d)
mkfifo "$work/stop"
trap 'exec 3>&-; wait; rm -rf "$work"' EXIT
python3 scripts/api_check.py "$program" "$work" schemathesis < "$work/stop" > "$work/port" &
exec 3> "$work/stop"
until [ -s "$work/port" ]; do kill -0 $!; sleep 0.1; done
failed=0
cat > "$work/hooks.py" <<'PYTHON'
import schemathesis


@schemathesis.serializer("application/x-ndjson", "text/csv")
def lines(ctx, value):
    return value if isinstance(value, bytes) else str(value).encode()
PYTHON
export SCHEMATHESIS_HOOKS=$work/hooks.py
# Of a bridge without tokens, for calls without one are guesses, which are slowed; api_check.py asks as each who may not.
# A stream that follows does not end: api_check.py reads it.
"$venv/bin/schemathesis" run "http://127.0.0.1:$(cat "$work/port")/openapi.json" --exclude-path /v1/events --request-timeout 20 --seed 1 --no-color \
  --continue-on-failure --report har --report-dir "$work/report-all" \
  --max-examples "${API_CHECK_EXAMPLES:-30}" \
  --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,unsupported_method || failed=1
exec 3>&-
python3 scripts/api_check.py "$program" "$work" states || failed=1
exit $failed
