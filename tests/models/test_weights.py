import pytest

from liftplace.common.errors import UsageError
from liftplace.models.weights import plain_name, variant_of, variant_to_read


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("model.safetensors", ""),
        ("diffusion_pytorch_model.safetensors", ""),
        ("model-00001-of-00002.safetensors", ""),
        ("model.safetensors.index.json", ""),
        ("diffusion_pytorch_model.non_ema.safetensors", "non_ema"),
        ("model.fp16-00001-of-00002.safetensors", "fp16"),
        ("model-00001-of-00002.fp16.safetensors", "fp16"),
        ("model.safetensors.index.fp16.json", "fp16"),
        ("model.safetensors.fp16.index.json", "fp16"),
        ("v1-5-pruned-emaonly.safetensors", None),
        ("model_pruned.safetensors", None),
        ("pytorch_model.bin", None),
        ("config.json", None),
    ],
)
def test_variant_of_a_file(name, variant):
    assert variant_of(name) == variant


PLAIN, HALF, NON_EMA = (
    f"model{variant}.safetensors" for variant in ("", ".fp16", ".non_ema")
)  # fmt: skip


@pytest.mark.parametrize(
    ("names", "asked", "taken"),
    [
        ([PLAIN, HALF], None, None),
        ([PLAIN, HALF], "fp16", "fp16"),
        ([HALF], None, "fp16"),
        ([PLAIN], "fp16", None),  # as diffusers: a part without the variant is read without it
        ([HALF, NON_EMA], "non_ema", "non_ema"),
        (["config.json"], "fp16", None),
    ],
)
def test_variant_that_is_read(names, asked, taken):
    assert variant_to_read(names, asked, "here") == taken


def test_one_of_several_variants_must_be_asked_for():
    with pytest.raises(UsageError, match="here has weights of the variants fp16, non_ema: say wi"):
        variant_to_read([HALF, NON_EMA], None, "here")


def test_a_copy_loses_its_variant_but_for_shards_which_the_index_names():
    names = [
        HALF,
        PLAIN,
        "model.fp16-00001-of-00002.safetensors",
        "model.safetensors.index.fp16.json",
    ]
    assert list(map(plain_name, names)) == [PLAIN, PLAIN, names[2], "model.safetensors.index.json"]
