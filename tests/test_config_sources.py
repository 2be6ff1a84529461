"""The four sources and their order, and one sentence for each way to get a setting wrong."""

from __future__ import annotations

import contextlib
import re
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from threadline.chains import CHAINS
from threadline.config import Config
from threadline.config_sources import (
    MULTIPLES,
    ORDER,
    PREFIXES,
    RANGES,
    RESERVED,
    SECRETS,
    SETTINGS,
    WELL_KNOWN,
    Setting,
    describe,
    load,
)
from threadline.errors import ConfigError


@pytest.fixture
def toml(tmp_path: Path):
    def write(text: str | bytes) -> Path:
        file = tmp_path / "threadline.toml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return file

    return write


def refusal(file: Path | None = None, environ=None, flags=None) -> str:
    """The sentence; always one, and ended."""
    with pytest.raises(ConfigError) as caught:
        load(file, environ or {}, flags or {})
    sentence = str(caught.value)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    return sentence


# The order of the sources


def test_nothing_given_is_the_defaults() -> None:
    assert load(None, {}, {}) == Config()


def test_each_source_beats_the_one_before(toml) -> None:
    file = toml('[server]\nport = 1\nhost = "f"\nmax_calls = 3\n')
    environ = {"THREADLINE_SERVER_PORT": "2", "THREADLINE_SERVER_HOST": "e"}
    server = load(file, environ, {"server.port": 4}).server
    assert (server.port, server.host, server.max_calls) == (4, "e", 3)
    assert server.drain_seconds == Config().server.drain_seconds


def test_top_level_keys_have_all_sources(toml) -> None:
    file = toml('gil = "refuse"\nmodels = "/m"\n')
    assert load(file, {}, {}).gil == "refuse"
    assert load(file, {"THREADLINE_MODELS": "/e"}, {}).models == "/e"
    assert load(file, {"THREADLINE_GIL": "accept"}, {"gil": "force"}).gil == "force"


def test_well_known_variables_stand_between_the_file_and_our_own(toml) -> None:
    file = toml('[llm]\napi_key = "file"\nbase_url = "http://file"\n')
    known = {"OPENAI_API_KEY": "known", "OPENAI_BASE_URL": "http://known"}
    llm = load(file, known, {}).llm
    assert (llm.api_key, llm.base_url) == ("known", "http://known")
    llm = load(file, {**known, "THREADLINE_LLM_API_KEY": "ours"}, {}).llm
    assert (llm.api_key, llm.base_url) == ("ours", "http://known")
    assert load(file, {"OPENAI_API_KEY": ""}, {}).llm.api_key == "file"


def test_a_flag_that_was_not_given_changes_nothing() -> None:
    assert load(None, {"THREADLINE_GIL": "force"}, {"gil": None}).gil == "force"


def test_every_setting_can_be_set_from_every_source(toml) -> None:
    """Each by a value other than its default, so that a source that skips one is seen."""
    for setting in describe():
        value = other_value(setting)
        section, _, key = setting.name.rpartition(".")
        plain = ", ".join(value) if setting.kind is tuple else str(value)
        quoted = setting.kind is str or setting.kind is tuple
        text = f'"{plain}"' if quoted else plain.lower()
        file = toml((f"[{section}]\n" if section else "") + f"{key} = {text}\n")
        for config in (
            load(file, {}, {}),
            load(None, {setting.variable: plain}, {}),
            load(None, {}, {setting.name: value}),
            load(None, {}, {setting.name: plain}),
        ):
            found = getattr(getattr(config, section) if section else config, key)
            assert found == value != setting.default, setting.name
            assert type(found) is setting.kind


def other_value(setting: Setting) -> object:
    if setting.kind is tuple:
        both = tuple(vendor.name for vendor in CHAINS[setting.name])
        assert both != setting.default
        return both
    if setting.choices:
        return next(choice for choice in setting.choices if choice != setting.default)
    if setting.kind is bool:
        return not setting.default
    if setting.kind is str:
        return PREFIXES.get(setting.name, ("",))[0] + "other"
    step = MULTIPLES.get(setting.name, 1)
    low, high = RANGES[setting.name]
    # one step off the default, to the side that keeps every pair in ORDER in order
    smaller = setting.name in {smaller for smaller, _, _ in ORDER}
    up = setting.default == low or (not smaller and setting.default < high)
    if setting.kind is int:
        return setting.default + step if up else setting.default - step
    return (setting.default + high) / 2 if up else (setting.default + low) / 2


