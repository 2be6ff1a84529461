"""`threadline serve` whose models are quick and whose brain imports modules when it is told to.

Takes the flags of `serve`. A file `early-NAME` in the folder $ORDERS has the module NAME imported
while the server is made, `late-NAME` at the next answer to a caller.
"""

from __future__ import annotations

import importlib
import os
import sys
from functools import partial
from pathlib import Path

from serving import FAKE_DECODER, Parrot, ToneVoice

from threadline import cli, cli_serve
from threadline.config import Config
from threadline.dialog.brain import Answer
from threadline.models.store import ModelStore
from threadline.threads import gil
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


def quick_parts(config: Config) -> Parts:
    obey("early")
    return Parts(
        silero=ModelStore().path("silero-vad", "silero_vad.onnx"),
        load_voice=ToneVoice,
        decoder=FAKE_DECODER,
        decoder_options={"folder": os.environ["DECODER_ORDERS"]},
        brain=Importer(),
    )


if __name__ == "__main__":
    cli_serve.real_parts = quick_parts
    # What is left out would only take its time, or, the recogniser's, turn the GIL on by itself.
    cli_serve.gil.preload = partial(gil.preload, modules=("onnxruntime", "uvloop"), recogniser=())
    sys.exit(cli.main(["serve", *sys.argv[1:]]))
