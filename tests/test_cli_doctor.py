import argparse
import io
import json
from types import SimpleNamespace

import pytest
from rich.console import Console

from threadline import cli_doctor
from threadline.cli_doctor import (
    Finding,
    check_clock,
    check_config,
    check_interpreter,
    check_models,
    check_modules,
    check_vendors,
    examine,
    show,
)
from threadline.config import Config, Deepgram, Endpoint, Llm, Stt, Tts
from threadline.models.store import ModelStore
from threadline.threads import gil
from threadline.threads.gil import Audited, Facts
from threadline.threads.realtime import Favour, Lateness, RealtimeRights

FREE = Facts("free-threaded", gil_on=False)
WITH_GIL = Facts("gil", gil_on=True)
CALM = Audited("numpy", "safe")
LOUD = Audited("ctranslate2", "turns the GIL on", "ctranslate2._ext")

GRANTED = RealtimeRights(Favour(True, "1 ns"), Favour(True, "SCHED_FIFO priority 5"))
REFUSED = RealtimeRights(Favour(False, "prctl refused"), Favour(False, "SCHED_FIFO refused"))
PUNCTUAL = Lateness(GRANTED, 50, 0, 0.05, 0.1, 0.2)


def standings(findings):
    return {finding.name: finding.standing for finding in findings}


def everything_has_a_remedy(findings):
    return all(one.remedy for one in findings if one.standing == "trouble")


@pytest.mark.parametrize(
    ("found", "policy", "audited", "standing", "said"),
    [
        (FREE, "isolate", [CALM, LOUD], "fine", "The GIL is off. The recogniser runs in a process"),
        (FREE, "accept", [CALM, LOUD], "note", "ctranslate2._ext turned the GIL on"),
        (FREE, "accept", [CALM], "fine", "The GIL is off. The recogniser runs in a thread"),
        (FREE, "force", [LOUD], "note", "by force"),
        (FREE, "refuse", [LOUD], "trouble", "would not start"),
        (FREE, "isolate", [Audited("numpy", "turns the GIL on")], "note", "numpy turned the GIL"),
        (WITH_GIL, "isolate", [], "note", "FALLBACK MODE"),
        (WITH_GIL, "force", [], "trouble", "would not start"),
    ],
)
def test_the_gil_as_the_server_would_find_it(found, policy, audited, standing, said):
    finding = check_interpreter(found, policy, audited)[-1]
    assert finding.standing == standing
    assert said in finding.found
    assert finding.remedy or standing == "fine" or (found, policy) == (FREE, "force")


def test_a_build_with_a_gil_is_a_note_not_a_trouble():
    assert standings(check_interpreter(WITH_GIL, "isolate", []))["Python"] == "note"
    assert standings(check_interpreter(FREE, "isolate", []))["Python"] == "fine"


def test_modules_are_told_apart_by_what_they_do_to_the_gil():
    audited = [
        CALM,
        Audited("ssl", "safe"),
        LOUD,
        Audited("other", "turns the GIL on"),
        Audited("gone", "absent"),
        Audited("broken.part", "failed", "ImportError: half of it"),
    ]
    findings = check_modules(audited, "isolate")
    assert findings[0].found == "numpy, ssl"
    assert standings(findings) == {
        "leave the GIL off": "fine",
        "ctranslate2": "fine",  # kept apart
        "other": "note",
        "gone": "trouble",
        "broken.part": "trouble",
    }
    assert "ctranslate2._ext" in findings[1].found
    assert everything_has_a_remedy(findings)
    assert standings(check_modules([LOUD], "accept")) == {"ctranslate2": "note"}


def test_what_traces_lack_is_named_by_its_extra():
    (missing,) = check_modules([Audited(gil.TRACE_MODULES[0], "absent")], "isolate")
    assert "threadline[otel]" in missing.remedy


def test_a_punctual_clock_with_all_rights_is_fine():
    findings = check_clock(PUNCTUAL, PUNCTUAL, Favour(True, "locked"))
    assert set(standings(findings).values()) == {"fine"}


@pytest.mark.parametrize(
    "late", [Lateness(GRANTED, 50, 0, 0.1, 6.0, 9.0), Lateness(GRANTED, 50, 1, 0.1, 0.2, 30.0)]
)
def test_a_late_clock_is_a_note_with_a_remedy(late):
    finding = check_clock(PUNCTUAL, late, Favour(True, "locked"))[1]
    assert finding.standing == "note"
    assert finding.remedy
    assert f"{late.max:.2f} max" in finding.found
    assert ("1 missed" in finding.found) == bool(late.missed)


