"""Writes the pronunciations of the commoner English words that NeuroEdge ships, from the CMU dictionary.

    python -m training.pronunciations --dictionary cmudict-en-us.dict --out DIR

The dictionary (BSD, Carnegie Mellon University) is in the wheel of `pocketsphinx`. Kept are the words that wordfreq's
English list has among its commonest; the recogniser's own grapheme-to-phoneme model answers for the others.
"""

import argparse
import gzip
import hashlib
import json
import re
from datetime import UTC, datetime
from pathlib import Path

COMMONEST = 60_000
MAX_VARIANTS = 3
FILE = "words.txt.gz"
_LINE = re.compile(r"^([a-z][a-z']*)(?:\((\d+)\))? (.+)$")
LICENCE = (
    "Copyright (c) 1999-2016 Carnegie Mellon University. All rights reserved. Redistribution and use in source and "
    "binary forms, with or without modification, are permitted provided that the following conditions are met: 1. "
    "Redistributions of source code must retain the above copyright notice, this list of conditions and the "
    "following disclaimer. 2. Redistributions in binary form must reproduce the above copyright notice, this list "
    "of conditions and the following disclaimer in the documentation and/or other materials provided with the "
    "distribution. This work was supported in part by funding from the Defense Advanced Research Projects Agency "
    "and the National Science Foundation of the United States of America, and the CMU Sphinx Speech Consortium. "
    "THIS SOFTWARE IS PROVIDED BY CARNEGIE MELLON UNIVERSITY ``AS IS'' AND ANY EXPRESSED OR IMPLIED WARRANTIES, "
    "INCLUDING, BUT NOT LIMITED TO, THE IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A PARTICULAR PURPOSE "
    "ARE DISCLAIMED. IN NO EVENT SHALL CARNEGIE MELLON UNIVERSITY NOR ITS EMPLOYEES BE LIABLE FOR ANY DIRECT, "
    "INDIRECT, INCIDENTAL, SPECIAL, EXEMPLARY, OR CONSEQUENTIAL DAMAGES (INCLUDING, BUT NOT LIMITED TO, PROCUREMENT "
    "OF SUBSTITUTE GOODS OR SERVICES; LOSS OF USE, DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER CAUSED AND "
    "ON ANY THEORY OF LIABILITY, WHETHER IN CONTRACT, STRICT LIABILITY, OR TORT (INCLUDING NEGLIGENCE OR OTHERWISE) "
    "ARISING IN ANY WAY OUT OF THE USE OF THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE."
)


def main() -> None:
    """Write words.txt.gz, a pronunciation a line in the dictionary's order, and card.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dictionary", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    lines = kept(given.dictionary.read_text().splitlines(), _common())
    data = gzip.compress("\n".join(lines).encode(), 9, mtime=0)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / FILE).write_bytes(data)
    card = {
        "data": "CMU pronouncing dictionary as pocketsphinx 5.1.1 ships it, reduced to common words",
        "file": FILE,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "pronunciations": len(lines),
        "date": datetime.now(UTC).date().isoformat(),
        "licence": LICENCE,
    }
    (given.out / "card.json").write_text(json.dumps(card, indent=1) + "\n")
    print(f"{len(lines)} pronunciations, {len(data)} bytes")


def kept(lines: list[str], common: set[str]) -> list[str]:
    """The lines of common words, without the numbers of their variants, of which there are at most three."""
    out = []
    for line in lines:
        found = _LINE.match(line)
        if found and found[1] in common and int(found[2] or 1) <= MAX_VARIANTS:
            out.append(f"{found[1]} {found[3]}")
    return out


def _common() -> set[str]:
    from wordfreq import top_n_list

    return set(top_n_list("en", COMMONEST, ascii_only=True))


if __name__ == "__main__":
    main()
