# Run these through ./justw, which first finds or makes the interpreter and the packages.

set positional-arguments

# List the recipes.
[private]
default:
    @just --list --unsorted

# Hold a recorded call with the agent, show its timeline.
[no-cd]
demo *ARGS:
    @python -m threadline demo "$@"

# Run the tests, three at a time, for they mostly wait; `-m long -n 0`: those that take minutes.
test *ARGS: sounds
    @env -u PYTHON_GIL python -X faulthandler -m pytest -n 3 --dist loadfile "$@"

# The tests of what owns no thread, and of the rings: for the other build of Python.
core *ARGS:
    @python -X faulthandler -m pytest tests/audio tests/wire tests/listening tests/talking tests/dialog tests/vendors tests/observe tests/threads/test_ring.py tests/threads/test_wake.py "$@"

# Lint, formatting and types.
check:
    ruff check
    ruff format --check
    mypy

# Mend lint and formatting.
fmt:
    ruff check --fix
    ruff format

# Measure: ring, asr, batch, speech, endpoint, turns, cascade, tools, pacing, spread, shards, start.
bench NAME *ARGS:
    @shift && if [ "{{ NAME }}" = tools ]; then \
        set -- --gil-python "$(./justw --gil python -c 'import sys; print(sys.executable)')" "$@"; \
    fi && python -m "stress.bench.{{ NAME }}" "$@"

# Races on real threads, some minutes: --list, --seed S --only NAME, --hours H.
stress *ARGS:
    @env -u PYTHON_GIL python -m stress.run "$@"

# Answer calls.
[no-cd]
serve *ARGS:
    @python -m threadline serve "$@"

# Place a call: URL --wav FILE.
[no-cd]
call *ARGS:
    @python -m threadline call "$@"

# Say what this machine lacks, and what to do about it.
[no-cd]
doctor *ARGS:
    @python -m threadline doctor "$@"

# The models: list, fetch or verify.
[no-cd]
models *ARGS:
    @python -m threadline models "$@"

# Build the container image and hold a call with it; ARGS go to the build.
image *ARGS:
    @stress/image.sh "$@"

compile := "uv pip compile --quiet --generate-hashes --no-emit-index-url --no-annotate --no-header"
resolve := compile + " --python-platform linux --python-version 3.14"

# Write the hashed pins in requirements/ anew; `pin --upgrade` takes the newest versions.
pin *ARGS:
    printf 'uv\nrust-just\n' | {{ compile }} "$@" -o requirements/tools.txt -
    {{ resolve }} "$@" --all-extras -o requirements/dev.txt pyproject.toml
    {{ resolve }} "$@" --extra local --extra otel -c requirements/dev.txt -o requirements/run.txt pyproject.toml

# The recorded speech that some tests need.
[private]
sounds:
    @tests/sounds.sh

# Look for data races with ThreadSanitizer, under an interpreter built for it once. Not in CI.
tsan *ARGS:
    @watched=$(./justw --tsan-python) && python -m stress.tsan "$watched" "$@"

# Run the same commit on this build of Python and on the GIL build; writes docs/compare.md.
compare *ARGS:
    @gil=$(./justw --gil python -c 'import sys; print(sys.executable)') && \
        python -m stress.compare --gil-python "$gil" "$@"

# How many calls one core carries, cloud cascade on both builds or --local; writes docs/capacity.md.
capacity *ARGS:
    @gil=$(./justw --gil python -c 'import sys; print(sys.executable)') && \
        python -m stress.capacity --gil-python "$gil" "$@"

# Replace every server behind a balancer (Debian's haproxy) while calls go on: none is dropped.
rolling *ARGS:
    @python -m stress.rolling "$@"

# Let every vendor fail in every way while calls go on; writes docs/vendors.md.
faults *ARGS:
    @env -u PYTHON_GIL python -m stress.faults "$@"

# Python, with the packages on its path.
[private]
[no-cd]
python *ARGS:
    @python "$@"

# Search the interleavings of rings, wake-ups and floor changes: --only NAME, --replay SCHEDULE.
explore *ARGS:
    @env -u PYTHON_GIL python -m stress.explore "$@"

# Plant every known race and see that it is found.
mutants *ARGS:
    @env -u PYTHON_GIL python -m stress.mutants "$@"

# Ten thousand short calls, or --minutes of a steady load: does one process grow? docs/soak.md.
soak *ARGS:
    @env -u PYTHON_GIL python -m stress.soak "$@"

# Hold up every thread for 50 ms and see what the watchdog says; writes docs/stalls.md.
stalls *ARGS:
    @env -u PYTHON_GIL python -m stress.stalls "$@"

# What a call costs, by thread, function and line: --calls 50, --thread vad.
profile *ARGS:
    @env -u PYTHON_GIL python -m stress.profile "$@"
