"""Text conditions: prompts built from layouts, and CLIP's embeddings of prompts and of class names."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from dataengine.data.layout import Layout, class_key
from dataengine.errors import UserError

OPEN_CLIP_WIDTH = 1024  # of the text encoder of Stable Diffusion 2
# names that are not spoken as they are written
WORDS = {
    "plane": "airplane",
    "storagetank": "storage tank",
    "golffield": "golf field",
    "groundtrackfield": "ground track field",
    "baseballfield": "baseball field",
    "basketballcourt": "basketball court",
    "tenniscourt": "tennis court",
    "trainstation": "train station",
    "othervehicle": "vehicle",
    "expresswayservicearea": "expressway service area",
    "expresswaytollstation": "expressway toll station",
}
# AeroGen's words for DIOR's classes, the only ones that its weights have read (its datasets/dataset.py)
PHRASES = {
    "airplane": "airplane parked on the ground",
    "airport": "busy airport",
    "baseball field": "green baseball field",
    "basketball court": "outdoor basketball court",
    "bridge": "long bridge",
    "chimney": "tall chimney",
    "dam": "large dam",
    "expressway service area": "crowded expressway service area",
    "expressway toll station": "busy expressway toll station",
    "golf field": "well-maintained golf field",
    "ground track field": "athletic ground track field",
    "harbor": "bustling harbor",
    "overpass": "elevated overpass",
    "ship": "ship on the water",
    "stadium": "large stadium",
    "storage tank": "industrial storage tank",
    "tennis court": "clay tennis court",
    "train station": "crowded train station",
    "vehicle": "vehicle on the road",
    "windmill": "rotating windmill",
}


def words(class_name: str) -> str:
    """A class name as it is spoken.

    >>> words("Golffield"), words("small-vehicle")
    ('golf field', 'small vehicle')
    """
    return WORDS.get(class_key(class_name)) or re.sub(r"[\s_-]+", " ", class_name.strip().lower())


def phrase(class_name: str) -> str:
    """What a prompt says of a class: AeroGen's phrase, or the name.

    >>> phrase("Golffield"), phrase("small-vehicle")
    ('well-maintained golf field', 'small vehicle')
    """
    return PHRASES.get(words(class_name), words(class_name))


def prompt_of(layout: Layout) -> str:
    """AeroGen's prompt: "an aerial image with" a phrase for each class that is present.

    >>> prompt_of(Layout([[9, 9, 4, 2, 0]] * 3, [0, 1, 0], ("ship", "van"), (20, 20)))
    'an aerial image with ship on the water and van'
    """
    phrases = list(dict.fromkeys(phrase(name) for name in layout.names()))
    if not phrases:
        return "an aerial image"
    listed = phrases[0] if len(phrases) == 1 else f"{', '.join(phrases[:-1])} and {phrases[-1]}"
    return f"an aerial image with {listed}"


def check_tokenizer(tokenizer, vocabulary: int, source: str, padding: str | None = None) -> None:
    """Raises UserError unless a tokenizer is CLIP's, for a text encoder that knows `vocabulary` tokens.

    padding: token that prompts are filled up with; the end token if None, as Stable Diffusion 1 does.

    transformers makes a tokenizer of two words out of an empty or foreign folder: each prompt then reads like the empty
    one, and guidance does nothing.
    """
    known = len(tokenizer)
    if known != vocabulary:
        raise UserError(
            f"{source}: this is not the tokenizer of the text encoder: it knows {known:,} tokens, the encoder "
            f"{vocabulary:,}; give a folder with CLIP's vocab.json and merges.txt, or a hub id that can be reached."
        )
    if tokenizer.pad_token not in (tokenizer.eos_token, padding):
        raise UserError(
            f"{source}: this tokenizer fills prompts up with {tokenizer.pad_token!r}, not with the end token as Stable "
            "Diffusion 1 does; give the one of openai/clip-vit-large-patch14."
        )
    tokens = tokenizer([f"an aerial image with {text}" for text in PHRASES.values()]).input_ids
    if len({tuple(prompt) for prompt in tokens}) < len(PHRASES):
        raise UserError(
            f"{source}: this tokenizer reads different prompts as the same; give a folder with CLIP's vocab.json and "
            "merges.txt, unchanged."
        )


def padding_of(config) -> str | None:
    """The token that the tokenizer of a text encoder (its config) fills up with, other than the end token: "!" where
    it is OpenCLIP's of Stable Diffusion 2, else None."""
    return "!" if config.hidden_size == OPEN_CLIP_WIDTH else None


@torch.no_grad()
def encode_prompts(prompts: Sequence[str], tokenizer, text_encoder) -> torch.Tensor:
    """CLIP's states after the last norm, (B, T, D); prompts longer than the encoder's context are truncated."""
    tokens = tokenizer(
        list(prompts), padding="max_length", max_length=text_encoder.config.max_position_embeddings, truncation=True,
        return_tensors="pt",
    ).input_ids  # fmt: skip
    return text_encoder(tokens.to(text_encoder.device)).last_hidden_state


@torch.no_grad()
def embed_names(names: Sequence[str], tokenizer, text_encoder) -> torch.Tensor:
    """One vector per name, (N, D): CLIP's state at the end token, where a causal model has read the whole name."""
    tokens = tokenizer(
        list(names), padding="max_length", max_length=text_encoder.config.max_position_embeddings, truncation=True,
        return_tensors="pt",
    ).input_ids.to(text_encoder.device)  # fmt: skip
    states = text_encoder(tokens).last_hidden_state
    end = (tokens == tokenizer.eos_token_id).int().argmax(1)
    return states[torch.arange(len(states)), end]
