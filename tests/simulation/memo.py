"""The real pipeline, whose answers are remembered: ten thousand schedules ask the same of it again and again.

A pipeline is pure, so what it answers depends on the calls before, and on nothing else. Each node of a tree is a
history of calls, and holds what a pipeline shows after it; only a history that is new is computed. The wall clock,
which goes into `detected_at` alone, stands still.
"""

import copy
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from stream_iwae.pipeline import Outcome, Pipeline
from stream_iwae.state import shard_of
from tests.simulation.logs import START_MS

_KEPT_LIVE = 1_000  # pipelines; others are computed again from their history when they are needed


@dataclass(slots=True, eq=False)
class Node:
    """What a pipeline shows after a history of calls."""

    parent: "Node | None"
    call: Callable[[Pipeline, list], Any] | None  # the last one, to do it again
    children: dict[Hashable, "Node"] = field(default_factory=dict)
    live: Pipeline | None = None
    answer: Any = None
    heard: list = field(default_factory=list)  # calls back, in order: None for a chunk, else unscored windows
    position: int = 0
    history_until: int | None = None
    replayed_to: int = 0
    is_replaying: bool = False
    watermark_ms: int | None = None
    outcome: Outcome = field(default_factory=Outcome)
    shown: tuple = ()


class Memo:
    """Histories of pipelines, by what they began with."""

    def __init__(self) -> None:
        self.roots: dict[Hashable, Node] = {}
        self.decoded: dict[Hashable, dict] = {}  # by log and configuration: offsets -> what was decoded
        self.n_asked = self.n_computed = 0
        self._live: deque[Node] = deque()

    def root(self, key: Hashable, make: Callable[[list], Pipeline]) -> Node:
        """The node of a pipeline that nothing was asked of yet."""
        if key not in self.roots:
            heard: list = []
            self.roots[key] = self._show(Node(None, None), make(heard), heard)
            self.roots[key].call = lambda _, heard: make(heard)
        return self.roots[key]

    def ask(self, node: Node, key: Hashable, call: Callable[[Pipeline, list], Any]) -> Node:
        """The node after one more call."""
        self.n_asked += 1
        child = node.children.get(key)
        if child is None:
            self.n_computed += 1
            pipeline, node.live = node.live or self._again(node), None
            child = Node(node, call)
            heard = pipeline.heard
            heard.clear()
            child.answer = call(pipeline, heard)
            node.children[key] = self._show(child, pipeline, heard)
        return child

    def _again(self, node: Node) -> Pipeline:
        path = []
        while node.parent is not None:
            path.append(node)
            node = node.parent
        pipeline = node.call(None, [])
        for step in reversed(path):
            step.call(pipeline, pipeline.heard)
        return pipeline

    def _show(self, node: Node, pipeline: Pipeline, heard: list) -> Node:
        node.live, node.heard = pipeline, list(heard)
        node.position, node.history_until = pipeline.position, pipeline.history_until
        node.replayed_to, node.is_replaying = pipeline._replayed_to, pipeline.is_replaying
        node.watermark_ms = pipeline.watermark_ms
        found = pipeline.outcome
        lists = {name: list(getattr(found, name)) for name in ("alerts", "rejected", "training", "verdicts")}
        node.outcome = replace(found, counts=copy.deepcopy(found.counts), alert_arrivals_ms=[], **lists)
        node.shown = (pipeline.n_open_windows, pipeline.n_entities, pipeline.open_incidents())
        self._live.append(node)
        if len(self._live) > _KEPT_LIVE:
            self._live.popleft().live = None
        return node


class ListeningPipeline(Pipeline):
    """A pipeline that notes who was called back."""

    heard: list

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
        self._node = memo.root((*key, partition), make)

    def _ask(self, key: Hashable, call, on_chunk=None) -> Any:
        node = self._node = self._memo.ask(self._node, key, call)
        for features in node.heard:
            if features is None:
                self._on_chunk()
                on_chunk()
            else:
                self._on_unscored(features)
        return node.answer

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

    def progress(self):
        return self._ask("progress", lambda p, _: p.progress())

    def take_outcome(self) -> Outcome:
        found = self._node.outcome
        self._ask("outcome", lambda p, _: p.take_outcome() and None)
        return found

    def take_state_changes(self, committed_offset: int):
        def call(pipeline, _):
            changes = pipeline.take_state_changes(committed_offset)
            return changes, {kind: state.snapshot() for kind, state in pipeline._states().items()}

        return self._ask(("state", committed_offset), call)[0]

    def snapshot_shard(self, number: int):
        whole = self._node.answer[1]  # asked right after the changes
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
