"""What the transformer families share: blocks in a row, whole heads, how layers are mapped."""

from liftplace.common.errors import UsageError
from liftplace.families.channel_graph import ChannelGraph
from liftplace.families.family import Family


class Transformer(Family):
    component = "transformer"

    def width_multiple(self, config) -> int:
        """What the residual stream's width must be a multiple of."""
        return 4  # sine and cosine of a row and of a column

    def blocks(self, model):
        return {
            f"{name}.{i}": block
            for name in self.layers(model.config)
            for i, block in enumerate(getattr(model, name))
        }

    def layers(self, config):
        return {"transformer_blocks": config["num_layers"]}

    def keep_layers_config(self, config, kept: dict[str, list[int]]) -> dict:
        """The config of a model with these blocks of each of `layers`."""
        return _arguments(config) | {"num_layers": len(kept["transformer_blocks"])}

    def keep_layers_weights(self, weights: dict, config) -> dict:
        """The weights of the blocks that are kept, under their new names, as this config's."""
        return weights

    def narrow_config(self, config, width, norm_num_groups=None):
        if norm_num_groups is not None:
            raise UsageError(f"norm_num_groups: {self.class_name} has no group norms, leave it out")
        return _arguments(config) | {"num_attention_heads": self._narrow_heads(config, width)}

    def _narrow_heads(self, config, width: float) -> int:
        """The number of heads nearest to a share of them with which the model can be built."""
        heads, channels = config["num_attention_heads"], config["attention_head_dim"]
        multiple = self.width_multiple(config)
        fitting = [n for n in range(1, heads) if n * channels % multiple == 0]
        best = min((*fitting, heads), key=lambda n: (abs(n - width * heads), n))
        if width < 1 and best == heads or width * heads < best / 2:
            possible = ", ".join(f"{n / heads:.4g}" for n in fitting) or "none"
            raise UsageError(
                f"--width {width} of {heads} heads of {channels} channels cannot be rounded to "
                f"whole heads: possible are {possible}"
            )
        return best


def _arguments(config) -> dict:
    """A config without what says where it is from."""
    return {name: value for name, value in config.items() if not name.startswith("_")}


def inner_dim(config) -> int:
    """Channels of the residual stream."""
    return config["num_attention_heads"] * config["attention_head_dim"]


def position_code_channels(size: int, kept: int) -> list[int]:
    """The channels of a sine-cosine position code of width `size` that hold the code of width
    `kept`, or come nearest to it.

    Such a code has four quarters (sine and cosine of one axis, then of the other), and channel i
    of a quarter of m the frequency 10000^(-i/m). So channels at the same share of the width
    belong together: i of `kept` is the nearest to i size / kept.
    """
    return [(2 * i * size + kept) // (2 * kept) for i in range(kept)]


class GraphBuilder:
    """Builds the channel graph of a transformer, module by module.

    Args:
        model: the teacher.
        student_config: of a narrower model with the same blocks.
        stream: the channels of the residual stream that stay, where they are given.
    """

    def __init__(self, model, student_config, *, stream: list[int] | None = None) -> None:
        self.graph = ChannelGraph()
        self.head_dim = model.config["attention_head_dim"]
        self.size, self.kept = inner_dim(model.config), inner_dim(student_config)
        self.shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        self.stream = self.graph.group("stream", self.size, self.kept, fixed=stream)

    def group(self, name: str, times: int = 1, unit: int = 1) -> str:
        """A new group, `times` as wide as the residual stream."""
        return self.graph.group(name, times * self.size, times * self.kept, unit=unit)

    def part(self, name: str, share: int) -> str:
        """A new group as wide as the first of `share` equal parts of the residual stream, whose
        channels stay as there."""
        fixed = position_code_channels(self.size // share, self.kept // share)
        return self.graph.group(name, self.size // share, self.kept // share, fixed=fixed)

    def linear(self, name: str, inputs: tuple = (), outputs: tuple = ()) -> None:
        """A linear layer or convolution and what it reads and writes; all of it by default."""
        if inputs:
            self.graph.axis(f"{name}.weight", 1, *inputs)
        if outputs:
            self.graph.axis(f"{name}.weight", 0, *outputs)
            self._vector(f"{name}.bias", *outputs)

    def norm(self, name: str, group: str) -> None:
        """A norm's weight and bias, if it has them."""
        self._vector(f"{name}.weight", group)
        self._vector(f"{name}.bias", group)

    def embedder(self, name: str, output: str) -> None:
        """The two linear layers behind a sinusoid or a text."""
        size = self.shapes[f"{name}.linear_1.bias"][0]
        hidden = f"{name}.hidden"
        self.graph.group(hidden, size, size * self.kept // self.size)
        self.linear(f"{name}.linear_1", outputs=(hidden,))
        self.linear(f"{name}.linear_2", (hidden,), (output,))

    def attention(self, name: str, query: tuple, key: tuple | None = None, text: tuple = ()) -> str:
        """The projections of an attention layer, each onto whole heads; returns their group.

        Args:
            query: what the queries read and the output is added to.
            key: what keys and values read, if something else.
            text: what the added projections of a joint attention read and are added to.
        """
        heads = self.group(f"{name}.heads", unit=self.head_dim)
        key = query if key is None else key
        reads = {"to_q": query, "to_k": key, "to_v": key}
        if text:
            reads |= {"add_q_proj": text, "add_k_proj": text, "add_v_proj": text}
        for projection, inputs in reads.items():
            self.linear(f"{name}.{projection}", inputs, (heads,))
        for projection, outputs in {"to_out.0": query, "to_add_out": text}.items():
            if f"{name}.{projection}.weight" in self.shapes:
                self.linear(f"{name}.{projection}", (heads,), outputs)
        for norm in ("norm_q", "norm_k", "norm_added_q", "norm_added_k"):
            if self.shapes.get(f"{name}.{norm}.weight") == (self.size,):  # across heads
                self.norm(f"{name}.{norm}", heads)
        return heads

    def feed_forward(self, name: str, stream: str) -> None:
        inner = self.shapes[f"{name}.net.2.weight"][1]
        hidden = self.group(f"{name}.hidden", times=inner // self.size)
        halves = self.shapes[f"{name}.net.0.proj.weight"][0] // inner  # 2 with a gate, as in GEGLU
        self.linear(f"{name}.net.0.proj", (stream,), halves * (hidden,))
        self.linear(f"{name}.net.2", (hidden,), (stream,))

    def modulation(self, name: str, condition: str, stream: str) -> None:
        """The linear layer of an adaptive norm: shifts, scales and gates one after the other."""
        chunks = self.shapes[f"{name}.weight"][0] // self.size
        self.linear(name, (condition,), chunks * (stream,))

    def _vector(self, name: str, *segments) -> None:
        if name in self.shapes:
            self.graph.axis(name, 0, *segments)