def test_each_right_that_is_refused_is_a_note_with_a_remedy():
    late = Lateness(REFUSED, 50, 0, 0.05, 0.1, 0.2)
    findings = check_clock(late, late, Favour(False, "mlockall refused"))
    notes = [finding for finding in findings if finding.standing == "note"]
    assert [note.name for note in notes] == ["scheduling", "timer slack", "locked memory"]
    assert all(note.remedy for note in notes)


def test_a_model_that_is_absent_or_damaged_is_a_trouble(tmp_path):
    store = ModelStore(tmp_path)
    (tmp_path / "silero-vad").mkdir()
    (tmp_path / "silero-vad" / "silero_vad.onnx").write_bytes(b"not the model")
    findings = check_models(store, Config())
    found = {finding.name: finding for finding in findings}
    assert found["silero-vad"].found == "damaged"
    assert found["whisper-base"].found == "absent"
    assert found["whisper-base"].remedy == "Run: threadline models fetch whisper-base"
    assert found["folder"].found == str(tmp_path)
    assert {found[name].standing for name in store.table} == {"trouble"}


def test_a_model_that_no_chain_names_is_only_a_note(tmp_path):
    config = Config(
        stt=Stt(chain=("deepgram",)), tts=Tts(chain=("cartesia",)), endpoint=Endpoint("silence")
    )
    found = standings(check_models(ModelStore(tmp_path), config))
    assert found.pop("folder") == "fine"
    assert found.pop("silero-vad") == "trouble"
    assert found.pop("espeak-ng") in ("fine", "note")
    assert set(found.values()) == {"note"}


def test_a_model_nobody_asked_for_is_only_a_note(tmp_path):
    findings = check_models(ModelStore(tmp_path), Config(tts=Tts(voice="no-such-voice")))
    found = {finding.name: finding for finding in findings}
    assert found["piper-joe"].standing == "note"
    assert found["no-such-voice"].standing == "trouble"
    assert "piper-joe" in found["no-such-voice"].remedy


def test_models_that_are_there_are_fine(models):
    found = standings(check_models(models, Config()))
    assert {found[name] for name in models.table} == {"fine"}


def test_a_missing_phonemizer_is_a_trouble(tmp_path, monkeypatch):
    monkeypatch.setattr(cli_doctor, "find_spec", lambda name: None)
    finding = check_models(ModelStore(tmp_path), Config())[-1]
    assert finding.standing == "trouble"
    assert "threadline[local]" in finding.remedy


def test_a_wrong_configuration_is_a_finding_and_the_rest_is_still_examined(tmp_path):
    config, (finding,) = check_config(None, "isolte", {})
    assert config == Config()
    assert finding.standing == "trouble"
    assert "isolate" in finding.remedy
    file = tmp_path / "threadline.toml"
    file.write_text('gil = "accept"\n')
    config, (finding,) = check_config(None, None, {"THREADLINE_CONFIG": str(file)})
    assert (config.gil, finding.standing) == ("accept", "fine")
    assert check_config(file, "refuse", {})[0].gil == "refuse", "the flag is stronger"


@pytest.mark.parametrize(
    ("llm", "standing"),
    [
        (Llm(), "fine"),
        (Llm(chain=("openai", "scripted")), "trouble"),
        (Llm(chain=("openai:x",), api_key="secret-key"), "fine"),
        (Llm(chain=("openai",), base_url="http://127.0.0.1:1/v1"), "fine"),
    ],
)
def test_a_vendor_that_could_not_answer_is_a_trouble(llm, standing):
    findings = check_vendors(Config(llm=llm))
    found = {finding.name: finding for finding in findings}
    assert found["llm openai"].standing == standing
    assert ("OPENAI_API_KEY" in found["llm openai"].remedy) == (standing == "trouble")
    assert not any("secret-key" in finding.found + finding.remedy for finding in findings)


