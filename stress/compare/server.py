"""The server under test: everything of the real one but the thinking, and saboteurs beside it.

Its voice hums and its recogniser knows one word, unless ``--whisper`` gives it the real one. Both
builds run the same configuration: fallback mode (fewer calls and a larger prebuffer, which a GIL
build would get) is left out, and ``--placement`` says where the recogniser runs whatever the
policy would say. Takes the flags of `threadline serve` too.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass, replace

from threadline.cli_serve import add_parser, settings
from threadline.dialog.brain import Answer
from threadline.models.store import ModelStore
from threadline.threads import gil, logs
from threadline.threads.asr_process import START_SECONDS, WHISPER
from threadline.threads.io_calls import listen
from threadline.threads.server import Parts, Server

from ..bench.tone_server import Humming, ToneVoice
from ..until import until
from . import saboteurs


@dataclass
class Hum(Humming):
    """Answers with so many clauses."""

    clauses: int = 2

    def answer(self, state: int, words: str) -> tuple[int, Answer]:
        said = [f"Tone {state} part {part}." for part in range(self.clauses)]
        return state, Answer(" ".join(said))


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sabotage", default="", help="names with commas between")
    parser.add_argument("--placement", choices=("process", "thread"), default="process")
    parser.add_argument("--whisper", action="store_true")
    parser.add_argument("--clauses", type=int, default=2)
    args, rest = parser.parse_known_args()
    serve = argparse.ArgumentParser()
    add_parser(serve.add_subparsers())
    config = settings(serve.parse_args(["serve", *rest]), os.environ)
    needed = gil.RECOGNISER_MODULES if args.whisper and args.placement == "thread" else ()
    verdict = gil.preload(config.gil, recogniser=needed)
    verdict = replace(verdict, fallback=False, placement=args.placement)
    store = ModelStore()
    if args.whisper:
        folder = str(store.directory(config.asr.model))
        options = {"folder": folder, "threads": config.asr.threads, "language": "en"}
    parts = Parts(
        silero=store.path("silero-vad", "silero_vad.onnx"),
        load_voice=ToneVoice,
        decoder=WHISPER if args.whisper else "stress.bench.tone_server:OneWord",
        decoder_options=options if args.whisper else {},
        brain=Hum(clauses=args.clauses),
    )
    server = Server(config, verdict, parts, listen(config.server.host, config.server.port))
    flood = logs.logger("flood")
    logs.start(config.log)
    try:
        server.start()
        recogniser = server.asr.recogniser
        until(  # a start that is sabotaged is not what is measured
            lambda: server.asr.ready or (recogniser and recogniser.failed),
            "the recogniser is loaded",
            START_SECONDS,
        )
        # After the freeze: what an application allocates while calls run is scanned.
        names = [name for name in args.sabotage.split(",") if name]
        saboteurs.start(saboteurs.make(names, lambda n, text: flood.info(text, number=n)))
        return server.run()
    finally:
        logs.stop(2.0)


if __name__ == "__main__":
    sys.exit(main())
