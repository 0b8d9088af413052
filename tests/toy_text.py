"""A CLIP tokenizer of a few letters."""

from __future__ import annotations

import json
from pathlib import Path


def toy_tokenizer(folder: Path, length: int = 16):
    """Reads words letter by letter; 60 tokens, the last two begin and end a text."""
    from transformers import CLIPTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz:,"
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "?", "<|unk|>", "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=length)
