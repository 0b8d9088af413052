"""Text conditions: prompts built from layouts, and CLIP's embeddings of prompts and of class names."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from dataengine.data.layout import Layout, class_key

# phrases for classes whose bare name is ambiguous; all other classes are called by their name
PHRASES = {
    "airplane": "airplane parked on the ground",
    "plane": "airplane parked on the ground",
    "ship": "ship on the water",
    "storagetank": "storage tank: industrial storage tank",
    "storage-tank": "storage tank: industrial storage tank",
    "golffield": "golf field",
    "groundtrackfield": "ground track field",
    "baseballfield": "baseball field",
    "basketballcourt": "basketball court",
    "tenniscourt": "tennis court",
    "trainstation": "train station",
    "expressway-service-area": "expressway service area",
    "expressway-toll-station": "expressway toll station",
    "othervehicle": "vehicle",
}


def phrase(class_name: str) -> str:
    """Words for a class in a prompt.

    >>> phrase("Golffield"), phrase("small-vehicle")
    ('golf field', 'small vehicle')
    """
    return PHRASES.get(class_key(class_name), class_name.replace("-", " ").replace("_", " ").lower())


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
