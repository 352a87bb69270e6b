"""The real pipeline, whose answers are remembered: ten thousand schedules ask the same of it again and again.

A pipeline is pure, so what it answers depends on the calls before, and on nothing else; and histories that leave it in
the same state, to the bit, answer alike from then on. Each node of a graph is a state and holds what a pipeline shows
in it; only what was never asked in a state is computed. The wall clock, which goes into `detected_at` alone, stands still.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from stream_iwae.pipeline import Outcome, Pipeline
from stream_iwae.state import shard_of
from stream_iwae.windows.progress import Progress
from tests.simulation.digest import digest_of
from tests.simulation.forked import forked
from tests.simulation.logs import START_MS

_KEPT_LIVE = 2_000  # pipelines; others are computed again from their history when they are needed
_SETTLED = frozenset({"_stages", "schema", "heard", "_config", "_reducer", "_reader", "_on_unscored", "_sender"})
_OF_REPLAYS = frozenset({"_replay_until", "_replayed_to"})


@dataclass(slots=True, eq=False)
class Node:
    """What a pipeline shows in one state, and how it came there for the first time."""

    root: Hashable
    parent: "Node | None"
    call: Callable[["ListeningPipeline", list], Any]  # to do it again
    calls: dict[Hashable, "Edge"] = field(default_factory=dict)
    live: "ListeningPipeline | None" = None
    position: int = 0
    history_until: int | None = None
    replayed_to: int = 0
    is_replaying: bool = False
    watermark_ms: int | None = None
    progress: Progress | None = None
    outcome: Outcome = field(default_factory=Outcome)
    shown: tuple = ()


@dataclass(frozen=True, slots=True)
class Edge:
    """What a call answered, and the state after it."""

    node: Node
    answer: Any
    heard: list  # calls back, in order: None for a chunk, else unscored windows


class Memo:
    """States of pipelines, and what they answer, by what they began with."""

    def __init__(self) -> None:
        self.roots: dict[Hashable, Node] = {}
        self.decoded: dict[Hashable, dict] = {}  # by log and configuration: offsets -> what was decoded
        self.encoded: dict[tuple[int, tuple], tuple[Any, list]] = {}  # by batch, which has to stay for its id's sake
        self.n_asked = self.n_computed = 0
        self._same: dict[tuple[Hashable, bytes], Node] = {}
        self._live: dict[Node, None] = {}  # in order of their last use

    def root(self, key: Hashable, make: Callable[[list], "ListeningPipeline"]) -> Node:
        """The state of a pipeline that nothing was asked of yet."""
        if key not in self.roots:
            self.roots[key] = self._shown(Node(key, None, lambda _, heard: make(heard)), make([]))
        return self.roots[key]

    def ask(self, node: Node, key: Hashable, call: Callable[["ListeningPipeline", list], Any]) -> Edge:
        """What one more call answers."""
        self.n_asked += 1
        edge = node.calls.get(key)
        if edge is None:
            self.n_computed += 1
            pipeline = self._at(node).fork()
            answer = call(pipeline, pipeline.heard)
            heard, pipeline.heard[:] = list(pipeline.heard), []
            same = node.root, pipeline.digest()
            if same not in self._same:
                self._same[same] = self._shown(Node(node.root, node, call), pipeline)
            edge = node.calls[key] = Edge(self._same[same], answer, heard)
        return edge

    def encoding(self, encode: Callable[..., list]) -> Callable[..., list]:
        """A function that makes bytes of a batch, and of the same batch the same bytes."""

        def once(batch: Any, *given: Any) -> list:
            key = (id(batch), given)
            if key not in self.encoded:
                self.encoded[key] = batch, encode(batch, *given)
            return self.encoded[key][1]

        return once

    def _at(self, node: Node) -> "ListeningPipeline":
        """The pipeline in a state, to be looked at alone; whatever is missing of it is done again."""
        if node.live is None:
            if node.parent is None:
                node.live = node.call(None, [])
            else:
                node.live = self._at(node.parent).fork()
                node.call(node.live, [])
        self._keep(node)
        return node.live

    def _keep(self, node: Node) -> None:
        self._live.pop(node, None)
        self._live[node] = None
        if len(self._live) > _KEPT_LIVE:
            oldest = next(iter(self._live))
            del self._live[oldest]
            oldest.live = None

    def _shown(self, node: Node, pipeline: "ListeningPipeline") -> Node:
        node.live = pipeline
        node.position, node.history_until = pipeline.position, pipeline.history_until
        node.replayed_to, node.is_replaying = pipeline._replayed_to, pipeline.is_replaying
        node.watermark_ms = pipeline.watermark_ms
        node.progress = None if pipeline.is_replaying else pipeline.progress()  # a question, which changes nothing
        found = pipeline.outcome
        lists = {name: list(getattr(found, name)) for name in ("alerts", "rejected", "training", "verdicts")}
        node.outcome = replace(found, counts=forked(found.counts), alert_arrivals_ms=[], **lists)
        node.shown = (pipeline.n_open_windows, pipeline.n_entities, pipeline.open_incidents())
        self._keep(node)
        return node


class ListeningPipeline(Pipeline):
    """A pipeline that notes who was called back."""

    heard: list

    def fork(self) -> "ListeningPipeline":
        """The same once more: whatever happens to one, the other does not notice."""
        twin = forked(self)
        twin.heard = []
        twin._on_unscored = twin.heard.append
        return twin

    def digest(self) -> bytes:
        """Equal where nobody can tell two apart; up to where an old replay went matters to none that is done with it."""
        return digest_of(self, _SETTLED if self.is_replaying else _SETTLED | _OF_REPLAYS)

    def decode_by(self, decoded: dict) -> None:
        """Decode each batch once: what is decoded depends on nothing else."""
        decode = self._intake._reader.decode

        def once(records):
            key = (self.partition, records.offsets.tobytes())
            if key not in decoded:
                decoded[key] = decode(records)
            return decoded[key]

        self._intake._reader.decode = once


class RememberedPipeline:
    """What a service takes for its pipeline."""

    def __init__(self, memo: Memo, log: Hashable, stages, partition: int, on_unscored, on_restore, on_chunk) -> None:
        key = (id(stages), log)

        def make(heard: list) -> ListeningPipeline:
            made = ListeningPipeline(stages, partition, heard.append)
            made.heard = heard
            made.decode_by(memo.decoded.setdefault(key, {}))
            return made

        self.partition = partition
        self._memo, self._on_unscored, self._on_restore, self._on_chunk = memo, on_unscored, on_restore, on_chunk
        self._pane_ms = stages.windows.pane
        self._answer: Any = None
        self._node = memo.root((*key, partition), make)

    def _ask(self, key: Hashable, call, on_chunk=None) -> Any:
        edge = self._memo.ask(self._node, key, call)
        self._node, self._answer = edge.node, edge.answer
        for features in edge.heard:
            if features is None:
                self._on_chunk()
                on_chunk()
            else:
                self._on_unscored(features)
        return edge.answer

    # --- what a service calls -----------------------------------------------------------------

    def process(self, records, model, now_ms, on_chunk) -> None:
        key = ("process", records.offsets.tobytes(), records.next_offset, model and model.version)
        self._ask(key, lambda p, h: p.process(records, model, START_MS, lambda: h.append(None)), on_chunk)

    def advance(self, watermark_ms, model, now_ms, on_chunk) -> None:
        to_ms = watermark_ms - watermark_ms % self._pane_ms  # as far as it goes anyway
        if self._node.watermark_ms is not None and to_ms <= self._node.watermark_ms:
            return
        key = ("advance", to_ms, model and model.version)
        self._ask(key, lambda p, h: p.advance(to_ms, model, START_MS, lambda: h.append(None)), on_chunk)

    def skip_to(self, position: int) -> None:
        if position > min(self._node.position, self._node.replayed_to) or self._node.history_until is not None:
            self._ask(("skip", position), lambda p, _: p.skip_to(position))

    def begin(self, offset, history_until) -> None:
        self._ask(("begin", offset, history_until), lambda p, _: p.begin(offset, history_until))

    def restore(self, metadata, state) -> None:
        self._on_restore(self.partition, metadata, state)
        key = ("restore", metadata.progress, metadata.history_until, msgspec.msgpack.encode(state))
        self._ask(key, lambda p, _: p.restore(metadata, state))

    def progress(self) -> Progress:
        return self._node.progress

    def take_outcome(self) -> Outcome:
        return self._node.outcome  # and is told of it by what follows at once

    def take_state_changes(self, committed_offset: int):
        def call(pipeline, _):
            pipeline.take_outcome()
            changes = pipeline.take_state_changes(committed_offset)
            return changes, {kind: state.snapshot() for kind, state in pipeline._states().items()}

        return self._ask(("state", committed_offset), call)[0]

    def snapshot_shard(self, number: int):
        whole = self._answer[1]  # asked right after the changes
        return {kind: {k: v for k, v in held.items() if shard_of(k) == number} for kind, held in whole.items()}

    # --- what it looks at ---------------------------------------------------------------------

    @property
    def outcome(self) -> Outcome:
        return self._node.outcome

    @property
    def is_replaying(self) -> bool:
        return self._node.is_replaying

    @property
    def position(self) -> int:
        return self._node.position

    @property
    def history_until(self) -> int | None:
        return self._node.history_until

    def history_end(self, records) -> int | None:
        return self._node.history_until  # what is not re-keyed says nothing of it itself

    @property
    def watermark_ms(self) -> int | None:
        return self._node.watermark_ms

    @property
    def n_open_windows(self) -> int:
        return self._node.shown[0]

    @property
    def n_entities(self) -> int:
        return self._node.shown[1]

    def open_incidents(self) -> dict[str, int]:
        return self._node.shown[2]
