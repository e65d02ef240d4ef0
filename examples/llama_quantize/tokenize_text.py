"""tokenize_text.py TOKENIZER_JSON TEXT: the ids of a text's tokens, as 32-bit integers of this machine on the standard output."""

import array
import sys

try:
    from tokenizers import Tokenizer
except ImportError:
    sys.exit("residua: the Python package tokenizers is missing: pip install tokenizers")

tokenizer = Tokenizer.from_file(sys.argv[1])
with open(sys.argv[2], encoding="utf-8", errors="replace", newline="") as file:
    encoded = tokenizer.encode(file.read(), add_special_tokens=False)
sys.stdout.buffer.write(array.array("i", encoded.ids).tobytes())
