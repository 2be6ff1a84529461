"""The vendors as the command line tells of them: which are used, which have their key.

Nothing here connects to one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from .chains import CHAINS, Vendor, names
from .config import Config
from .config_sources import WELL_KNOWN, load, named_file
from .errors import ConfigError
from .vendors import cartesia, deepgram, openai

_VARIABLES = {name: variable for variable, name in WELL_KNOWN.items()}
_CHECKS: dict[str, Callable[[Config], str]] = {
    "deepgram": lambda config: deepgram.check(config.deepgram),
    "openai": lambda config: openai.check(config.llm, None),
    "cartesia": lambda config: cartesia.check(config.cartesia),
}


@dataclass(frozen=True, slots=True)
class VendorState:
    """One vendor: is it used, and could it be?"""

    kind: str  # "stt", "llm" or "tts"
    name: str
    form: str  # how it is written in a chain
    used: bool
    text: str  # a key or none, which address
    problem: str = ""  # why it could not be used, in a sentence


def check(config: Config) -> None:
    """Raise ConfigError for the first vendor of a chain whose key is missing."""
    for state in states(config):
        if state.used and state.problem:
            raise ConfigError(state.problem)


def states(config: Config) -> Iterator[VendorState]:
    """Every vendor there is, in the order of the chains' table."""
    for chain, vendors in CHAINS.items():
        kind = chain.partition(".")[0]
        used = names(getattr(config, kind).chain)
        for vendor in vendors:
            yield VendorState(
                kind,
                vendor.name,
                vendor.form,
                vendor.name in used,
                _text(config, vendor),
                _problem(config, vendor.name),
            )


def help_text(environ: Mapping[str, str]) -> str:
    """The end of a help text: every vendor, and what this environment has for it."""
    try:
        config = load(named_file(environ), environ, {})
    except ConfigError:  # `serve` will say what is wrong
        config = Config()
    rows = [f"  --{state.kind} {state.form:<18} {state.text}" for state in states(config)]
    return "\nvendors, and what the environment has for them:\n" + "\n".join(rows) + "\n"


def with_model(config: Config) -> Config:
    """The configuration for an app, which needs a model: ``openai`` when its key or its address
    is there and nothing else was asked for. Raises ConfigError when there is none."""
    if config.llm.chain != ("scripted",):
        return config
    if not config.llm.api_key and not config.llm.base_url:
        raise ConfigError(
            "An app needs a model to talk for it: set OPENAI_API_KEY, or OPENAI_BASE_URL to an "
            "OpenAI-compatible server of your own (--llm names the model)."
        )
    return replace(config, llm=replace(config.llm, chain=("openai",)))


def _text(config: Config, vendor: Vendor) -> str:
    if not vendor.key:
        return "on this machine, needs no key"
    variable = _VARIABLES[vendor.key]
    key = f"{variable} is set" if _value(config, vendor.key) else f"{variable} is not set"
    return f"{key}; {_value(config, vendor.url) or 'the vendor itself'} ({_VARIABLES[vendor.url]})"


def _value(config: Config, name: str) -> str:
    section, _, key = name.partition(".")
    return str(getattr(getattr(config, section), key))


def _problem(config: Config, name: str) -> str:
    try:
        if name in _CHECKS:
            _CHECKS[name](config)
    except ConfigError as error:
        return str(error)
    return ""
