#!/bin/sh
# The gate beside a plain docker-and-curl script: the same layouts, events, image and stop grace, in
# turns in one run. Prints seconds, ratios and the floor: the starts that the gate itself needs, each
# as long as the script's starts took.
#
#   make bench-gate                                  on the lab, with a start that burns 4 s of CPU
#   make bench-gate IMAGE=comfyui:cpu PLUGIN=./ComfyUI-Login WHEELS=./wheels
#
# Further variables: ROUNDS (1), CODE_DIR (/opt/ComfyUI), PYTHON (/opt/venv/bin/python), GRACE (10),
# BURN (4), EVENTS (restart kill recreate), GATE (a lockproof to measure), JOBS.
set -eu
cd "$(dirname "$0")/.."

ROUNDS=${ROUNDS:-1} CODE_DIR=${CODE_DIR:-/opt/ComfyUI} PYTHON=${PYTHON:-/opt/venv/bin/python}
GRACE=${GRACE:-10} BURN=${BURN:-4} EVENTS=${EVENTS:-restart kill recreate} GATE=${GATE:-target/release/lockproof}

stop() {
    echo "bench-gate: $1" >&2
    exit 3
}
command -v docker >/dev/null || stop "the docker command line is missing: apt-get install docker-cli"
command -v curl >/dev/null || stop "curl is missing: apt-get install curl"
[ -x "$GATE" ] || stop "$GATE is missing: cargo build --release --locked -p lockproof"

work=$(mktemp -d)
name=lockproof-bench-$$
clean() {
    docker rm -f "$name" >/dev/null 2>&1 || true
    docker volume rm "$name" >/dev/null 2>&1 || true
    rm -rf "$work"
}
trap clean EXIT
trap 'exit 130' INT TERM

if [ -z "${IMAGE:-}" ]; then
    "$GATE" doctor --lab >/dev/null
    kit=$(ls -td "${LOCKPROOF_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/lockproof}"/kit-* | head -n 1)
    GATE_IMAGE=lockproof/comfyui-lab
    IMAGE=$(docker images --format '{{.Repository}}:{{.Tag}}' lockproof/comfyui-lab | grep ':latest-' | head -n 1)
    PLUGIN=$kit/plugins/lab-login WHEELS=$kit/wheels
    # The lab's plugin is sound; the real one has holes that are known.
    held=locked
else
    BURN=0 GATE_IMAGE=$IMAGE held=leaky
    PLUGIN=$(realpath "$PLUGIN") WHEELS=$(realpath "$WHEELS")
fi

now() { date +%s.%N; }
since() { echo "$1 $(now)" | awk '{ printf "%.1f", $2 - $1 }'; }

# ---- the script --------------------------------------------------------------------------------

url() { echo "http://127.0.0.1:$(docker port "$name" 8188/tcp | sed 's/.*://')"; }
status() { curl -s -o /dev/null -m 5 -w '%{http_code}' "$@" || true; }

ready() { # ready: waits for the first answer, and adds up how long that took
    begun=$(now)
    for _ in $(seq 3000); do
        if [ "$(status "$(url)/system_stats")" != 000 ]; then
            since "$begun" >>"$work/starts"
            echo >>"$work/starts"
            return
        fi
        sleep 0.1
    done
    stop "the server does not answer"
}

run() {
    # shellcheck disable=SC2086 # no mount, no words
    docker run -d --name "$name" -p 127.0.0.1::8188 -e LAB_START_CPU_SECONDS="$BURN" --stop-timeout "$GRACE" \
        ${1:+-v "$name:$1"} "$IMAGE" >/dev/null
    ready
}

look() { # look WHAT: what an anonymous request and the token get
    printf '  %-10s %s %s\n' "$1" "$(status "$(url)/system_stats")" \
        "$(status -H "Authorization: Bearer $token" "$(url)/system_stats")"
}

script() { # script MOUNT
    run "$1"
    docker cp -q "$PLUGIN" "$name:$CODE_DIR/custom_nodes/"
    docker cp -q "$WHEELS" "$name:/tmp/wheels"
    docker exec "$name" "$PYTHON" -m pip install -q --disable-pip-version-check --no-index --find-links /tmp/wheels \
        -r "$CODE_DIR/custom_nodes/$(basename "$PLUGIN")/requirements.txt"
    docker restart -t 0 "$name" >/dev/null
    ready
    curl -s -o /dev/null --data-urlencode username=bench --data-urlencode password=bench-password "$(url)/login"
    token=$(docker exec "$name" head -n 1 "$CODE_DIR/login/PASSWORD")
    look installed
    for event in $EVENTS; do
        case $event in
            restart) docker restart -t "$GRACE" "$name" >/dev/null && ready ;;
            kill) docker kill "$name" >/dev/null && docker start "$name" >/dev/null && ready ;;
            recreate) docker stop -t "$GRACE" "$name" >/dev/null && docker rm "$name" >/dev/null && run "$1" ;;
            *) stop "the script does not know the event $event" ;;
        esac
        look "$event"
    done
    docker rm -f "$name" >/dev/null
    docker volume rm "$name" >/dev/null 2>&1 || true
}

# ---- the gate ----------------------------------------------------------------------------------

last=${EVENTS##* }
case $last in recreate) lost=open ;; *) lost=$held ;; esac
{
    echo "subjects:"
    for layout in nothing custom-nodes code; do
        case $layout in
            nothing) mount='' ;;
            custom-nodes) mount="{ volume: v, target: $CODE_DIR/custom_nodes }" ;;
            code) mount="{ volume: v, target: $CODE_DIR }" ;;
        esac
        echo "  - { name: $layout, image: '$GATE_IMAGE', env: { LAB_START_CPU_SECONDS: '$BURN' }, stop_timeout: ${GRACE}s,"
        echo "      mounts: [ $mount ], expect: { installed: $held, restart: $held, kill: $held, recreate: $lost } }"
    done
    echo "scheme: { install: { from: '$PLUGIN', wheels: '$WHEELS' } }"
    echo "events: [ $(echo "$EVENTS" | tr ' ' ',') ]"
    [ -z "${JOBS:-}" ] || echo "jobs: $JOBS"
} >"$work/lockproof.yaml"

for round in $(seq "$ROUNDS"); do
    : >"$work/starts"
    begun=$(now)
    for mount in '' "$CODE_DIR/custom_nodes" "$CODE_DIR"; do
        echo "script, ${mount:-nothing mounted}:"
        script "$mount"
    done
    script_seconds=$(since "$begun")
    begun=$(now)
    code=0
    "$GATE" gate --config "$work/lockproof.yaml" --report "json=$work/report.json" --timings >"$work/out" 2>"$work/err" || code=$?
    gate_seconds=$(since "$begun")
    if [ "$code" -ne 0 ]; then
        cat "$work/out" "$work/err" >&2
        stop "the gate ended with $code"
    fi
    sed -n '/^Where the time went/,$p' "$work/out"
    starts=$(grep -o '"starts": *[0-9]*' "$work/report.json" | awk '{ n += $NF } END { print n + 0 }')
    awk -v round="$round" -v s="$script_seconds" -v g="$gate_seconds" -v n="$starts" '
        { sum += $1 }
        END {
            floor = sum / NR * n
            printf "round %d: script %.1f s with %d starts of %.1f s; gate %.1f s with %d starts; gate / script %.2f; ", round, s, NR, sum / NR, g, n, g / s
            printf "floor of the gate'\''s starts %.1f s; gate / floor %.2f\n", floor, (floor > 0 ? g / floor : 0)
        }' "$work/starts"
done
