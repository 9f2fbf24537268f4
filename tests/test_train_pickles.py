"""A checkpoint of somebody else runs no code, whichever way it trains."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict

import numpy
import pytest
import torch

from finetune.training import pickles
from glm.errors import BadRequest


class Trap:
    """Unpickled whole, it makes a file."""

    def __init__(self, file) -> None:
        self.file = str(file)

    def __reduce__(self):
        return os.mkdir, (self.file,)


def save(folder, **values):
    folder.mkdir(exist_ok=True, parents=True)
    torch.save(values, folder / "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt")


def test_a_trap_in_a_checkpoint_is_named_and_not_opened(tmp_path):
    save(tmp_path / "checkpoint-2" / "global_step2", state=Trap(tmp_path / "sprung"))
    with pytest.raises(BadRequest, match=r"optim_states.pt holds posix.mkdir, which no run saves"):
        pickles.check(tmp_path / "checkpoint-2", deepspeed=True)
    assert not (tmp_path / "sprung").exists()


def test_who_asks_for_a_whole_pickle_gets_none_while_a_run_trains(tmp_path, monkeypatch):
    monkeypatch.delenv(pickles.FORCED, raising=False)
    save(tmp_path, state=Trap(tmp_path / "sprung"))
    file = next(tmp_path.glob("*.pt"))
    options = {"weights_only": False}  # as deepspeed says
    with pickles.numbers_only(deepspeed=True), pytest.raises(pickle.UnpicklingError):
        torch.load(file, **options)
    assert not (tmp_path / "sprung").exists()
    assert pickles.FORCED not in os.environ
    torch.load(file, **options)
    assert (tmp_path / "sprung").exists()


def test_what_deepspeed_and_numpy_save_is_let_in(tmp_path):
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    scalers = LossScaler(2.0), DynamicLossScaler(1.0, 2.0, 1, 1.0, 1)
    address = OrderedDict(a=fragment_address(numel=3, start=1))
    numbers = numpy.random.get_state()
    save(tmp_path, scalers=scalers, zero=ZeroStageEnum(2), address=address, numbers=numbers)
    pickles.check(tmp_path, deepspeed=True)
    with pickles.numbers_only(deepspeed=True):
        found = torch.load(next(tmp_path.glob("*.pt")), weights_only=True)
    assert found["scalers"][0].loss_scale == 2.0 and found["zero"] == 2
    assert found["address"] == address and found["numbers"][2] == numbers[2]


def test_a_file_that_torch_did_not_write_is_told(tmp_path):
    (tmp_path / "scheduler.pt").write_bytes(b"nothing")
    with pytest.raises(BadRequest, match=r"scheduler.pt is no file that a run saved"):
        pickles.check(tmp_path, deepspeed=False)
