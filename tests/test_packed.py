"""The family's packed int4 and int8 checkpoints open as what their authors multiply with."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from glm.checkpoint.recognise import recognise
from glm.errors import CheckpointError
from glm.load import load_model
from glm.quantisation.packed import unpack, unpacked_state
from glm.quantisation.quantise import dequantised, quantised_modules
from tests.packed_checkpoint import EMBEDDINGS, LINEAR, pack, pack_folder, packed_state, unpacked
from tests.shared_files import GOLDEN
from tests.tiny_checkpoint import write_checkpoint

QKV = "transformer.encoder.layers.1.self_attention.query_key_value.weight"


@pytest.fixture
def folder(tmp_path):
    return write_checkpoint(tmp_path / "chatglm3-tiny", vocabulary=66000)


def change(folder, **changes):
    """Change tensors of the packed file; `__` stands for a dot, None removes."""
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in changes.items():
        tensors.pop(name.replace("__", "."))
        if tensor is not None:
            tensors[name.replace("__", ".")] = tensor
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_the_even_column_is_the_high_half_of_a_byte():
    byte = torch.tensor([[0x79, 0xF3 - 256]], dtype=torch.int8)
    wanted = torch.tensor([[7.0, -7.0, -1.0, 3.0]])
    assert torch.equal(unpack(byte, torch.ones(1), 4, torch.float32), wanted)
    assert torch.equal(pack(wanted, 4)[0], byte)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_matrix_comes_back_as_the_rounded_products(bits, dtype):
    weight = torch.randn(10_000, 64)  # more than is unpacked at a time
    weight[:3] *= torch.tensor([1e-3, 1e2, 1.0])[:, None]
    packed, scale = pack(weight, bits)
    assert torch.equal(unpack(packed, scale, bits, dtype), unpacked(weight, bits).to(dtype))


def test_every_byte_unpacks_to_its_two_numbers():
    bytes_ = torch.arange(-128, 128, dtype=torch.int16).to(torch.int8)[None]
    found = unpack(bytes_, torch.ones(1), 4, torch.float32)[0].int()
    high, low = found[0::2], found[1::2]
    assert high.min() == low.min() == -8 and high.max() == low.max() == 7
    assert torch.equal((high * 16 + (low & 15)), bytes_[0].int())


@pytest.mark.parametrize("binary", [False, True], ids=["safetensors", "bin"])
@pytest.mark.parametrize("bits", [4, 8])
def test_a_packed_checkpoint_equals_its_unpacked_twin(folder, bits, binary):
    packed, twin = (load_model(recognise(f), "cpu") for f in pack_folder(folder, bits, binary))
    wanted = twin.state_dict()
    assert dict.fromkeys(wanted, True) == {
        name: torch.equal(weight, wanted[name]) for name, weight in packed.state_dict().items()
    }
    ids = torch.randint(3, 60000, (2, 30))
    with torch.inference_mode():
        assert torch.equal(packed(input_ids=ids).logits, twin(input_ids=ids).logits)


def test_in_half_precision_it_equals_the_twin_too(folder):
    folder, twin = pack_folder(folder, 4)
    pair = [load_model(recognise(f), "cpu", "bfloat16").state_dict() for f in (folder, twin)]
    assert all(torch.equal(weight, pair[1][name]) for name, weight in pair[0].items())


def test_a_packed_checkpoint_can_stay_small(folder):
    folder, twin = pack_folder(folder, 4)
    info, plain = recognise(folder), load_model(recognise(twin), "cpu")
    model = load_model(info, "cpu", bits=4)
    for name, module in quantised_modules(model):
        weight = plain.get_submodule(name).weight
        assert (dequantised(module) - weight).norm() < 0.12 * weight.norm()


def test_packed_in_8_bit_and_opened_in_8_bit_nothing_more_is_lost(folder):
    folder, twin = pack_folder(folder, 8)
    plain = load_model(recognise(twin), "cpu")
    for name, module in quantised_modules(load_model(recognise(folder), "cpu", bits=8)):
        torch.testing.assert_close(
            dequantised(module), plain.get_submodule(name).weight, rtol=1e-3, atol=1e-6
        )


@pytest.mark.parametrize("bits", [4, 8])
def test_version_1_names_and_packed_embeddings_unpack_as_well(tmp_path, bits):
    """chatglm-6b-int4-qe packs the embeddings and the head, too."""
    names, generator = (*LINEAR, *EMBEDDINGS), torch.Generator().manual_seed(0)
    shapes = {
        "transformer.word_embeddings.weight": (320, 64),
        "transformer.layers.0.attention.query_key_value.weight": (192, 64),
        "transformer.layers.0.mlp.dense_4h_to_h.weight": (64, 256),
        "lm_head.weight": (320, 64),
    }
    state = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    state["transformer.layers.0.attention.query_key_value.bias"] = torch.randn(192)
    folder = write_checkpoint(tmp_path / "chatglm-6b-int4-qe", vocabulary=300)
    save_file(packed_state(state, bits, names), folder / "model.safetensors")
    info = recognise(folder)
    info.config.update(quantization_bit=bits, quantization_embeddings=True)
    found = unpacked_state(info, torch.float32)
    assert set(found) == set(state)
    for name in shapes:
        assert torch.equal(found[name][...], unpacked(state[name], bits))


def test_the_golden_version_1_checkpoint_survives_packing(tmp_path):
    if not GOLDEN.exists():
        return
    state = torch.load(GOLDEN / "models" / "chatglm-6b" / "pytorch_model.bin", weights_only=True)
    folder = write_checkpoint(tmp_path / "chatglm-6b-int4", vocabulary=300)
    (folder / "model.safetensors").unlink()
    torch.save(packed_state(state, 4), folder / "pytorch_model.bin")
    info = recognise(folder)
    info.config["quantization_bit"] = 4
    found = unpacked_state(info, torch.float32)
    assert set(found) == set(state)
    packed = [name for name in state if name.endswith(LINEAR)]
    assert len(packed) == 12
    assert all(torch.equal(found[n][...], unpacked(state[n], 4)) for n in packed)


def test_plain_weights_open_whatever_the_config_says_of_packing(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_bit": 4}))
    stored = load_file(folder / "model.safetensors")
    model = load_model(recognise(folder), "cpu")
    assert torch.equal(model.lm_head.weight, stored["transformer.output_layer.weight"])


def test_nothing_is_unpacked_before_it_is_asked_for(folder, monkeypatch):
    info = recognise(pack_folder(folder, 4)[0])
    calls = []
    monkeypatch.setattr(
        "glm.quantisation.packed.unpack", lambda *a: calls.append(a) or torch.zeros(1)
    )
    state = unpacked_state(info, torch.float32)
    assert not calls
    state[QKV][...]
    assert len(calls) == 1


def test_a_packed_weight_without_its_scale_is_named(folder):
    folder, _ = pack_folder(folder, 4)
    change(folder, **{f"{QKV}_scale".replace(".", "__"): None})
    with pytest.raises(CheckpointError, match=r"lacks .*query_key_value\.weight_scale"):
        load_model(recognise(folder))


def test_a_scale_without_its_weight_is_named(folder):
    folder, _ = pack_folder(folder, 4)
    change(folder, **{QKV.replace(".", "__"): None})
    with pytest.raises(CheckpointError, match=r"query_key_value\.weight_scale scales no weight"):
        load_model(recognise(folder))


@pytest.mark.parametrize(
    ("scale", "sentence"),
    [
        (torch.ones(5).half(), r"weight_scale has the shape \[5\]"),
        (torch.full((128,), torch.nan).half(), "weight_scale holds NaN or infinity"),
    ],
)
def test_a_scale_that_does_not_fit_is_refused(folder, scale, sentence):
    folder, _ = pack_folder(folder, 4)
    change(folder, **{f"{QKV}_scale".replace(".", "__"): scale})
    with pytest.raises(CheckpointError, match=sentence):
        load_model(recognise(folder))


@pytest.mark.parametrize("said", [8, 3, None])
def test_a_config_that_does_not_fit_the_packing_is_refused(folder, said):
    folder, _ = pack_folder(folder, 4)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_bit": said}))
    with pytest.raises(CheckpointError, match="chatglm3-tiny|quantization_bit=3"):
        load_model(recognise(folder))
