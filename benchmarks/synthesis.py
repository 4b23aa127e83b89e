"""Speech synthesis heard again by independent recognisers: `python -m benchmarks.synthesis`.

Forty sentences of the Harvard lists (IEEE 1969, lists 1 to 4), said by Piper and espeak-ng. A phone recogniser (hama,
CTC; pronunciations from the CMU dictionary) and Whisper base then hear them; nothing was chosen or tuned by them. Their
own errors are part of every figure: compare the voices. Intervals are of a bootstrap over sentences (seed 0).
"""

import argparse
import asyncio
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peer_whisper import wer
from benchmarks.report import Figure, figure, save
from benchmarks.resampling import interval
from neuroedge.contract.models import SAMPLE_RATE_HZ, Floats
from neuroedge.contract.speech import Part, SpeechSynthesiser
from neuroedge.kit.phonology import alike
from neuroedge.kit.speech_audio import resampled
from neuroedge.runtimes import espeak, phonemes, piper_voice, whisper
from neuroedge.settings import default_data_dir

SENTENCES = """
The birch canoe slid on the smooth planks. Glue the sheet to the dark blue background.
It's easy to tell the depth of a well. These days a chicken leg is a rare dish.
Rice is often served in round bowls. The juice of lemons makes fine punch.
The box was thrown beside the parked truck. The hogs were fed chopped corn and garbage.
Four hours of steady work faced us. A large size in stockings is hard to sell.
The boy was there when the sun rose. A rod is used to catch pink salmon.
The source of the huge river is the clear spring. Kick the ball straight and follow through.
Help the woman get back to her feet. A pot of tea helps to pass the evening.
Smoky fires lack flame and heat. The soft cushion broke the man's fall.
The salt breeze came across from the sea. The girl at the booth sold fifty bonds.
The small pup gnawed a hole in the sock. The fish twisted and turned on the bent hook.
Press the pants and sew a button on the vest. The swan dive was far short of perfect.
The beauty of the view stunned the young boy. Two blue fish swam in the tank.
Her purse was full of useless trash. The colt reared and threw the tall rider.
It snowed, rained, and hailed the same morning. Read verse out loud for pleasure.
Hoist the load to your left shoulder. Take the winding path to reach the lake.
Note closely the size of the gas tank. Wipe the grease off his dirty face.
Mend the coat before you go out. The wrist was badly strained and hung limp.
The stray cat gave birth to kittens. The young girl gave no clear response.
The meal was cooked before the bell rang. What joy there is in living.
"""


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=default_data_dir() / "models", help="the model store")
    parser.add_argument("--sentences", type=int, default=40, help="how many of them")
    arguments = parser.parse_args()
    texts = re.findall(r"[^\n.]+\.", SENTENCES.replace("\n", " "))
    asyncio.run(_measure(arguments.models, [text.strip() for text in texts][: arguments.sentences]))


async def _measure(store: Path, texts: Sequence[str]) -> None:
    hama = phonemes.load("hama-phonemes", Path(), threads=1, options={})
    ears = whisper.load("whisper-base", store / "whisper-base", threads=2, options={})
    figures: list[Figure] = []
    weakest: float | None = None
    for name, model in (
        ("espeak-ng (en-us)", espeak.load("espeak-ng", Path(), threads=1, options={})),
        ("Piper (piper-joe)", piper_voice.load("piper-joe", store / "piper-joe", threads=2, options={})),
    ):
        found = await _voice(name, model, hama, ears, texts, at_most=weakest)
        figures, weakest = [*found, *figures], found[0].median
        model.close()
    hama.close()
    ears.close()
    save(
        "synthesis",
        figures,
        title="Speech synthesis, heard again by recognisers",
        command="python -m benchmarks.synthesis",
    )


async def _voice(
    name: str, model: SpeechSynthesiser, hama: Any, ears: Any, texts: Sequence[str], *, at_most: float | None
) -> list[Figure]:
    """Figures of a voice; its phone errors are to be no more than `at_most`, those of the formant voice."""
    await model.say([Part(text="Warm up.")])
    seconds, factors, phone_errors, word_errors = [], [], [], []
    for text in texts:
        started = time.perf_counter()
        said = await model.say([Part(text=text)])
        seconds.append(time.perf_counter() - started)
        factors.append(seconds[-1] * said.rate_hz / len(said.samples))
        samples = resampled(said.samples, said.rate_hz, SAMPLE_RATE_HZ)
        phone_errors.append(await _phone_error(hama, samples, text))
        heard = await ears.transcribe(samples, language="en")
        word_errors.append(wer(text, " ".join(one.text for one in heard.utterances)))
    return [
        _mean(f"phone error rate, {name}", phone_errors, "hama; edits per phone, mean over sentences", at_most),
        _mean(f"word error rate, {name}", word_errors, "Whisper base; mean over sentences"),
        figure(f"real time factor, {name}", "×", factors, at_most=1.0),
        figure(f"time to the first sentence, {name}", "s", seconds),
    ]


async def _phone_error(hama: Any, samples: Floats, text: str) -> float:
    ways = await hama.pronounce(text.split())
    expected = [phone for way in ways if way for phone in way[0]]
    frames = await hama.posteriors(samples)
    best = frames.log_p.argmax(axis=1)
    heard = [
        frames.symbols[symbol]
        for place, symbol in enumerate(best)
        if symbol != frames.blank and (place == 0 or best[place - 1] != symbol) and frames.symbols[symbol][0] != "<"
    ]
    return _edits(expected, heard) / len(expected)


def _edits(expected: Sequence[str], heard: Sequence[str]) -> int:
    """Levenshtein's distance; phones that are written in two ways count as the same."""
    row = list(range(len(heard) + 1))
    for i, one in enumerate(expected, 1):
        last, row[0] = row[0], i
        for j, other in enumerate(heard, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (not alike(one, other)))
    return row[-1]


def _mean(name: str, values: Sequence[float], note: str, at_most: float | None = None) -> Figure:
    """A mean with its 95 % bootstrap interval as the range."""
    low, high = interval(len(values), lambda rows: np.asarray(values)[rows].mean())
    mean = float(np.mean(values))
    return Figure(
        name=name,
        unit="",
        median=round(mean, 4),
        target="" if at_most is None else f"≤ {at_most:g}",
        met=None if at_most is None else mean <= at_most,
        low=round(float(low), 4),
        high=round(float(high), 4),
        runs=len(values),
        note=f"{note}; range is the 95 % bootstrap interval",
    )


if __name__ == "__main__":
    main()
