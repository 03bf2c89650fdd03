from hypothesis import settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from hpresil.launch.arena import AGENT, FrameBook, Hand, Serve


def ready():
    book = FrameBook()
    assert book.grown(True) == []
    return book


def test_a_newcomer_gets_what_its_source_sealed():
    book = ready()
    assert book.decided(2, 10, {3: 0}) == [Serve(0, 2, 10, 0)]
    assert book.served(0, 2, 10, 0) == (True, [Hand(3, 2, 10, 0)])
    assert book.newest_version() == 10


def test_nothing_is_served_before_the_frames_are_large_enough():
    book = FrameBook()
    assert book.decided(2, 10, {3: 0}) == []
    assert book.grown(True) == [Serve(0, 2, 10, 0)]


def test_the_agents_own_frame_is_handed_out_at_once():
    book = ready()
    book.decided(1, 0, {1: 0}, initial=True)
    book.served(0, 1, 0, 0)
    book.read_done(1)
    assert book.decided(4, 0, {7: AGENT, 8: AGENT}) == [Hand(7, 4, 0, 0), Hand(8, 4, 0, 0)]


def test_one_serve_answers_all_newcomers():
    book = ready()
    assert book.decided(2, 10, {3: 0, 4: 1}) == [Serve(0, 2, 10, 0)]
    assert book.served(0, 2, 10, 0)[1] == [Hand(3, 2, 10, 0), Hand(4, 2, 10, 0)]


def test_the_newest_sealed_frame_is_kept_and_the_other_one_filled():
    book = ready()
    book.decided(2, 10, {3: 0})
    book.served(0, 2, 10, 0)
    book.read_done(3)
    assert book.decided(3, 20, {4: 0}) == [Serve(0, 3, 20, 1)]
    book.served(0, 3, 20, 1)
    book.read_done(4)
    assert book.decided(4, 30, {5: 0}) == [Serve(0, 4, 30, 0)]


def test_a_frame_waits_for_the_end_of_its_writer_and_of_nobody_else():
    book = ready()
    book.decided(2, 10, {3: 0})
    assert not book.awaits(0), "it lives"
    book.lost(0)
    assert book.awaits(0)
    assert not book.awaits(3), "a reader"
    book.reaped(0)
    assert not book.awaits(0)


def test_a_frame_that_is_being_read_is_not_filled():
    book = ready()
    book.decided(2, 10, {3: 0})
    book.served(0, 2, 10, 0)
    book.decided(3, 11, {4: 0})
    book.served(0, 3, 11, 1)  # 3 still reads frame 0
    assert book.decided(4, 12, {5: 0}) == []
    assert book.read_done(3) == [Serve(0, 4, 12, 0)]


def test_a_reader_from_the_moment_of_sealing_keeps_even_a_frame_that_is_not_the_newest():
    book = ready()
    assert book.decided(2, 10, {3: 0}) == [Serve(0, 2, 10, 0)]
    assert book.decided(3, 11, {3: 0}) == [Serve(0, 3, 11, 1)]
    assert book.served(0, 3, 11, 1) == (True, [Hand(3, 3, 11, 1)])
    assert book.decided(4, 12, {3: 0}) == []
    taking_on = -7
    assert book.served(0, 2, 10, 0, taking_on) == (False, [])
    assert book.read_done(taking_on) == [Serve(0, 4, 12, 0)]


def test_a_dead_writers_frame_is_used_again_only_after_it_was_reaped():
    book = ready()
    book.decided(2, 10, {3: 0})
    book.served(0, 2, 10, 0)
    book.read_done(3)
    book.decided(3, 20, {4: 0})
    assert book.lost(0) == []
    assert book.decided(4, 20, {4: 1}) == []
    assert book.reaped(0) == [Serve(1, 4, 20, 1)]
    assert book.served(0, 3, 20, 1) == (False, [])  # the dead one's late word has no effect
    assert book.served(1, 4, 20, 1)[0]


def test_a_frame_on_its_way_for_an_older_generation_serves_the_newer_one():
    book = ready()
    book.decided(2, 10, {3: 0})
    assert book.decided(3, 10, {4: 0}) == []
    assert book.served(0, 2, 10, 0)[1] == [Hand(4, 3, 10, 0)]


def test_the_initial_version_is_never_taken_from_an_older_frame():
    book = ready()
    book.decided(1, 0, {1: 0}, initial=True)
    book.served(0, 1, 0, 0)
    book.read_done(1)
    assert book.decided(2, 0, {3: 2}, initial=True) == [Serve(2, 2, 0, 1)]
    assert book.served(2, 2, 0, 1) == (True, [Hand(3, 2, 0, 1)])


def test_a_failed_serve_frees_the_frame_and_waits_for_another_decision():
    book = ready()
    book.decided(2, 10, {3: 0})
    assert book.serve_failed(0, 2, 0) == []
    assert book.decided(3, 10, {3: 1}) == [Serve(1, 3, 10, 0)]