def test_text_is_converted_and_integers_pass_for_floats(toml) -> None:
    config = load(toml("[asr]\ndeadline_seconds = 9\n"), {"THREADLINE_VAD_THRESHOLD": "0.6"}, {})
    assert config.asr.deadline_seconds == 9.0
    assert type(config.asr.deadline_seconds) is float
    assert config.vad.threshold == 0.6


def test_variables_that_are_no_settings_but_are_no_mistakes_either() -> None:
    environ = dict.fromkeys(RESERVED, "x")
    assert {"THREADLINE_HOME", "THREADLINE_CONFIG", "THREADLINE_CPYTHON_TARBALL"} == RESERVED
    environ |= {"PATH": "/bin", "threadline_x": "1", "MY_THREADLINE_X": "1"}
    environ |= {  # what Kubernetes adds for a service called `threadline`
        "THREADLINE_PORT": "tcp://10.0.0.1:80",
        "THREADLINE_PORT_80_TCP_ADDR": "10.0.0.1",
        "THREADLINE_SERVICE_HOST": "10.0.0.1",
        "THREADLINE_SERVICE_PORT_HTTP": "80",
    }
    assert load(None, environ, {}) == Config()


# Chains of vendors


@pytest.mark.parametrize(
    "text",
    [
        'llm = ["openai:a", "openai:b", "scripted"]',
        'llm = "openai:a, openai:b,scripted"',
        'llm.chain = ["openai:a", "openai:b", "scripted"]',
        '[llm]\nchain = ["openai:a", "openai:b", "scripted"]',
        '[llm]\nchain = "openai:a, openai:b, scripted"',
    ],
)
def test_a_chain_can_be_written_in_several_ways(toml, text: str) -> None:
    assert load(toml(text), {}, {}).llm.chain == ("openai:a", "openai:b", "scripted")


def test_a_chain_comes_from_every_source_as_one_text(toml) -> None:
    file = toml('stt = ["deepgram"]\n')
    assert load(file, {}, {}).stt.chain == ("deepgram",)
    environ = {"THREADLINE_STT_CHAIN": "deepgram, whisper"}
    assert load(file, environ, {}).stt.chain == ("deepgram", "whisper")
    assert load(file, environ, {"stt.chain": "whisper"}).stt.chain == ("whisper",)


def test_an_entry_names_the_model_or_the_voice_of_its_section() -> None:
    flags = {
        "stt.chain": "deepgram:nova-2,whisper:whisper-base",
        "llm.chain": "openai:ft:gpt:x,openai",
        "tts.chain": "cartesia:a-voice,piper",
        "deepgram.model": "another",
    }
    config = load(None, {}, flags)
    assert config.deepgram.model == "nova-2"
    assert config.asr.model == "whisper-base"
    assert config.cartesia.voice == "a-voice"
    assert config.tts.voice == Config().tts.voice
    assert config.llm.model == Config().llm.model, "each entry of openai has its own"
    assert config.llm.chain == ("openai:ft:gpt:x", "openai")


@pytest.mark.parametrize(
    ("name", "chain", "said"),
    [
        ("llm", "opnai", "names 'opnai': the nearest is openai."),
        ("llm", "zzz", "names 'zzz': choose from openai[:MODEL], scripted."),
        ("tts", "cartesia,piper,cartesia", "names 'cartesia' twice: leave one out."),
        ("stt", "deepgram:a,deepgram:b", "names deepgram twice: leave one out."),
        ("llm", "openai:a,openai:b,openai:a", "names 'openai:a' twice: leave one out."),
        ("llm", "scripted,openai", "names openai after scripted, which always answers: "
                                   "put scripted last."),
        ("llm", "scripted:x", "names 'scripted:x': write scripted."),
        ("tts", "cartesia:", "names 'cartesia:': write cartesia[:VOICE]."),
        ("stt", " , ", "is empty: give at least one of deepgram[:MODEL], whisper[:MODEL]."),
        ("stt", "", "is empty: give at least one of deepgram[:MODEL], whisper[:MODEL]."),
    ],
)  # fmt: skip
def test_a_chain_that_cannot_be_used(toml, name: str, chain: str, said: str) -> None:
    assert refusal(flags={f"{name}.chain": chain}) == f"The flag {name}.chain {said}"
    file = toml(f'{name} = "{chain}"')
    assert refusal(file) == f"{file}:{name} {said}"


