"""What cannot be restored bit for bit is refused when it is tracked, with its name and what to do."""

import enum
import warnings
from typing import NamedTuple

import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler as lrs

from hpresil.base.errors import ConfigError, UsageError
from hpresil.snapshot.tracked import Tracked


def refusal(**objects):
    with pytest.raises(ConfigError) as caught:
        Tracked(objects)
    return str(caught.value)


def holder(**tensors):
    module = nn.Module()
    for name, tensor in tensors.items():
        setattr(module, name, tensor)
    return module


def sgd(module, **options):
    return torch.optim.SGD(module.parameters(), lr=0.1, **options)


def test_an_object_without_state_dict():
    assert "thing (list) cannot be tracked" in refusal(thing=[1])


def test_a_name_that_is_no_identifier():
    with pytest.raises(ConfigError, match="python identifier"):
        Tracked({"a b": nn.Linear(1, 1)})


def test_one_object_under_two_names():
    layer = nn.Linear(1, 1)
    assert "one and two are the same object" in refusal(one=layer, two=layer)


def test_an_optimizer_whose_parameters_are_not_tracked():
    model, other = nn.Linear(2, 2), nn.Linear(2, 2)
    optimizer = torch.optim.SGD([{"params": model.parameters()}, {"params": [other.weight]}], lr=0.1)
    message = refusal(model=model, optimizer=optimizer)
    assert "optimizer: parameter 0 of group 1" in message
    assert "track the module" in message


def test_a_scheduler_whose_optimizer_is_not_tracked():
    model = nn.Linear(2, 2)
    scheduler = lrs.StepLR(sgd(model), 1)
    assert "scheduler sets the learning rate of an optimizer that is not tracked" in refusal(
        model=model, scheduler=scheduler
    )


def test_an_optimizer_with_a_closure():
    model = nn.Linear(2, 2)
    assert "optimizer (LBFGS) needs a closure" in refusal(
        model=model, optimizer=torch.optim.LBFGS(model.parameters())
    )


def test_an_optimizer_that_keeps_state_elsewhere():
    class Counted(torch.optim.SGD):
        def state_dict(self):
            return {**super().state_dict(), "steps": 3}

    model = nn.Linear(2, 2)
    assert "keeps ['steps'] outside of state" in refusal(
        model=model, optimizer=Counted(model.parameters(), lr=0.1)
    )


def test_a_sharded_optimizer_or_module():
    class ZeroRedundancyOptimizer(torch.optim.SGD):
        pass

    class FullyShardedDataParallel(nn.Linear):
        pass

    model = nn.Linear(2, 2)
    optimizer = ZeroRedundancyOptimizer(model.parameters(), lr=0.1)
    assert "sharded state cannot be tracked" in refusal(model=model, optimizer=optimizer)
    assert "model.0 is wrapped in FSDP" in refusal(model=nn.Sequential(FullyShardedDataParallel(2, 2)))


def test_a_distributed_tensor(tmp_path):
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, distribute_tensor

    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        weight = distribute_tensor(torch.ones(4), mesh, [Replicate()])
        message = refusal(model=holder(weight=nn.Parameter(weight)))
    finally:
        dist.destroy_process_group()
    assert "parameter model.weight is a DTensor" in message


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (lambda: nn.Parameter(torch.ones(2, dtype=torch.complex64)), "is complex"),
        (lambda: nn.Parameter(torch.ones(2, 2).to_sparse()), "is sparse"),
        (lambda: nn.Parameter(torch.ones(2, device="meta")), "is on the meta device"),
        (lambda: nn.UninitializedParameter(), "is not initialised yet"),
        (lambda: nn.Parameter(torch.ones(3).expand(2, 3)), "share memory (an expanded tensor)"),
    ],
)
def test_a_parameter_of_an_unsuitable_kind(tensor, reason):
    message = refusal(model=holder(weight=tensor()))
    assert "parameter model.weight" in message
    assert reason in message


def test_a_quantised_buffer():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates the kind itself
        quantised = torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)
    module = nn.Module()
    module.register_buffer("table", quantised)
    assert "buffer model.table is a Tensor (torch.qint8)" in refusal(model=module)


