"""NVIDIA Resiliency Extension, by the option:

    torch       TorchAsyncCheckpoint as it is by default, with a process that stays
    torch-fork  TorchAsyncCheckpoint that forks for every checkpoint
    local       the local checkpoint manager, synchronously
    local-fork  the local checkpoint manager, forking for every checkpoint

It is made for tensors on a device. Here they are in host memory, so two things differ from how it is run:
where there is no CUDA its wait for all streams is left out, because nothing runs there; and its own class for
a state refuses host tensors, so the manager gets one that does not. Neither adds work. Host tensors are not
copied before a save returns: a fork keeps what they held, the process that stays sees them change.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import trainer
from nvidia_resiliency_ext.checkpointing.async_ckpt.core import AsyncCallsQueue
from nvidia_resiliency_ext.checkpointing.async_ckpt.torch_ckpt import TorchAsyncCheckpoint
from nvidia_resiliency_ext.checkpointing.local.basic_state_dict import BasicTensorAwareStateDict
from nvidia_resiliency_ext.checkpointing.local.ckpt_managers.local_manager import LocalCheckpointManager


class OnHost(BasicTensorAwareStateDict):
    """A state in host memory, where it is saved from and restored to."""

    def __init__(self, tensors: trainer.Tensors) -> None:
        self.state_dict = dict(tensors)
        self._is_hollow = False

    def restore_tensor_device(self, non_blocking: bool = True) -> None:
        pass


class TorchAsync(trainer.Method):
    def __init__(self, state: trainer.State, *, persistent: bool) -> None:
        self._state, self._tensors, self._path = state, state.tensors(), state.place
        self._checkpoint = TorchAsyncCheckpoint(persistent_queue=persistent)

    def save(self, version: int) -> None:
        self.finish()
        self._path = self._state.place / str(version)
        self._checkpoint.async_save(self._tensors, self._path)

    def finish(self) -> None:
        self._checkpoint.finalize_async_save(blocking=True, no_dist=True)

    def loaded(self) -> trainer.Tensors:
        return torch.load(self._path)

    def close(self) -> None:
        self._checkpoint.finalize_async_save(blocking=True, no_dist=True, terminate=True)


class Local(trainer.Method):
    def __init__(self, state: trainer.State, *, fork: bool) -> None:
        self._tensors = state.tensors()
        self._manager = LocalCheckpointManager(state.place / "local")
        self._queue = AsyncCallsQueue(persistent=False) if fork else None

    def save(self, version: int) -> None:
        self.finish()
        request = self._manager.save(OnHost(self._tensors), version, is_async=self._queue is not None)
        if self._queue is not None:
            self._queue.schedule_async_request(request)

    def finish(self) -> None:
        if self._queue is not None:
            self._queue.maybe_finalize_async_calls(blocking=True, no_dist=True)

    def loaded(self) -> trainer.Tensors:
        self._manager.find_latest()
        return self._manager.load()[0].state_dict

    def close(self) -> None:
        self.finish()


def make(state: trainer.State, option: str) -> trainer.Method:
    dist.init_process_group("gloo", init_method=f"file://{state.place}/store", rank=0, world_size=1)
    if not torch.cuda.is_available():
        torch.cuda.synchronize = lambda *_: None
    if option.startswith("local"):
        return Local(state, fork=option == "local-fork")
    return TorchAsync(state, persistent=option == "torch")


if __name__ == "__main__":
    trainer.main(make)