@pytest.mark.parametrize("text", ["llm = [1]", "llm = [[]]", "[llm]\nchain = 5", "[[llm]]\nx = 1"])
def test_a_chain_is_made_of_texts(toml, text: str) -> None:
    assert "give a list of openai[:MODEL], scripted." in refusal(toml(text))


def test_an_address_that_has_a_default_cannot_be_taken_away() -> None:
    assert "starts with wss:// or ws://" in refusal(flags={"deepgram.url": ""})
    assert load(None, {}, {"llm.base_url": ""}).llm.base_url == ""


def test_the_vendors_own_variables() -> None:
    environ = {
        "DEEPGRAM_API_KEY": "d", "DEEPGRAM_URL": "ws://127.0.0.1:1", "OPENAI_API_KEY": "o",
        "OPENAI_BASE_URL": "http://127.0.0.1:2/v1", "CARTESIA_API_KEY": "c",
        "CARTESIA_URL": "ws://127.0.0.1:3",
    }  # fmt: skip
    config = load(None, environ, {})
    assert (config.deepgram.api_key, config.deepgram.url) == ("d", "ws://127.0.0.1:1")
    assert (config.llm.api_key, config.llm.base_url) == ("o", "http://127.0.0.1:2/v1")
    assert (config.cartesia.api_key, config.cartesia.url) == ("c", "ws://127.0.0.1:3")
    assert set(WELL_KNOWN) == set(environ)


# What is wrong, where, and what to give instead


def test_the_sentence_names_the_source(toml) -> None:
    file = toml("[server]\nport = 99999\n")
    assert refusal(file) == (f"{file}:server.port is 99999: give an integer from 0 to 65535.")
    assert refusal(environ={"THREADLINE_SERVER_PORT": "web"}) == (
        "THREADLINE_SERVER_PORT is 'web': give an integer from 0 to 65535."
    )
    assert refusal(flags={"gil": "off"}) == (
        "The flag gil is 'off': give one of isolate, refuse, accept, force."
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[server]\nport = true", "is true: give an integer"),
        ('[server]\nport = "8080"', "is '8080': give an integer"),
        ("[server]\nport = 8080.0", "is 8080.0: give an integer"),
        ("[server]\nport = -1", "is -1: give an integer from 0"),
        ("[server]\nport = [1]", "is an array: give"),
        ("[server.port]\na = 1", "is a table: give"),
        ("[server]\nhost = 5", "is 5: give a text"),
        ("[server]\nhost = 2026-01-01", "is 2026-01-01: give a text"),
        ("[vad]\nthreshold = nan", "is nan: give a number from 0.01 to 0.99"),
        ("[vad]\nthreshold = inf", "is inf: give a number"),
        ("[asr]\ndeadline_seconds = " + "9" * 400, "give a number"),
        ("gil = 1", "is 1: give one of isolate"),
        ('gil = "Force"', "is 'Force': give one of"),
        ("[pacer]\nprebuffer_ms = 50", "is 50: give an integer from 0 to 1000 in steps of 20"),
        ('[server]\npublic_url = "voice.example.com"', "starts with wss:// or ws://"),
        ('[llm]\nbase_url = "localhost:8000/v1"', "starts with https:// or http://"),
        ("server = 5", "server is a section: .* says \\[server\\]"),
        ("[[server]]\nport = 5", "server is a section"),
    ],
)
def test_a_value_that_cannot_be_used(toml, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load(toml(text), {}, {})


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("[server]\nprot = 1", "nearest is server.port"),
        ("[vad]\nhangoverms = 1", "nearest is vad.hangover_ms"),
        ("port = 1", "nearest is server.port"),
        ('[server]\ngil = "force"', "nearest is gil"),
        ("[serve]\nx = 1", "nearest is server"),
        ("[pacer]\nzzzzzzzz = 1", "there are pacer.prebuffer_ms, pacer.subticks"),
        ("zzzzzzzz = 1", "there are gil, models"),
        ("[zzzzzzzz.q]\nx = 1", "there are gil, models"),
        (
            "[server]\nthreads = 1",
            "there are vad.threads, endpoint.threads, asr.threads, tts.threads",
        ),
    ],
)
def test_a_key_that_does_not_exist(toml, text: str, nearest: str) -> None:
    assert nearest in refusal(toml(text))


