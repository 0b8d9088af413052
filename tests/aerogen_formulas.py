"""AeroGen's published model written out plainly on its checkpoint's own names: the paper's formulas (section 3) and the
latent diffusion U-Net, for one sample at a time, without any of our modules."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

UNET = "model.diffusion_model"
HEADS = 8


class Original:
    """A state dict under its original names, and what the original computes with it."""

    def __init__(self, state: dict[str, torch.Tensor]):
        self.state = state

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        y = x @ self.state[f"{name}.weight"].flatten(1).T
        return y + self.state[f"{name}.bias"] if f"{name}.bias" in self.state else y

    def conv(self, name: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
        weight = self.state[f"{name}.weight"]
        return F.conv2d(x, weight, self.state[f"{name}.bias"], stride, padding=weight.shape[-1] // 2)

    def layer_norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True, unbiased=False) + 1e-5).sqrt()
        return x * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    def group_norm(self, name: str, x: torch.Tensor, epsilon: float) -> torch.Tensor:
        return F.group_norm(x, 32, self.state[f"{name}.weight"], self.state[f"{name}.bias"], epsilon)

    def box_tokens(self, corners: torch.Tensor, categories: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """h = MLP([c; gamma(x)]) (section 3.2): corners (N, 8), categories (N, D), valid (N,) 0 or 1 -> (N, width)."""
        waves = []
        for k in range(8):
            frequency = 100 ** (k / 8)
            waves += [torch.sin(frequency * corners), torch.cos(frequency * corners)]
        valid, part = valid[:, None], "condition_tokenizer"
        category = valid * categories + (1 - valid) * self.state[f"{part}.null_text_feature"]
        position = valid * torch.cat(waves, 1) + (1 - valid) * self.state[f"{part}.null_position_feature"]
        x = F.silu(self.linear(f"{part}.linears.0", torch.cat([category, position], 1)))
        return self.linear(f"{part}.linears.4", F.silu(self.linear(f"{part}.linears.2", x)))

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """softmax(Q K^T / sqrt(d)) V in 8 heads: (L, C), (N, C), (N, C) -> (L, C)."""
        d, out = query.shape[1] // HEADS, []
        for h in range(HEADS):
            q, k, v = (x[:, h * d : (h + 1) * d] for x in (query, key, value))
            out.append(torch.softmax(q @ k.T / math.sqrt(d), -1) @ v)
        return torch.cat(out, 1)

    def dual_attention(self, name: str, x: torch.Tensor, text: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        """Attn(Q, K_g, V_g) + lambda Attn(Q, K_l, V_l) with lambda 1 (section 3.3)."""
        q = self.linear(f"{name}.to_q", x)
        out = self.attend(q, self.linear(f"{name}.to_k", text), self.linear(f"{name}.to_v", text))
        k, v = self.linear(f"{name}.to_k_control", boxes), self.linear(f"{name}.to_v_control", boxes)
        return self.linear(f"{name}.to_out.0", out + self.attend(q, k, v))

    def feed_forward(self, name: str, x: torch.Tensor) -> torch.Tensor:
        value, gate = self.linear(f"{name}.net.0.proj", x).chunk(2, -1)
        return self.linear(f"{name}.net.2", value * F.gelu(gate))

    def regional(
        self, features: torch.Tensor, categories: torch.Tensor, masks: torch.Tensor, timestep: int
    ) -> torch.Tensor:
        """0.2 sum_i M_i f(x, c_i) + 0.8 x from timestep 200 on (section 3.3 and its code): (C, H, W), (N, D),
        (N, H, W). The attention is computed whole, with query, key and softmax over its one key."""
        if timestep < 200:
            return features
        name, total = f"{UNET}.maskcrossattention", torch.zeros_like(features)
        for category, mask in zip(categories, masks, strict=True):
            x = self.linear(f"{name}.proj_in", features.flatten(1).T)  # (H W, C)
            q = self.linear(f"{name}.crossattn.to_q", self.layer_norm(f"{name}.norm2", x))
            k, v = (self.linear(f"{name}.crossattn.to_{one}", category[None]) for one in "kv")
            x = x + self.linear(f"{name}.crossattn.to_out.0", self.attend(q, k, v))
            x = x + self.feed_forward(f"{name}.ffn", self.layer_norm(f"{name}.norm3", x))
            total += self.linear(f"{name}.proj_out", x).T.reshape(features.shape) * mask
        return 0.2 * total + 0.8 * features

    def resblock(self, name: str, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        h = self.conv(f"{name}.in_layers.2", F.silu(self.group_norm(f"{name}.in_layers.0", x, 1e-5)))
        h = h + self.linear(f"{name}.emb_layers.1", F.silu(time))[:, None, None]
        h = self.conv(f"{name}.out_layers.3", F.silu(self.group_norm(f"{name}.out_layers.0", h, 1e-5)))
        skip = f"{name}.skip_connection"
        return h + (self.conv(skip, x) if f"{skip}.weight" in self.state else x)

    def transformer(self, name: str, x: torch.Tensor, text: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        block = f"{name}.transformer_blocks.0"
        h = self.conv(f"{name}.proj_in", self.group_norm(f"{name}.norm", x, 1e-6))[0].flatten(1).T  # (L, C)
        n = self.layer_norm(f"{block}.norm1", h)
        q, k, v = (self.linear(f"{block}.attn1.to_{one}", n) for one in "qkv")
        h = h + self.linear(f"{block}.attn1.to_out.0", self.attend(q, k, v))
        h = h + self.dual_attention(f"{block}.attn2", self.layer_norm(f"{block}.norm2", h), text, boxes)
        h = h + self.feed_forward(f"{block}.ff", self.layer_norm(f"{block}.norm3", h))
        return x + self.conv(f"{name}.proj_out", h.T.reshape(x.shape))

    def block(self, name: str, x: torch.Tensor, time, text, boxes) -> torch.Tensor:
        """One of the U-Net's input, middle or output blocks, by what parts it has."""
        if f"{name}.0.op.weight" in self.state:
            return self.conv(f"{name}.0.op", x, stride=2)
        x = self.resblock(f"{name}.0", x, time)
        if f"{name}.1.norm.weight" in self.state:
            x = self.transformer(f"{name}.1", x, text, boxes)
        for up in (f"{name}.1.conv", f"{name}.2.conv"):
            if f"{up}.weight" in self.state:
                x = self.conv(up, F.interpolate(x, scale_factor=2, mode="nearest"))
        return x

    def noise(self, latents, timestep: int, text, corners, categories, masks, valid) -> torch.Tensor:
        """The U-Net: latents (4, S, S), text (T, D), and N slots of objects, of which `valid` says which hold one."""
        boxes, width = self.box_tokens(corners, categories, valid), self.state[f"{UNET}.out.0.weight"].shape[0]
        frequencies = torch.exp(-math.log(10000) * torch.arange(width // 2) / (width // 2))
        time = torch.cat([torch.cos(timestep * frequencies), torch.sin(timestep * frequencies)])
        time = self.linear(f"{UNET}.time_embed.2", F.silu(self.linear(f"{UNET}.time_embed.0", time)))
        x = self.conv(f"{UNET}.input_blocks.0.0", latents[None])
        x = self.regional(x[0], categories, masks, timestep)[None]
        kept = [x]
        for i in range(1, 12):
            x = self.block(f"{UNET}.input_blocks.{i}", x, time, text, boxes)
            kept.append(x)
        x = self.resblock(f"{UNET}.middle_block.0", x, time)
        x = self.resblock(f"{UNET}.middle_block.2", self.transformer(f"{UNET}.middle_block.1", x, text, boxes), time)
        for i in range(12):
            x = self.block(f"{UNET}.output_blocks.{i}", torch.cat([x, kept.pop()], 1), time, text, boxes)
        return self.conv(f"{UNET}.out.2", F.silu(self.group_norm(f"{UNET}.out.0", x, 1e-5)))[0]

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """The autoencoder's decoder: (4, S, S) -> (3, 8 S, 8 S)."""
        name = "first_stage_model.decoder"

        def resblock(name: str, x: torch.Tensor) -> torch.Tensor:
            h = self.conv(f"{name}.conv1", F.silu(self.group_norm(f"{name}.norm1", x, 1e-6)))
            h = self.conv(f"{name}.conv2", F.silu(self.group_norm(f"{name}.norm2", h, 1e-6)))
            return h + (self.conv(f"{name}.nin_shortcut", x) if f"{name}.nin_shortcut.weight" in self.state else x)

        x = self.conv(f"{name}.conv_in", self.conv("first_stage_model.post_quant_conv", latents[None]))
        x = resblock(f"{name}.mid.block_1", x)
        flat = self.group_norm(f"{name}.mid.attn_1.norm", x, 1e-6)[0].flatten(1).T
        q, k, v = (self.linear(f"{name}.mid.attn_1.{one}", flat) for one in "qkv")
        read = torch.softmax(q @ k.T / math.sqrt(q.shape[1]), -1) @ v
        x = x + self.linear(f"{name}.mid.attn_1.proj_out", read).T.reshape(x.shape)
        x = resblock(f"{name}.mid.block_2", x)
        for level in (3, 2, 1, 0):
            for i in range(3):
                x = resblock(f"{name}.up.{level}.block.{i}", x)
            if level:
                x = F.interpolate(x, scale_factor=2, mode="nearest")
                x = self.conv(f"{name}.up.{level}.upsample.conv", x)
        return self.conv(f"{name}.conv_out", F.silu(self.group_norm(f"{name}.norm_out", x, 1e-6)))[0]

    def encode_text(self, tokens: torch.Tensor, heads: int) -> torch.Tensor:
        """CLIP's text model: tokens (T,) -> states (T, D) after the last norm. Each token sees those before it."""
        name = "cond_stage_model.transformer.text_model"
        x = self.state[f"{name}.embeddings.token_embedding.weight"][tokens]
        x = x + self.state[f"{name}.embeddings.position_embedding.weight"][: len(tokens)]
        later = torch.ones(len(tokens), len(tokens)).triu(1).bool()
        d, i = x.shape[1] // heads, 0
        while f"{name}.encoder.layers.{i}.mlp.fc1.weight" in self.state:
            one = f"{name}.encoder.layers.{i}"
            n = self.layer_norm(f"{one}.layer_norm1", x)
            q, k, v = (self.linear(f"{one}.self_attn.{part}_proj", n) for part in "qkv")
            read = []
            for h in range(heads):
                part = slice(h * d, (h + 1) * d)
                scores = (q[:, part] @ k[:, part].T / math.sqrt(d)).masked_fill(later, -torch.inf)
                read.append(torch.softmax(scores, -1) @ v[:, part])
            x = x + self.linear(f"{one}.self_attn.out_proj", torch.cat(read, 1))
            h = self.linear(f"{one}.mlp.fc1", self.layer_norm(f"{one}.layer_norm2", x))
            x = x + self.linear(f"{one}.mlp.fc2", h * torch.sigmoid(1.702 * h))
            i += 1
        return self.layer_norm(f"{name}.final_layer_norm", x)
