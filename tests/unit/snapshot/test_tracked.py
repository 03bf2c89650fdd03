"""Details of capturing and restoring that a round trip alone would not show."""

import pytest
import torch
from torch import nn

from hpresil.base.errors import Refused
from hpresil.snapshot.tracked import Tracked


def simple(seed=0, width=3, **options):
    torch.manual_seed(seed)
    model = nn.Linear(2, width)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, **options)
    return model, optimizer, Tracked({"model": model, "optimizer": optimizer})


def step(model, optimizer):
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_a_capture_refers_to_live_tensors_parameters_first():
    model, optimizer, tracked = simple()
    step(model, optimizer)
    state = tracked.capture()
    assert [e.section for e in state.tensors] == ["parameters"] * 2 + ["optimizer"] * 6
    assert state.tensors[0].tensor.data_ptr() == model.weight.data_ptr()
    assert state.nbytes == 9 * 4 * 3 + 2 * 4 + len(state.values)


def test_optimizer_state_is_keyed_by_parameter_name():
    model, optimizer, tracked = simple()
    step(model, optimizer)
    assert [e.name for e in tracked.capture().tensors[2:5]] == [
        "optimizer.state.model.weight.step",
        "optimizer.state.model.weight.exp_avg",
        "optimizer.state.model.weight.exp_avg_sq",
    ]


def test_every_bit_pattern_survives_whatever_the_strides():
    for dtype, bits in (
        (torch.float32, torch.int32),
        (torch.bfloat16, torch.int16),
        (torch.float64, torch.int64),
    ):
        patterns = torch.randint(torch.iinfo(bits).min, torch.iinfo(bits).max, (6, 4), dtype=bits)
        patterns[0] = torch.tensor([0x7F80, 0x7F81, -128, 1], dtype=bits) << (torch.iinfo(bits).bits - 16)
        one, two = nn.Module(), nn.Module()
        one.weight = nn.Parameter(patterns.view(dtype))
        two.weight = nn.Parameter(torch.zeros(4, 6, dtype=dtype).t())
        Tracked({"model": two}).restore(Tracked({"model": one}).capture())
        assert torch.equal(two.weight.data.contiguous().view(bits), patterns)


def test_complex_empty_and_expanded_buffers_survive():
    def module(fill):
        made = nn.Module()
        made.register_buffer("complex", torch.full((3, 2), complex(fill, -0.0), dtype=torch.complex64))
        made.register_buffer("wide", torch.full((2,), complex(fill, fill), dtype=torch.complex128))
        made.register_buffer("empty", torch.empty(0, 3), persistent=False)
        made.register_buffer("expanded", torch.full((1, 4), float(fill)).expand(5, 4))
        made.register_buffer("flags", torch.tensor([True, False]))
        return made

    one, two = module(1), module(2)
    first, second = Tracked({"model": one}), Tracked({"model": two})
    assert first.digest() != second.digest()
    second.restore(first.capture())
    assert first.digest() == second.digest()
    assert two.expanded.stride() == (0, 1)
    assert torch.equal(two.expanded, one.expanded)


def test_a_module_may_replace_a_buffer_in_forward():
    model, _, tracked = simple()
    model.register_buffer("running", torch.zeros(2))
    model.running = torch.ones(2)
    assert torch.equal(dict(tracked.buffers)["model.running"], torch.ones(2))
    assert "model.running" in [e.name for e in tracked.capture().tensors]


def test_shared_optimizer_tensors_stay_shared():
    model, optimizer, tracked = simple()
    shared = torch.tensor(3.0)
    for parameter in model.parameters():
        optimizer.state[parameter] = {"step": shared}
    other_model, other_optimizer, other = simple(1)
    other.restore(tracked.capture())
    states = [other_optimizer.state[p]["step"] for p in other_model.parameters()]
    assert states[0] is states[1]
    assert states[0].item() == 3.0


def test_restored_objects_own_their_tensors():
    class Average:
        def __init__(self):
            self.shadow = {"a": torch.zeros(2)}

        def state_dict(self):
            return {"shadow": self.shadow}

        def load_state_dict(self, state):
            self.shadow = state["shadow"]

    one, two = Average(), Average()
    one.shadow["a"] += 5
    Tracked({"average": two}).restore(Tracked({"average": one}).capture())
    one.shadow["a"] += 1
    assert two.shadow["a"].tolist() == [5, 5]


def test_options_of_groups_are_restored_exactly_and_surplus_ones_removed():
    _, optimizer, tracked = simple()
    optimizer.param_groups[0].update(lr=0.1 + 0.2, betas=(0.5, 0.25), own=[1, (2,)])
    _, other, restored = simple(1)
    other.param_groups[0]["surplus"] = 1
    parameters = other.param_groups[0]["params"]
    restored.restore(tracked.capture())
    group = other.param_groups[0]
    assert (group["lr"], group["betas"], group["own"]) == (0.1 + 0.2, (0.5, 0.25), [1, (2,)])
    assert "surplus" not in group
    assert group["params"] is parameters