def test_a_frame_that_could_not_be_read_is_not_handed_out_again():
    book = ready()
    book.decided(2, 10, {3: 0})
    book.served(0, 2, 10, 0)
    book.read_failed(3, 0)
    assert book.newest_version() == -1
    assert book.decided(3, 10, {3: 0}) == [Serve(0, 3, 10, 0)]


def test_the_only_copy_is_kept_even_if_one_reader_failed():
    book = ready()
    book.decided(2, 10, {3: 0})
    book.served(0, 2, 10, 0)
    book.read_done(3)
    book.decided(3, 10, {4: AGENT})
    book.read_failed(4, 0)
    assert book.decided(4, 10, {4: AGENT}) == [Hand(4, 4, 10, 0)]


def test_a_snapshot_nobody_waits_for_gives_way():
    book = ready()
    assert book.snapshot(1, 5, 0) == [Serve(0, 1, 5, 0)]
    assert book.snapshot(1, 6, 0) == []
    assert book.decided(2, 6, {3: 0}) == [Serve(0, 2, 6, 1)]
    assert book.served(0, 1, 5, 0) == (True, [])
    assert book.served(0, 2, 6, 1)[1] == [Hand(3, 2, 6, 1)]


def test_what_is_said_about_unknown_frames_is_ignored():
    book = ready()
    assert book.served(0, 1, 5, 9) == (False, [])
    assert book.serve_failed(0, 1, -1) == []
    assert book.read_failed(0, 7) == []


class FramesInUse(RuleBasedStateMachine):
    """Whatever happens, nobody fills what is read, what is the newest, or what a dead one may write."""

    def __init__(self):
        super().__init__()
        self.book = ready()
        self.generation, self.version, self.next_worker = 1, 0, 10
        self.filling: dict[int, tuple[int, int, int]] = {}  # frame -> worker, generation, version
        self.reading: dict[int, set[int]] = {0: set(), 1: set()}
        self.dying: set[int] = set()
        self.alive: list[int] = [0, 1, 2]

    def take(self, actions):
        for action in actions:
            if isinstance(action, Serve):
                assert action.frame not in self.filling, "filled twice at once"
                assert not self.reading[action.frame], "filled while being read"
                assert action.frame != self.book.newest, "the newest sealed frame was given up"
                self.filling[action.frame] = (action.worker, action.generation, action.version)
            else:
                assert action.frame not in self.filling, "handed out while being filled"
                assert self.book.newest == action.frame
                self.reading[action.frame].add(action.worker)

    @rule(step=st.integers(0, 2), many=st.integers(1, 2), pick=st.integers(0, 10))
    @precondition(lambda self: self.alive)
    def decide(self, step, many, pick):
        self.generation, self.version = self.generation + 1, self.version + step
        source = self.alive[pick % len(self.alive)]
        newcomers = [self.next_worker + i for i in range(many)]
        self.next_worker += many
        self.alive += newcomers
        self.take(self.book.decided(self.generation, self.version, dict.fromkeys(newcomers, source)))

    @rule(pick=st.integers(0, 10), fails=st.booleans())
    @precondition(lambda self: any(w not in self.dying for w, _, _ in self.filling.values()))
    def finish_serving(self, pick, fails):
        live = [f for f, (w, _, _) in self.filling.items() if w not in self.dying]
        frame = live[pick % len(live)]
        writer, generation, version = self.filling.pop(frame)
        if fails:
            self.take(self.book.serve_failed(writer, generation, frame))
        else:
            newest, actions = self.book.served(writer, generation, version, frame)
            assert newest == (self.book.newest == frame)
            self.take(actions)

    @rule(pick=st.integers(0, 10), fails=st.booleans())
    @precondition(lambda self: any(self.reading.values()))
    def finish_reading(self, pick, fails):
        readers = sorted((w, f) for f, ws in self.reading.items() for w in ws)
        who, frame = readers[pick % len(readers)]
        self.reading[frame].discard(who)
        self.take(self.book.read_failed(who, frame) if fails else self.book.read_done(who))

    @rule(pick=st.integers(0, 10))
    @precondition(lambda self: len(self.alive) > 1)
    def lose(self, pick):
        who = self.alive.pop(pick % len(self.alive))
        self.dying.add(who)
        for readers in self.reading.values():
            readers.discard(who)
        self.take(self.book.lost(who))

    @rule(pick=st.integers(0, 10))
    @precondition(lambda self: self.dying)
    def reap(self, pick):
        who = sorted(self.dying)[pick % len(self.dying)]
        self.dying.discard(who)
        self.filling = {f: entry for f, entry in self.filling.items() if entry[0] != who}
        self.take(self.book.reaped(who))

    @invariant()
    def a_newest_frame_is_never_being_filled(self):
        assert self.book.newest not in self.filling


FramesInUse.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
test_frames_in_use = FramesInUse.TestCase
