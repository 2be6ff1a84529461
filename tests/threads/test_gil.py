import itertools
import logging
import os
import subprocess
import sys
import sysconfig
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.errors import Exit, GilError, ThreadlineError
from threadline.threads import gil
from threadline.threads.gil import Culprits, Facts, GilWatch, Verdict, audit, ensure_forced, judge

FREE = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
only_free = pytest.mark.skipif(not FREE, reason="the GIL build cannot turn its GIL on or off")

FREE_OFF = Facts("free-threaded", gil_on=False)
FREE_ON = Facts("free-threaded", gil_on=True, culprit="pkg._ext")
GIL_BUILD = Facts("gil", gil_on=True)

WARNING = (
    "The global interpreter lock (GIL) has been enabled to load module 'pkg._ext', which has not"
    " declared that it can run safely without the GIL."
)


@pytest.mark.parametrize(
    ("found", "policy", "fallback", "placement"),
    [
        (FREE_OFF, "isolate", False, "process"),
        (FREE_OFF, "refuse", False, "thread"),
        (FREE_OFF, "accept", False, "thread"),
        (FREE_OFF, "force", False, "thread"),
        (FREE_ON, "isolate", True, "process"),
        (FREE_ON, "accept", True, "process"),
        (GIL_BUILD, "isolate", True, "process"),
        (GIL_BUILD, "accept", True, "process"),
    ],
)
def test_what_each_policy_makes_of_the_facts(found, policy, fallback, placement):
    verdict = judge(found, policy)
    assert (verdict.fallback, verdict.placement) == (fallback, placement)
    assert verdict.policy == policy
    assert verdict.gil_on == found.gil_on
    assert verdict.sentence.startswith("FALLBACK MODE" if fallback else "The GIL is off")
    assert found.culprit in verdict.sentence
    assert bool(verdict.remedy) == fallback


@pytest.mark.parametrize(
    ("found", "policy", "said"),
    [
        (FREE_ON, "refuse", ["pkg._ext", "`refuse`", "--gil accept"]),
        (FREE_ON, "force", ["pkg._ext", "`force`"]),
        (GIL_BUILD, "refuse", ["built with the GIL", "python3.14t"]),
        (GIL_BUILD, "force", ["cannot be forced", "python3.14t"]),
        (
            Facts("free-threaded", True, "ctranslate2._ext"),
            "refuse",
            ["ctranslate2._ext", "--gil isolate"],
        ),
        (Facts("free-threaded", True, "", setting=1), "refuse", ["PYTHON_GIL=1"]),
        (Facts("free-threaded", True, ""), "refuse", ["not named"]),
    ],
)
def test_a_refusal_names_the_cause_and_the_remedy(found, policy, said):
    with pytest.raises(GilError) as error:
        judge(found, policy)
    assert error.value.exit_code == Exit.GIL
    for piece in said:
        assert piece in str(error.value)


@pytest.fixture
def culprits():
    """One that listens alone, and only while the test runs; pytest restores the warnings."""
    captured = logging.getLogger("py.warnings")
    before = captured.filters
    captured.filters = []
    yield Culprits()
    captured.filters = before


def test_the_culprit_is_recorded_and_other_warnings_pass_through(culprits):
    passed = []
    warnings.showwarning = lambda message, *rest, **more: passed.append(str(message))
    warnings.simplefilter("always")
    culprits.install()
    culprits.install()  # must not chain to itself
    warnings.warn(WARNING, RuntimeWarning, stacklevel=1)
    warnings.warn("something else", RuntimeWarning, stacklevel=1)
    assert culprits.first() == "pkg._ext"
    assert passed == ["something else"]


def test_the_culprit_is_recorded_when_logging_captures_warnings_later(culprits, caplog):
    culprits.install()
    logging.captureWarnings(True)
    level = logging.getLogger().level
    try:
        logging.getLogger().setLevel(logging.ERROR)
        warnings.simplefilter("always")
        warnings.warn("something else", RuntimeWarning, stacklevel=1)
        warnings.warn(WARNING, RuntimeWarning, stacklevel=1)
    finally:
        logging.getLogger().setLevel(level)
        logging.captureWarnings(False)
    assert culprits.first() == "pkg._ext"
    assert "something else" in caplog.text
    assert "pkg._ext" not in caplog.text