def test_a_variable_or_a_flag_that_does_not_exist() -> None:
    assert refusal(environ={"THREADLINE_VAD_HANGOVR_MS": "5"}) == (
        "THREADLINE_VAD_HANGOVR_MS is not a setting: the nearest is THREADLINE_VAD_HANGOVER_MS."
    )
    assert "THREADLINE_<SECTION>_<KEY>" in refusal(environ={"THREADLINE_QQQQQQQQQQ": "5"})
    assert refusal(flags={"server.prot": 5}) == (
        "The flag server.prot is not a setting: the nearest is server.port."
    )


@pytest.mark.parametrize(
    ("smaller", "larger", "may_equal"), ORDER, ids=[f"{row[0]}-{row[1]}" for row in ORDER]
)
def test_settings_that_contradict_each_other(smaller: str, larger: str, may_equal: bool) -> None:
    # both by flag: the larger at its default, or where the smaller one's range still goes past it
    bound = {"vad.max_utterance_ms": 2000, "server.max_calls": 8}.get(
        larger, SETTINGS[larger].default
    )
    past = bound + (0.01 if SETTINGS[larger].kind is float else 1)
    apart = {"vad.min_speech_ms": 5000, "vad.interrupt_ms": 5000}  # no second contradiction
    flags = {**apart, larger: bound}
    assert refusal(flags={**flags, smaller: past}) == (
        f"{smaller} is {past} (the flag {smaller}), and must be "
        f"{'at most' if may_equal else 'less than'} {larger}, which is {bound} "
        f"(the flag {larger}): change one of them."
    )
    if may_equal:
        load(None, {}, {**flags, smaller: bound})
    else:
        assert smaller in refusal(flags={**flags, smaller: bound})


def test_a_contradiction_between_two_sources_names_both(toml) -> None:
    file = toml("[vad]\nhangover_ms = 300\n")
    assert refusal(file, {"THREADLINE_VAD_PROBE_MS": "400"}) == (
        "vad.probe_ms is 400 (THREADLINE_VAD_PROBE_MS), and must be less than vad.hangover_ms, "
        f"which is 300 ({file}:vad.hangover_ms): change one of them."
    )


# Secrets


def test_a_secret_is_never_shown(toml) -> None:
    for name in SECRETS:
        section, _, key = name.partition(".")
        for bad in ("815815", "[815815]", "{ a = 815815 }"):
            sentence = refusal(toml(f"[{section}]\n{key} = {bad}\n"))
            assert name in sentence
            assert "815" not in sentence
        assert "815" not in refusal(environ={SETTINGS[name].variable: "815815\udcff"})
        assert "815" not in refusal(flags={name: 815815})
    assert "815" not in refusal(environ={"THREADLINE_LLM_APIKEY": "815815"})
    assert "815" not in refusal(environ={"OPENAI_API_KEY": "815815\udcff"})
    assert "815" not in refusal(toml('[llm]\napikey = "815815"\n'))


def test_every_setting_that_looks_like_a_secret_is_one() -> None:
    words = ("key", "token", "secret", "password")
    named = {name for name in SETTINGS if name.rpartition("_")[2] in words}
    assert named == SECRETS


# The file itself


def test_a_broken_file_is_named_with_its_line(toml) -> None:
    file = toml("[server]\nport = 1\nhost = \n")
    assert refusal(file).startswith(f"{file}, line 3: this is not TOML (")