def test_every_vendor_is_listed_with_what_it_has():
    config = Config(stt=Stt(chain=("deepgram",)), deepgram=Deepgram(api_key="k", url="ws://h:1"))
    found = {finding.name: finding.found for finding in check_vendors(config)}
    assert list(found) == [
        "stt deepgram", "stt whisper", "llm openai", "llm scripted", "tts cartesia", "tts piper",
    ]  # fmt: skip
    assert found["stt deepgram"] == "DEEPGRAM_API_KEY is set; ws://h:1 (DEEPGRAM_URL)"
    assert found["stt whisper"] == "not used; on this machine, needs no key"
    assert found["tts cartesia"].startswith("not used; CARTESIA_API_KEY is not set; wss://")
    assert found["tts piper"] == "on this machine, needs no key"


def drawn(findings, width=80, encoding="utf-8"):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    show(findings, Console(file=stream, width=width, force_terminal=False))
    stream.seek(0)
    return stream.read()


FINDINGS = [
    Finding("Clock", "cores", "fine", "2"),
    Finding("Models", "voice [bold]", "trouble", "absent · gone", "Run: fetch [red]voice[/red]"),
    Finding("Clock", "scheduling", "note", "refused", "Allow it."),
]


def test_the_drawing_groups_by_topic_and_concludes_last():
    text = drawn(FINDINGS)
    assert text.count("Clock") == 1
    assert text.index("scheduling") < text.index("Models")
    assert "→ Run: fetch [red]voice[/red]" in text, "found text is never taken for markup"
    assert "voice [bold]" in text
    last = text.splitlines()[-1]
    assert last == (
        " ✘ Calls cannot be answered yet: one thing to mend. One thing could be better."
    )
    assert drawn(FINDINGS[:1]).splitlines()[-1] == " ✔ Calls can be answered."


@pytest.mark.parametrize("width", [60, 80, 200])
def test_the_drawing_fits_the_terminal_and_loses_nothing(width):
    lines = drawn(FINDINGS, width).splitlines()
    assert max(map(len, lines)) <= width
    words = " ".join(line.strip(" │→") for line in lines).split()
    for finding in FINDINGS:
        for text in (finding.name, finding.found, finding.remedy):
            assert set(text.split()) <= set(words)


def test_the_drawing_survives_a_terminal_without_unicode():
    text = drawn(FINDINGS, encoding="ascii")
    assert "-> Run" in text
    assert "x voice" in text
    assert "?" not in text


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine that is looked at quickly: few modules, few ticks, no memory locked."""
    monkeypatch.setattr(gil, "MODULES", ("ssl",))
    monkeypatch.setattr(gil, "RECOGNISER_MODULES", ())
    monkeypatch.setattr(gil, "VENDOR_MODULES", ())
    monkeypatch.setattr(cli_doctor, "TICKS", 2)
    monkeypatch.setattr(cli_doctor, "lock_memory", lambda: Favour(True, "locked"))
    monkeypatch.setenv("THREADLINE_MODELS", str(tmp_path))
    for name in ("THREADLINE_CONFIG", "THREADLINE_GIL"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("machine")
def test_everything_is_looked_at():
    topics = list(dict.fromkeys(finding.topic for finding in examine()))
    assert topics == ["Interpreter", "Modules", "Clock", "Models", "Vendors", "Service"]


def parse(*flags):
    parser = argparse.ArgumentParser()
    cli_doctor.add_parser(parser.add_subparsers())
    return parser.parse_args(["doctor", *flags])


@pytest.mark.usefixtures("machine")
def test_the_status_says_whether_calls_can_be_answered(capsys, monkeypatch):
    args = parse("--json")
    assert args.run(args) == 1, "there are no models"
    result = json.loads(capsys.readouterr().out)
    assert result["can_answer_calls"] is False
    assert "whisper-base" in [row["name"] for row in result["findings"]]
    monkeypatch.setattr(cli_doctor, "check_models", lambda store, config: [])
    assert args.run(args) == 0
    assert json.loads(capsys.readouterr().out)["can_answer_calls"] is True
    args = parse()
    assert args.run(args) == 0
    assert "Calls can be answered." in capsys.readouterr().out


@pytest.mark.usefixtures("machine")
def test_nothing_but_json_goes_to_the_output(capsys, monkeypatch):
    monkeypatch.setattr(cli_doctor, "examine", lambda file, policy: [])
    cli_doctor.run(SimpleNamespace(config=None, gil=None, json=True))
    json.loads(capsys.readouterr().out)