@pytest.mark.parametrize("action", ["ignore", "error"])
def test_the_culprit_is_recorded_whatever_the_filters_say(culprits, action):
    warnings.simplefilter(action)
    culprits.install()
    warnings.warn(WARNING, RuntimeWarning, stacklevel=1)
    assert culprits.first() == "pkg._ext"


def test_the_interpreter_words_its_warning_as_expected():
    """The pattern is matched against the interpreter's own text, not only against ours."""
    if not FREE:
        pytest.skip("the GIL build does not warn")
    (found,) = audit(["ctranslate2"])
    if found.state == "absent":
        pytest.skip("ctranslate2 is not installed")
    assert found == ("ctranslate2", "turns the GIL on", "ctranslate2._ext")


def run(code, *flags, **environ):
    """Run code in a fresh interpreter; its last line of output."""
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHON_GIL"}
    done = subprocess.run(
        [sys.executable, *flags, "-c", code],
        env={**inherited, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environ},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    return done.stdout.strip().splitlines()[-1] if done.stdout.strip() else done.stderr


PRELOAD = """
import sys
from threadline.errors import GilError
from threadline.threads import gil
try:
    verdict = gil.preload({policy!r}, modules=["ssl"], recogniser={recogniser!r})
except GilError as error:
    print("refused:", error)
else:
    print(verdict.gil_on, verdict.fallback, verdict.placement, verdict.culprit or "-",
          "ctranslate2" in sys.modules)
"""


@only_free
@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("isolate", "False False process - False"),
        ("accept", "True True process ctranslate2._ext True"),
        ("force", "False False thread - True"),
        ("refuse", "refused: The module ctranslate2._ext turned the GIL on"),
    ],
)
def test_preload_with_the_module_that_turns_the_gil_on(policy, expected):
    pytest.importorskip("onnxruntime")  # not ctranslate2 itself: that would turn it on here
    said = run(PRELOAD.format(policy=policy, recogniser=["ctranslate2"]))
    assert said.startswith(expected)


@only_free
def test_a_culprit_whose_warning_was_swallowed_is_named_by_the_import_that_did_it():
    code = """
import sys, types, warnings
class Quiet:
    def find_spec(self, name, path=None, target=None):
        if name != "swallower": return None
        import importlib.util
        return importlib.util.spec_from_loader(name, self)
    def create_module(self, spec): return None
    def exec_module(self, module):
        with warnings.catch_warnings(record=True): import ctranslate2
sys.meta_path.insert(0, Quiet())
from threadline.threads import gil
print(gil.preload("accept", modules=["swallower"], recogniser=[]).culprit)
"""
    assert run(code) == "swallower"


@only_free
def test_a_gil_that_the_user_asked_for_is_said_to_be_so():
    said = run(PRELOAD.format(policy="refuse", recogniser=[]), PYTHON_GIL="1")
    assert said.startswith("refused: The GIL is on because PYTHON_GIL=1")


@only_free
def test_force_is_loud_once_and_never_loops():
    said = run(PRELOAD.format(policy="force", recogniser=[]), "-X", "gil=1")
    assert said.startswith("refused: Python was started again with PYTHON_GIL=0 and did not obey")


def test_force_starts_the_same_command_again_once(capsys):
    calls = []
    ensure_forced(
        "force", FREE_OFF, {"HOME": "/h"}, execve=lambda *arguments: calls.append(arguments)
    )
    ((path, argv, environ),) = calls
    assert path == argv[0] == sys.executable
    assert argv[1:] == sys.orig_argv[1:]
    assert environ["PYTHON_GIL"] == "0"
    assert environ["HOME"] == "/h"
    assert not [name for name in environ if name.startswith("THREADLINE_")], "those are settings"
    assert "risk" in capsys.readouterr().err
    with pytest.raises(GilError, match="did not obey"):
        ensure_forced("force", FREE_OFF, environ, execve=lambda *arguments: pytest.fail("loop"))


@pytest.mark.parametrize(
    ("policy", "found"),
    [("isolate", FREE_OFF), ("accept", GIL_BUILD), ("force", Facts("free-threaded", False, "", 0))],
)
def test_nothing_is_started_again_without_need(policy, found):
    ensure_forced(policy, found, {}, execve=lambda *arguments: pytest.fail("started again"))


def test_a_build_with_a_gil_is_not_started_again_in_vain():
    with pytest.raises(GilError, match="cannot be forced"):
        ensure_forced("force", GIL_BUILD, {}, execve=lambda *arguments: pytest.fail("in vain"))


