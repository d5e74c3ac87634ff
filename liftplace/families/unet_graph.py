"""Which channels of a U-Net are the same: its blocks walked in the order of the forward pass."""

import math

from torch import nn

from liftplace.families.channel_graph import ChannelGraph, Segment

Stream = tuple[str, ...]  # the groups that a hidden state's channels run over, one after another


def unet_channel_graph(teacher: nn.Module, student: nn.Module) -> ChannelGraph:
    """The channel graph of a UNet2DModel or UNet2DConditionModel.

    Args:
        student: for its sizes only; may be on the meta device.
    """
    walk = _Walk(teacher, student)
    walk.time_embedding()
    stream = walk.layer("conv_in", (teacher.config["in_channels"],))
    skips = [stream]
    for i in range(len(teacher.down_blocks)):
        stream = walk.down_block(f"down_blocks.{i}", stream, skips)
    if teacher.mid_block is not None:
        stream = walk.mid_block("mid_block", stream)
    for i in range(len(teacher.up_blocks)):
        stream = walk.up_block(f"up_blocks.{i}", stream, skips)
    walk.norm("conv_norm_out", stream)
    walk.layer("conv_out", stream, (teacher.config["out_channels"],))
    return walk.graph


def nearest_frequencies(size: int, kept: int, shift: float) -> list[int]:
    """Which of `size` sinusoidal frequencies are nearest to each of `kept` ones.

    Frequency i of n is 10000^(-i / (n - shift)), so that with no shift and half as many it is
    exactly every second.
    """
    step = (size - shift) / (kept - shift)
    return [min(size - 1, math.floor(i * step + 0.5)) for i in range(kept)]


