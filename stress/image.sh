#!/usr/bin/env bash
# Builds the image of Dockerfile.nogil, then holds a call with it; see `just image`.
#
#   stress/image.sh [ARGUMENT OF THE BUILD...]
#
# The models are baked in, unless `--build-arg MODELS=no` says otherwise: then the trial lends the
# image those of this machine. What is tried: it refuses to start when the GIL is on; its health
# check passes; a call is answered, although SIGTERM comes in the middle of it; the server then
# ends with status 0.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "image: $*" >&2; }
die() { say "$*"; exit 1; }

if docker info >/dev/null 2>&1; then tool=docker
elif command -v podman >/dev/null; then tool=podman
elif command -v buildah >/dev/null; then tool=buildah
else die "needs docker with its daemon, podman or buildah (Debian: apt-get install buildah)."
fi
work=$(mktemp -d)
container=
clean_up() {
    [ -z "$container" ] || discard
    rm -rf "$work"
}
trap clean_up EXIT

# -- build -----------------------------------------------------------------------------------------

# What this machine knows of the network goes in as secrets, and as a folder for the source.
mkdir "$work/source"
version=$(sed -n 's/^ARG PYTHON_VERSION=//p' Dockerfile.nogil)
tarball=${THREADLINE_CPYTHON_TARBALL:-${THREADLINE_HOME:-$HOME/.cache/threadline}/Python-$version.tar.xz}
[ ! -e "$tarball" ] || cp "$tarball" "$work/source/Python-$version.tar.xz"
secrets=()
certificates=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
[ ! -e "$certificates" ] || secrets+=(--secret "id=certificates,src=$certificates")
index=${PIP_INDEX_URL:-$(python -m pip config get global.index-url 2>/dev/null)} || true
if [ -n "$index" ]; then
    printf '[global]\nindex-url = %s\n' "$index" >"$work/pip.conf"
    secrets+=(--secret "id=pip,src=$work/pip.conf")
fi
options=()
[ $tool = docker ] || options+=(--format docker --layers)  # HEALTHCHECK is not of the OCI's format
export DOCKER_BUILDKIT=1
say "building with $tool"
$tool build "${options[@]}" -f Dockerfile.nogil -t threadline "${secrets[@]}" \
    --build-context "source=$work/source" --build-arg MODELS=yes "$@" .
if [ $tool = buildah ]; then
    size=$(buildah images --json threadline | sed -n 's/.*"size": "\(.*\)",/\1/p')
else
    size="$(($($tool image inspect --format '{{.Size}}' threadline) / 1000000)) MB"
fi
say "built threadline: $size"

# -- try -------------------------------------------------------------------------------------------

# Docker and podman do what the image says of user, entry point, command, signal and health.
# Buildah only keeps it, so here it is read from the image and done by hand; its containers have
# this machine's network and process numbers.
lent=()
if [ $tool = buildah ]; then
    port=$(python -c 'import socket; print(socket.create_server(("", 0)).getsockname()[1])')
    said() { buildah inspect --type image threadline | python -c 'import json, sys
config = json.load(sys.stdin)["Docker"]["config"]
for name in sys.argv[1:]:
    config = config[name]
print(*config, sep="\0", end="")' "$@"; }
    mapfile -d '' -t whole < <(said Entrypoint; printf '\0'; said Cmd)
    mapfile -d '' -t health < <(said Healthcheck Test)
    begin() {  # [NAME=VALUE]...: what the image does, in a fresh container
        container=$(buildah from --pull-never threadline)
        buildah run "${lent[@]}" "${@/#/--env=}" --env "THREADLINE_SERVER_PORT=$port" \
            "$container" sh -c 'echo $$ >/tmp/pid; exec "$@"' sh "${whole[@]}" >"$work/log" 2>&1 &
        server=$!
    }
    inside() {
        buildah run "${lent[@]}" --env "THREADLINE_SERVER_PORT=$port" "$container" "$@"
    }
    healthy() { inside "${health[@]:1}"; }
    terminate() { kill -TERM "$(inside cat /tmp/pid)"; }
    ended() { wait "$server"; }
    discard() {
        ! kill -0 "$server" 2>/dev/null || kill -KILL "$(inside cat /tmp/pid)" || true
        buildah rm "$container" >/dev/null
        container=
    }
else
    port=8080
    begin() {
        container=$($tool run -d --ulimit rtprio=5 --ulimit memlock=-1 "${lent[@]}" \
            "${@/#/--env=}" --health-interval 1s threadline)
    }
    inside() { $tool exec "$container" "$@"; }
    healthy() {
        [ "$($tool inspect --format '{{.State.Health.Status}}' "$container")" = healthy ]
    }
    terminate() { $tool kill --signal TERM "$container" >/dev/null; }
    ended() {
        local status
        status=$($tool wait "$container")
        $tool logs "$container" >"$work/log" 2>&1
        return "$status"
    }
    discard() {
        $tool rm -f "$container" >/dev/null
        container=
    }
fi
facts() { inside python -c "from threadline.threads.child_server import ready
yes, facts = ready('127.0.0.1:$port'); raise SystemExit(not ($1))"; }
until_it() {  # COMMAND...: holds, within a minute
    local end=$((SECONDS + 60))
    until "$@" 2>/dev/null; do
        [ $SECONDS -lt $end ] || { cat "$work/log" >&2 || true; die "not within a minute: $*"; }
        sleep 0.2
    done
}

begin PYTHON_GIL=1
status=0
ended || status=$?
grep "^threadline: The GIL is on" "$work/log" >&2 ||
    die "it did not say that the GIL is on but: $(cat "$work/log")"
[ $status = 4 ] || die "with the GIL on it ended with status $status, not 4."
discard

case " $* " in *" MODELS=no "* | *"=MODELS=no "*)
    python -m threadline models fetch >&2
    store=$(python -c 'from threadline.models.store import ModelStore; print(ModelStore().folder)')
    lent=(--volume "$store:/models:ro") ;;
esac
began=$SECONDS
begin
until_it healthy
until_it facts yes
say "ready after $((SECONDS - began)) s, as user $(inside id -u), gil: $(inside python -c "
from threadline.threads.child_server import ready
print(ready('127.0.0.1:$port')[1]['gil'])")"
inside python -c 'import numpy as np
from threadline.audio import wav
from threadline.models.piper import PiperVoice
from threadline.models.store import ModelStore
files = (ModelStore().path("piper-joe", "en_US-joe-medium.onnx" + end) for end in ("", ".json"))
voice = PiperVoice(*files)
line = voice.synthesize("What are your opening hours?")
wav.write_mono("/tmp/hello.wav", (line * 32767).astype(np.int16), voice.rate)'
inside threadline call "ws://127.0.0.1:$port/twilio" --wav /tmp/hello.wav >"$work/call" &
caller=$!
until_it facts "facts['calls'] == 1"
terminate
say "SIGTERM, with a call on the line"
wait "$caller" || { cat "$work/call" "$work/log" >&2; die "the call was not answered."; }
cat "$work/call"
status=0
ended || status=$?
grep -E " (pacer|draining|turn|call closed) " "$work/log" || true
[ $status = 0 ] || die "after the drain it ended with status $status, not 0."
say "the call was answered to its end; the server then ended with status 0"