def test_a_dependency_that_is_missing_is_a_sentence():
    with pytest.raises(ThreadlineError, match="no_such_module cannot be imported"):
        gil.preload("isolate", modules=["no_such_module"])


def watch(policy="isolate", culprit="pkg._ext", modules=lambda: 100):
    return GilWatch(judge(FREE_OFF, policy), lambda: culprit, modules)


def test_one_reading_is_not_believed_and_two_too_close_neither():
    late = watch()
    assert late.sample(True, 10.0) is None
    assert late.sample(True, 10.05) is None
    flip = late.sample(True, 10.11)
    assert flip is not None
    assert flip.verdict == late.verdict


def test_a_blink_is_forgotten():
    late = watch()
    for now in range(0, 100, 2):
        assert late.sample(True, float(now)) is None
        assert late.sample(False, now + 1.0) is None
    assert not late.verdict.fallback


@pytest.mark.parametrize("policy", ["isolate", "accept", "force"])
def test_a_late_flip_moves_a_running_server_into_fallback(policy):
    late = watch(policy)
    late.sample(True, 1.0)
    flip = late.sample(True, 2.0)
    assert not flip.drain
    assert flip.verdict.fallback
    assert flip.verdict.gil_on
    assert flip.verdict.placement == "process"
    assert flip.verdict.culprit == "pkg._ext"
    assert flip.verdict.sentence.startswith("FALLBACK MODE. The module pkg._ext turned")


def test_a_late_flip_under_refuse_drains():
    late = watch("refuse")
    late.sample(True, 1.0)
    flip = late.sample(True, 2.0)
    assert flip.drain
    assert "no new calls" in flip.verdict.sentence
    assert "--gil accept" in flip.verdict.remedy
    assert "pkg._ext" in flip.verdict.sentence


def test_a_late_flip_that_nobody_was_named_for_is_reported_too():
    late = watch(culprit="")
    late.sample(True, 1.0)
    assert late.sample(True, 5.9) is None, "not sure yet"
    assert "not named" in late.sample(True, 6.0).verdict.sentence


def test_safe_imports_are_waited_for_until_they_end():
    imported = itertools.chain(range(100, 200), itertools.repeat(200))
    late = watch(culprit="", modules=lambda: next(imported))
    assert [late.sample(True, float(now)) for now in range(105)] == [None] * 105
    assert late.sample(True, 105.0) is not None


@given(st.lists(st.tuples(st.booleans(), st.floats(0.001, 3.0)), max_size=60))
def test_a_flip_is_reported_once_and_only_after_two_settled_readings(readings):
    late = watch()
    now, since, believed = 0.0, None, False
    for enabled, pause in readings:
        now += pause
        since = (now if since is None else since) if enabled else None
        settled = since is not None and now - since >= gil.SETTLED_SECONDS
        flip = late.sample(enabled, now)
        assert (flip is not None) == (settled and not believed)
        believed = believed or settled


def test_a_server_that_started_in_fallback_has_nothing_to_watch_for():
    late = GilWatch(judge(GIL_BUILD, "accept"), lambda: "")
    assert [late.sample(True, float(now)) for now in range(5)] == [None] * 5


def test_a_verdict_is_a_plain_value():
    verdict = judge(FREE_OFF, "isolate")
    with pytest.raises(AttributeError):
        verdict.fallback = True
    assert isinstance(verdict, Verdict)


def test_audit_tells_absent_failing_and_crashing_modules_apart(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "breaks.py").write_text("raise RuntimeError('half installed')")
    (tmp_path / "ends.py").write_text("import os; os._exit(3)")
    (tmp_path / "waits.py").write_text("import time; time.sleep(1000)")
    (tmp_path / "chatty.py").write_text("print('{}'); print('hello', end='')")
    states = {found.module: found for found in audit(["no_such_module", "chatty", "breaks"])}
    assert states["no_such_module"].state == "absent"
    if not FREE:
        assert states["chatty"].state == "n/a"
        return
    assert states["chatty"].state == "safe"
    assert states["breaks"] == ("breaks", "failed", "RuntimeError: half installed")
    assert audit(["ends"])[0].state == "failed"
    assert audit(["waits"], seconds=0.5)[0] == ("waits", "failed", "not imported after 0.5 s")