class _Walk:
    def __init__(self, teacher: nn.Module, student: nn.Module):
        self.config = teacher.config
        self.teacher = dict(teacher.named_modules())
        self.student = dict(student.named_modules())
        self.graph = ChannelGraph()

    # Parts

    def layer(
        self, name: str, inputs: tuple[Segment, ...], outputs: tuple[Segment, ...] | None = None
    ) -> Stream:
        """A linear map or convolution; into a new group of its name unless `outputs` are given."""
        if outputs is None:
            outputs = (self._group(name),)
        self.graph.axis(f"{name}.weight", 0, *outputs)
        self.graph.axis(f"{name}.weight", 1, *inputs)
        if self.teacher[name].bias is not None:
            self.graph.axis(f"{name}.bias", 0, *outputs)
        return outputs

    def _group(self, name: str) -> str:
        """A new group, of what a layer writes."""
        old, new = (net[name].weight.shape[0] for net in (self.teacher, self.student))
        return self.graph.group(name, old, new)

    def norm(self, name: str, stream: Stream) -> None:
        """A group norm or layer norm."""
        for parameter, _ in self.teacher[name].named_parameters():
            self.graph.axis(f"{name}.{parameter}", 0, *stream)
        if isinstance(self.teacher[name], nn.GroupNorm):
            self.graph.group_norm(self.student[name].num_groups, *stream)

    def time_embedding(self) -> None:
        frequencies = self._frequencies()
        hidden = self.layer("time_embedding.linear_1", frequencies)
        self.temb = self.layer("time_embedding.linear_2", hidden)
        if "time_embedding.cond_proj" in self.teacher:
            self.graph.axis("time_embedding.cond_proj.weight", 0, *frequencies)
        if "class_embedding" in self.teacher:
            self.graph.axis("class_embedding.weight", 1, *self.temb)
        if "add_embedding" in self.teacher:
            inputs = self.teacher["add_embedding.linear_1"].in_features
            hidden = self.layer("add_embedding.linear_1", (inputs,))
            self.layer("add_embedding.linear_2", hidden, self.temb)

    def _frequencies(self) -> Stream:
        """What the first layer of the time embedding reads: sines and cosines, or a table."""
        size, kept = self.sizes("time_embedding.linear_1", "in_features")
        if self.config["time_embedding_type"] == "learned":
            name = self.graph.group("time_proj", size, kept)
            self.graph.axis("time_proj.weight", 1, name)
            return (name,)
        fixed = None
        if self.config["time_embedding_type"] == "positional":
            fixed = nearest_frequencies(size // 2, kept // 2, self.config["freq_shift"])
        name = self.graph.group("time_proj", size // 2, kept // 2, fixed=fixed)
        if fixed is None:  # random frequencies, which are saved with the weights
            self.graph.axis("time_proj.weight", 0, name)
        return (name, name) if size % 2 == 0 else (name, name, 1)  # an odd one is a zero

    # Blocks

    def down_block(self, name: str, stream: Stream, skips: list[Stream]) -> Stream:
        for i in range(len(self.teacher[name].resnets)):
            stream = self.resnet(f"{name}.resnets.{i}", stream)
            self.attention_of(name, i, stream)
            skips.append(stream)
        for i in range(len(self.teacher[name].downsamplers or ())):
            stream = self.sampler(f"{name}.downsamplers.{i}", stream)
            skips.append(stream)
        return stream

    def mid_block(self, name: str, stream: Stream) -> Stream:
        stream = self.resnet(f"{name}.resnets.0", stream)
        for i in range(1, len(self.teacher[name].resnets)):
            self.attention_of(name, i - 1, stream)
            stream = self.resnet(f"{name}.resnets.{i}", stream)
        return stream

    def up_block(self, name: str, stream: Stream, skips: list[Stream]) -> Stream:
        for i in range(len(self.teacher[name].resnets)):
            stream = self.resnet(f"{name}.resnets.{i}", stream + skips.pop())
            self.attention_of(name, i, stream)
        for i in range(len(self.teacher[name].upsamplers or ())):
            stream = self.sampler(f"{name}.upsamplers.{i}", stream)
        return stream

    def sampler(self, name: str, stream: Stream) -> Stream:
        """Up or down, by a resnet, a convolution or without weights."""
        if f"{name}.conv1" in self.teacher:
            return self.resnet(name, stream)
        has_weights = any(True for _ in self.teacher[name].parameters())
        return self.layer(f"{name}.conv", stream) if has_weights else stream

    def resnet(self, name: str, stream: Stream) -> Stream:
        self.norm(f"{name}.norm1", stream)
        hidden = self.layer(f"{name}.conv1", stream)
        shift_only = self.teacher[name].time_embedding_norm == "default"
        self.layer(f"{name}.time_emb_proj", self.temb, hidden if shift_only else hidden * 2)
        self.norm(f"{name}.norm2", hidden)
        shortcut = f"{name}.conv_shortcut"
        if shortcut in self.student and shortcut in self.teacher:
            stream = self.layer(shortcut, stream)
        elif shortcut in self.teacher:  # both sides of it are as wide in the student: none there
            stream = (self._group(f"{name}.conv2"),)
        self.layer(f"{name}.conv2", hidden, stream)
        return stream

    def attention_of(self, name: str, i: int, stream: Stream) -> None:
        """A block's attention of this number, where it has one: a residual, so the same stream."""
        name = f"{name}.attentions.{i}"
        if f"{name}.transformer_blocks" in self.teacher:
            self.transformer(name, stream)
        elif name in self.teacher:
            if f"{name}.group_norm" in self.teacher:
                self.norm(f"{name}.group_norm", stream)
            self.attention(name, stream, stream)

    def transformer(self, name: str, stream: Stream) -> None:
        self.norm(f"{name}.norm", stream)
        inner = self.layer(f"{name}.proj_in", stream)
        for i, block in enumerate(self.teacher[name].transformer_blocks):
            layer = f"{name}.transformer_blocks.{i}"
            text = (block.attn2.to_k.in_features,) if block.attn2.is_cross_attention else inner
            self.norm(f"{layer}.norm1", inner)
            self.attention(f"{layer}.attn1", inner, text if block.only_cross_attention else inner)
            self.norm(f"{layer}.norm2", inner)
            self.attention(f"{layer}.attn2", inner, text)
            self.norm(f"{layer}.norm3", inner)
            self.feed_forward(f"{layer}.ff", inner)
        self.layer(f"{name}.proj_out", inner, stream)

    def attention(self, name: str, stream: Stream, context: tuple[Segment, ...]) -> None:
        size, kept = self.sizes(f"{name}.to_q", "out_features")
        heads, kept_heads = self.sizes(name, "heads")
        old, new = size // heads, kept // kept_heads
        if old == new:  # whole heads stay
            queries = values = (self.graph.group(f"{name}.heads", size, kept, unit=old),)
        else:  # a share of each head stays
            cuts = range(0, size, old)
            queries = (self.graph.group(f"{name}.queries", size, kept, boundaries=cuts),)
            values = (self.graph.group(f"{name}.values", size, kept, boundaries=cuts),)
            # The softmax divides by the root of the head's width, which is now another.
            for parameter, _ in self.teacher[f"{name}.to_q"].named_parameters():
                self.graph.scale(f"{name}.to_q.{parameter}", math.sqrt(new / old))
        self.layer(f"{name}.to_q", stream, queries)
        self.layer(f"{name}.to_k", context, queries)
        self.layer(f"{name}.to_v", context, values)
        self.layer(f"{name}.to_out.0", values, stream)

    def feed_forward(self, name: str, stream: Stream) -> None:
        size, kept = self.sizes(f"{name}.net.2", "in_features")
        hidden = (self.graph.group(f"{name}.hidden", size, kept),)
        chunks = self.teacher[f"{name}.net.0.proj"].out_features // size  # GEGLU has two
        self.layer(f"{name}.net.0.proj", stream, hidden * chunks)
        self.layer(f"{name}.net.2", hidden, stream)

    def sizes(self, name: str, attribute: str) -> tuple[int, int]:
        """A size of the teacher's module and of the student's."""
        return getattr(self.teacher[name], attribute), getattr(self.student[name], attribute)
