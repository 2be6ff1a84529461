"""The wrapper's own work. Stand-ins replace what it calls: no network, no compiler."""

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DEADLINE = 30  # seconds; generous, for a loaded machine

# Stands for `python3 -m pip install --target FOLDER`: counts its runs, waits where it is told to.
PYTHON3 = """#!/bin/sh
[ "$3" = install ] || exit 0
echo run >> "$COUNT"
mkdir -p "$5/bin"
echo '#!/bin/sh\necho just was run' > "$5/bin/just"
chmod +x "$5/bin/just"
[ -z "$GATE" ] || read -r go < "$GATE"
[ -z "$FAIL" ] || { echo the index is down; exit 1; }
"""


class Machine:
    """A machine whose PATH has the usual tools, this test's stand-ins before them."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder / "bin"
        self.bin.mkdir()
        self.home = folder / "home"
        self.count = folder / "count"
        self.env = {"PATH": f"{self.bin}:/usr/bin:/bin", "HOME": str(folder)}
        self.env |= {"THREADLINE_HOME": str(self.home), "COUNT": str(self.count)}

    def program(self, name: str, text: str) -> None:
        """Puts a program before those of the same name."""
        path = self.bin / name
        path.write_text(text)
        path.chmod(0o755)

    def start(self, *args: str, **env: str) -> subprocess.Popen[str]:
        """Starts ./justw; its standard error is merged into its output."""
        return subprocess.Popen(
            [ROOT / "justw", *args],
            env=self.env | env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *args: str, **env: str) -> tuple[int, str]:
        """Its exit status and output."""
        process = self.start(*args, **env)
        output, _ = process.communicate(timeout=DEADLINE)
        return process.returncode, output


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.program("python3", PYTHON3)
    return machine


def test_two_at_once_install_the_tools_once(machine: Machine, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    first = machine.start("--list", GATE=str(gate))
    assert first.stdout is not None
    assert "installing uv and just" in first.stdout.readline()
    second = machine.start("--list", GATE=str(gate))
    assert second.stdout is not None
    assert "another justw is setting up" in second.stdout.readline()
    gate.write_text("go\n")  # opening it waits for the first one's reader
    for process in (first, second):
        assert "just was run" in process.communicate(timeout=DEADLINE)[0]
        assert process.returncode == 0
    assert machine.count.read_text() == "run\n"


def test_what_a_failed_step_left_is_not_used(machine: Machine) -> None:
    status, output = machine.run("--list", FAIL="1")
    assert status == 1
    assert "the index is down" in output
    assert f"The whole log is {machine.home}/log/tools.log" in output
    assert "just was run" not in output
    assert not list(machine.home.glob("new.*"))

    (machine.home / "new.killed" / "out").mkdir(parents=True)
    assert machine.run("--list") == (0, "justw: installing uv and just (10 s)\njust was run\n")
    assert not list(machine.home.glob("new.*"))


def test_no_python3_and_no_pip_are_said_in_one_line(machine: Machine) -> None:
    machine.program("python3", "#!/bin/sh\nexit 1\n")
    assert machine.run("--list") == (
        1,
        "justw: python3 has no pip."
        " Install it (Debian: apt-get install python3-pip) and try again.\n",
    )
    (machine.bin / "python3").unlink()
    for name in ("bash", "dirname", "uname"):
        (machine.bin / name).symlink_to(f"/usr/bin/{name}")
    assert machine.run("--list", PATH=str(machine.bin)) == (
        1,
        "justw: there is no python3: install any version of it, with pip.\n",
    )


@pytest.mark.parametrize("where", ["build", "optimised"])
def test_a_build_without_its_libraries_says_what_to_type(machine: Machine, where: str) -> None:
    machine.program("cc", '#!/bin/sh\nread -r line; [ "$line" != "#include <ffi.h>" ]\n')
    machine.program("id", "#!/bin/sh\necho 1000\n")
    status, output = machine.run("check", JUSTW_PYTHON=where)
    assert status == 1
    assert output.endswith("again:\n    sudo apt-get install libffi-dev\n")


def test_a_damaged_source_of_python_is_refused(machine: Machine, tmp_path: Path) -> None:
    machine.program("cc", "#!/bin/sh\nexit 0\n")
    tarball = tmp_path / "Python.tar.xz"
    tarball.write_bytes(b"damaged")
    status, output = machine.run(
        "check", JUSTW_PYTHON="build", THREADLINE_CPYTHON_TARBALL=str(tarball)
    )
    assert status == 1
    assert f"{tarball} is not the source of Python" in output
    assert not list(machine.home.glob("cpython-*"))


@pytest.mark.parametrize("name", ["tools", "run", "dev"])
def test_every_pin_has_a_hash_and_no_address(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    assert "://" not in text
    for requirement in text.replace("\\\n", "").splitlines():
        assert re.fullmatch(r"[\w.-]+==[\w.]+( +--hash=sha256:[0-9a-f]{64})+", requirement)


def test_what_is_deployed_is_what_is_tested() -> None:
    run, dev = (
        set(re.findall(r"^\S+==\S+", (ROOT / f"requirements/{name}.txt").read_text(), re.MULTILINE))
        for name in ("run", "dev")
    )
    assert run < dev


def test_an_optimised_build_is_built_as_the_image_is() -> None:
    dockerfile = (ROOT / "Dockerfile.nogil").read_text()
    (flags,) = re.findall(r'^ARG PYTHON_OPTIMISED="(.+)"$', dockerfile, re.MULTILINE)
    assert f"build_flags+=({flags})" in (ROOT / "justw").read_text()