def test_a_lazy_conjugate_buffer():
    module = nn.Module()
    module.register_buffer("table", torch.ones(2, dtype=torch.complex64).conj())
    assert "buffer model.table is a lazy conjugate" in refusal(model=module)


def test_a_parameter_made_in_inference_mode():
    with torch.inference_mode():
        weight = torch.ones(2)
    module = nn.Module()
    module.register_buffer("table", weight)
    assert "was made under inference_mode" in refusal(model=module)


def test_different_parameters_over_the_same_memory():
    one = nn.Parameter(torch.ones(4))
    message = refusal(model=holder(one=one, two=nn.Parameter(one.data[2:])))
    assert "parameter model.one and parameter model.two share memory" in message


def test_a_buffer_that_is_a_view_of_a_parameter():
    model = nn.Linear(2, 2)
    model.register_buffer("transposed", model.weight.data.t())
    assert "share memory" in refusal(model=model)


def test_interleaved_parameters_without_a_common_element_are_fine():
    whole = torch.zeros(4, 6)
    model = holder(left=nn.Parameter(whole[:, :2]), right=nn.Parameter(whole[:, 2:]))
    assert [name for name, _ in Tracked({"model": model}).parameters] == ["model.left", "model.right"]


def test_one_parameter_in_several_modules_has_the_name_of_its_first_place():
    model = nn.Linear(2, 2)
    tail = nn.Sequential(model)
    tracked = Tracked({"model": model, "tail": tail})
    assert [name for name, _ in tracked.parameters] == ["model.weight", "model.bias"]
    assert tracked.facts()["parameter tail.0.weight"] == "tied to model.weight"


class Colour(enum.IntEnum):
    RED = 1


class Point(NamedTuple):
    x: int


class Holding:
    def __init__(self, value):
        self.value = value

    def state_dict(self):
        return {"deep": [{"inside": self.value}]}

    def load_state_dict(self, state):
        self.value = state["deep"][0]["inside"]


@pytest.mark.parametrize(
    ("value", "word"),
    [
        (lambda: 0, "function"),
        (int, "class int"),
        (Colour.RED, "(an enum)"),
        (Point(1), "a Point (a NamedTuple)"),
        (object(), "a value of type builtins.object"),
        (torch.Generator(), "a value of type torch._C.Generator"),
    ],
)
def test_a_value_that_could_only_be_pickled_is_refused_with_its_path(value, word):
    message = refusal(thing=Holding(value))
    assert message.startswith("thing.deep[0].inside: ")
    assert word in message
    assert "without pickle" in message


def test_a_scheduler_with_a_function_in_its_state_is_refused_with_its_path():
    class Own(lrs.LRScheduler):
        def __init__(self, optimizer, functions):
            self.functions = functions
            super().__init__(optimizer)

        def get_lr(self):
            return [f(self.last_epoch) for f in self.functions]

    model = nn.Linear(2, 2)
    optimizer = sgd(model)
    message = refusal(model=model, optimizer=optimizer, scheduler=Own(optimizer, [lambda e: 0.1]))
    assert message.startswith("scheduler.functions[0]: function ")


def test_optimizer_state_that_is_a_view_of_its_parameter_is_refused_at_the_capture():
    model = nn.Linear(2, 2)
    optimizer = sgd(model)
    tracked = Tracked({"model": model, "optimizer": optimizer})
    optimizer.state[model.weight]["anchor"] = model.weight.data
    with pytest.raises(ConfigError, match=r"optimizer.state.model.weight.anchor shares memory"):
        tracked.capture()


def test_a_parameter_replaced_after_tracking_is_noticed():
    model = nn.Linear(2, 2)
    tracked = Tracked({"model": model})
    model.weight = nn.Parameter(torch.zeros(2, 2))
    with pytest.raises(UsageError, match=r"parameter model.weight is not the object that was tracked"):
        tracked.capture()
    model.weight = None
    with pytest.raises(UsageError, match=r"parameter model.weight is gone"):
        tracked.capture()
