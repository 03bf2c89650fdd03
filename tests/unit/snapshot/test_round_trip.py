"""Restored trainings continue bit for bit, whatever they are made of."""

import pytest


def test_a_fresh_set_of_objects_continues_like_the_original(build, frozen):
    original = build(0).train(range(3))
    state, digest = frozen(original.tracked.capture()), original.tracked.digest()
    expected = original.train(range(3, 5)).tracked.digest()

    newcomer = build(7)
    assert newcomer.tracked.digest() != digest
    newcomer.tracked.restore(state)

    assert newcomer.tracked.digest() == digest == state.digest()
    assert newcomer.train(range(3, 5)).tracked.digest() == expected


def test_the_old_objects_go_back_and_repeat_themselves(build, frozen):
    rig = build(0).train(range(3))
    state = frozen(rig.tracked.capture())
    expected = rig.train(range(3, 5)).tracked.digest()

    rig.tracked.restore(state)

    assert rig.tracked.digest() == state.digest()
    assert rig.train(range(3, 5)).tracked.digest() == expected


def test_state_from_before_the_first_step_removes_what_training_created(build, frozen):
    original, trained = build(0), build(5).train(range(2))
    state = frozen(original.tracked.capture())

    trained.tracked.restore(state)

    assert trained.tracked.digest() == state.digest()
    assert trained.train(range(3)).tracked.digest() == original.train(range(3)).tracked.digest()


def test_tensors_that_exist_keep_their_memory_and_strides(build, frozen):
    rig = build(0).train(range(2))
    state = frozen(rig.tracked.capture())
    rig.train(range(2, 4))
    places = {e.name: (e.tensor.data_ptr(), e.tensor.stride()) for e in rig.tracked.capture().tensors}

    rig.tracked.restore(state)

    now = {e.name: (e.tensor.data_ptr(), e.tensor.stride()) for e in rig.tracked.capture().tensors}
    fixed = [e.name for e in state.tensors if e.section in ("parameters", "buffers", "optimizer")]
    assert [now[name] for name in fixed] == [places[name] for name in fixed]


@pytest.mark.parametrize("kind", ["channels-last convolution, two groups, averaged", "wide moments", "adamw"])
def test_created_optimizer_state_has_the_strides_and_dtypes_of_the_original(rigs, frozen, kind):
    original, newcomer = rigs[kind](0).train(range(2)), rigs[kind](1)
    newcomer.tracked.restore(frozen(original.tracked.capture()))

    def kinds(rig):
        return [(e.name, e.dtype, e.tensor.stride(), e.tensor.device) for e in rig.tracked.capture().tensors]

    assert kinds(newcomer) == kinds(original)


def test_facts_do_not_depend_on_seed_or_progress(build):
    assert build(0).tracked.facts() == build(1).train(range(2)).tracked.facts()