def test_a_key_given_twice_is_broken_toml(toml) -> None:
    assert "line 3" in refusal(toml("[server]\nport = 1\nport = 2\n"))


def test_a_file_in_another_encoding(toml) -> None:
    file = toml('[llm]\ngreeting = "Grüß Gott"\n'.encode("latin-1"))
    assert refusal(file) == f"{file}, line 2: this is not UTF-8; save it as UTF-8."


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "none.toml"
    assert refusal(file) == f"There is no configuration file {file}: create it, or name another."


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert refusal(tmp_path).startswith(f"The configuration file {tmp_path} cannot be read: ")
    assert "cannot be read" in refusal(Path("a\0b"))


@pytest.mark.parametrize("value", ["9" * 5000, "[" * 100_000])
def test_values_no_parser_can_hold(toml, value: str) -> None:
    assert "threadline.toml" in refusal(toml(f"models = {value}\n"))


def test_the_file_in_the_readme_can_be_used(toml) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    (text,) = re.findall(r"```toml\n(.*?)```", readme, re.DOTALL)
    config = load(toml(text), {}, {})
    assert config.stt.chain == ("deepgram", "whisper")
    assert config.llm.chain[-1] == "scripted"


def test_an_empty_file_is_fine(toml) -> None:
    assert load(toml(""), {}, {}) == Config()
    assert load(toml("[server]\r\n[vad]\r\n"), {}, {}) == Config()


@given(
    st.binary(max_size=80) | st.text(max_size=80).map(lambda text: text.encode("utf-8", "replace"))
)
def test_any_file_gives_a_configuration_or_one_sentence(tmp_path_factory, data: bytes) -> None:
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_bytes(data)
    with contextlib.suppress(ConfigError):
        load(file, {}, {})


@given(st.sampled_from(sorted(SETTINGS)), st.text(max_size=20))
def test_any_text_of_a_variable_gives_a_configuration_or_one_sentence(name, text) -> None:
    variable = SETTINGS[name].variable
    with contextlib.suppress(ConfigError):
        load(None, {variable: text}, {})


# The tables beside the dataclasses


def test_every_number_has_a_range_and_every_range_a_number() -> None:
    assert set(RANGES) == {name for name, s in SETTINGS.items() if s.kind in (int, float)}


def test_every_table_names_settings_that_exist() -> None:
    names = {*SECRETS, *PREFIXES, *MULTIPLES, *WELL_KNOWN.values()}
    names |= {name for smaller, larger, _ in ORDER for name in (smaller, larger)}
    assert names <= set(SETTINGS)


def test_every_default_is_acceptable() -> None:
    for setting in describe():
        assert setting.accepts(setting.default), setting


def test_no_two_settings_share_a_variable() -> None:
    variables = [setting.variable for setting in describe()]
    assert len(set(variables)) == len(variables)
    assert not RESERVED & set(variables)


def test_describe_lists_every_field_once_in_the_order_of_config() -> None:
    expected = []
    for top in fields(Config):
        value = getattr(Config(), top.name)
        if is_dataclass(value):
            expected += [f"{top.name}.{field.name}" for field in fields(value)]
        else:
            expected.append(top.name)
    assert [setting.name for setting in describe()] == expected
    port = SETTINGS["server.port"]
    assert (port.kind, port.default, port.variable) == (int, 8080, "THREADLINE_SERVER_PORT")
    assert SETTINGS["log.format"].choices == ("console", "json")
    assert SETTINGS["llm.chain"].kind is tuple


def test_every_list_is_a_chain_that_its_table_knows() -> None:
    assert set(CHAINS) == {name for name, s in SETTINGS.items() if s.kind is tuple}
    for chain, vendors in CHAINS.items():
        assert {one.partition(":")[0] for one in SETTINGS[chain].default} <= {
            vendor.name for vendor in vendors
        }
        used = {name for v in vendors for name in (v.sets, v.key, v.url) if name}
        assert used <= set(SETTINGS)


def test_a_boolean_takes_true_and_false_only() -> None:
    setting = Setting("x.y", bool, False, ())
    assert setting.accepts(True)
    assert not setting.accepts(1)
    assert not setting.accepts("yes")
    assert setting.expected == "true or false"