def mismatches():
    def wider():
        return simple(width=4)[2]

    def double():
        model = nn.Linear(2, 3).double()
        return Tracked({"model": model, "optimizer": torch.optim.AdamW(model.parameters())})

    def two_groups():
        model = nn.Linear(2, 3)
        optimizer = torch.optim.AdamW([{"params": [model.weight]}, {"params": [model.bias]}])
        return Tracked({"model": model, "optimizer": optimizer})

    def reordered():
        model = nn.Linear(2, 3)
        return Tracked({"model": model, "optimizer": torch.optim.AdamW([model.bias, model.weight])})

    def another_class():
        model = nn.Linear(2, 3)
        return Tracked({"model": model, "optimizer": torch.optim.SGD(model.parameters())})

    def without_bias():
        model = nn.Linear(2, 3, bias=False)
        return Tracked({"model": model, "optimizer": torch.optim.AdamW(model.parameters())})

    def with_buffer():
        model = nn.Linear(2, 3)
        model.register_buffer("more", torch.ones(1))
        return Tracked({"model": model, "optimizer": torch.optim.AdamW(model.parameters())})

    def with_scaler():
        model = nn.Linear(2, 3)
        scaler = torch.amp.GradScaler("cpu")
        return Tracked({"model": model, "optimizer": torch.optim.AdamW(model.parameters()), "scaler": scaler})

    def without_optimizer():
        return Tracked({"model": nn.Linear(2, 3)})

    return {
        wider: "parameter model.weight is float32 [4, 2] here but float32 [3, 2] in the state",
        double: "parameter model.weight is float64 [3, 2] here but float32 [3, 2] in the state",
        two_groups: "number of groups of optimizer: 2 here but 1",
        reordered: "parameters of group 0 of optimizer, place 0: model.bias here but model.weight",
        another_class: "class of optimizer: SGD here but AdamW",
        without_bias: "parameter model.bias exists in the state to restore but not here",
        with_buffer: "buffer model.more exists here but not in the state",
        with_scaler: "tracked objects, place 0: scaler here but None",
        without_optimizer: "tracked optimizers, place 0: None here but optimizer",
    }


@pytest.mark.parametrize("other", list(mismatches()), ids=lambda case: case.__name__)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(other):
    reason = next(r for case, r in mismatches().items() if case.__name__ == other.__name__)
    model, optimizer, tracked = simple()
    step(model, optimizer)
    target = other()
    before = target.digest()
    with pytest.raises(Refused) as caught:
        target.restore(tracked.capture())
    assert reason in str(caught.value)
    assert target.digest() == before


def test_an_object_that_does_not_accept_its_state_is_named():
    class Broken:
        def state_dict(self):
            return {}

        def load_state_dict(self, state):
            raise KeyError("x")

    tracked = Tracked({"thing": Broken()})
    with pytest.raises(Refused, match="thing did not accept its own stored state"):
        tracked.restore(tracked.capture())


def test_the_digest_sees_every_kind_of_change_and_nothing_else():
    model, optimizer, tracked = simple()
    step(model, optimizer)
    seen = {tracked.digest()}
    assert tracked.digest() in seen
    changes = [
        lambda: model.weight.data[0, 0].neg_(),
        lambda: optimizer.state[model.bias]["exp_avg"].nextafter_(torch.ones(())),
        lambda: optimizer.param_groups[0].update(lr=optimizer.param_groups[0]["lr"] * (1 + 2e-16)),
        lambda: optimizer.param_groups[0].update(eps=1),
        lambda: optimizer.param_groups[0].update(eps=1.0),
        lambda: optimizer.state[model.bias].update(extra=None),
    ]
    for change in changes:
        change()
        assert tracked.digest() not in seen
        seen.add(tracked.digest())
    group = optimizer.param_groups[0]
    items = list(group.items())
    group.clear()
    group.update(reversed(items))
    assert tracked.digest() in seen


def test_hidden_changes_in_forward_are_named_but_buffers_are_free():
    model, optimizer, tracked = simple()
    model.register_buffer("seen", torch.zeros(1))
    step(model, optimizer)
    tracked.mark()
    model(torch.ones(1, 2)).sum().backward()
    model.seen += 1
    assert tracked.changed_in_forward() == []
    with torch.no_grad():
        model.bias.mul_(1.0)
    optimizer.state[model.weight]["exp_avg"].zero_()
    del optimizer.state[model.bias]["step"]
    assert tracked.changed_in_forward() == [
        "model.bias",
        "optimizer.state.model.weight.exp_avg",
        "optimizer.state.model.bias.step",
    ]
    tracked.mark()
    assert tracked.changed_in_forward() == []


def test_facts_name_what_must_be_equal_in_a_fixed_order():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
    model[0].bias.requires_grad_(False)
    facts = Tracked({"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.5)}).facts()
    assert facts["parameter model.0.weight"] == "float32 4x3x3x3 on cpu, strides [27, 1, 9, 3]"
    assert facts["parameter model.0.bias"] == "float32 4 on cpu, frozen"
    assert facts["buffer model.1.num_batches_tracked"] == "int64 scalar on cpu"
    assert facts["optimizer optimizer"] == "torch.optim.sgd.SGD, 1 groups"
    assert facts["optimizer optimizer default lr"] == "0x1.0000000000000p-1"
    assert facts["optimizer optimizer parameter model.1.bias"] == "group 0, place 3"
    kinds = [key.split()[0] for key in facts]
    assert kinds == ["parameter"] * 4 + ["buffer"] * 3 + ["optimizer"] * (len(facts) - 7)
