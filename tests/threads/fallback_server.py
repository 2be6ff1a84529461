"""`threadline serve` whose models are quick and whose brain imports modules when it is told to.

Takes the flags of `serve`. A file `early-NAME` in the folder $ORDERS has the module NAME imported
while the server is made, `late-NAME` at the next answer to a caller.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

from serving import FAKE_DECODER, Parrot, ToneVoice

from threadline import cli, cli_serve
from threadline.agent import Agent
from threadline.config import Config, GilPolicy
from threadline.dialog.brain import Answer
from threadline.models.store import ModelStore
from threadline.threads import gil
from threadline.threads.gil import Verdict
from threadline.threads.server import Parts

ORDERS = Path(os.environ["ORDERS"])


class Importer(Parrot):
    def answer(self, state: int, words: str) -> tuple[int, Answer]:
        obey("late")
        return super().answer(state, words)


def obey(when: str) -> None:
    for order in sorted(ORDERS.glob(f"{when}-*")):
        order.unlink()
        importlib.import_module(order.name.partition("-")[2])
        (ORDERS / f"imported-{order.name}").touch()


def quick_parts(config: Config, agent: Agent | None = None) -> Parts:
    obey("early")
    return Parts(
        silero=ModelStore().path("silero-vad", "silero_vad.onnx"),
        load_voice=ToneVoice,
        decoder=FAKE_DECODER,
        decoder_options={"folder": os.environ["DECODER_ORDERS"]},
        brain=Importer(),
    )


_preload = gil.preload


def quick_preload(
    policy: GilPolicy, modules: object, *, recogniser: object, start_with_gil: bool
) -> Verdict:
    """What is left out would only take time, or, the recogniser's, turn the GIL on by itself."""
    return _preload(policy, ("onnxruntime", "uvloop"), (), start_with_gil)


if __name__ == "__main__":
    cli_serve.real_parts = quick_parts
    cli_serve.gil.preload = quick_preload
    sys.exit(cli.main(["serve", *sys.argv[1:]]))
