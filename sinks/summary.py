"""What a run folder holds, read without its lock: a run may be going on in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from sinks.checkpoint import SPENT, Checkpoint, restore_spent
from sinks.files import OS_FILES
from sinks.folder import CHECKPOINT, FAILURES, RESULTS, read_manifest
from sinks.rows import RowSet


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Committed rows of all lives of a run."""

    out: str
    model: str | None
    created: str | None
    done: int
    truncated: int
    """Of those, the ones whose answer was cut off."""
    failed: int
    failed_by_kind: dict[str, int]
    rows_total: int | None
    """Rows the input holds; None until a life of the run has read it to its end."""
    left: int | None
    shards: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float
    """Sum over the result lines."""
    unpriced_rows: int
    """Rows whose cost is not known; they are not in `cost_usd`."""
    spent: dict[str, Any] | None
    """The money of the whole run, as the engine counts it: `cost_usd` of all calls, those of rows that never ended
    included, `unknown_calls` that are not in it, and more. None if no life has said."""

    def text(self) -> str:
        """For a person."""
        left = "unknown (the input has not been read to its end yet)" if self.left is None else f"{self.left:,}"
        kinds = "".join(f"\n              {count:,} {kind}" for kind, count in sorted(self.failed_by_kind.items()))
        cut = f"\n              {self.truncated:,} of them cut off (--only truncated)" if self.truncated else ""
        return (
            f"run         {self.out}\nmodel       {self.model}\nstarted     {self.created}\n"
            f"done        {self.done:,}{cut}\nfailed      {self.failed:,}{kinds}\nleft        {left}\n"
            f"tokens      {self.prompt_tokens:,} in, {self.completion_tokens:,} out\n"
            f"cost        {self._money()}"
        )

    def _money(self) -> str:
        """What is known, and the name of what is not."""
        if self.spent is None:
            unpriced = f" and {self.unpriced_rows:,} rows of unknown cost" if self.unpriced_rows else ""
            return f"${self.cost_usd:,.4f}{unpriced}"
        parts = [f"${self.spent.get('cost_usd', 0.0):,.4f}"]
        if unknown := self.spent.get("unknown_calls"):
            worst = self.spent.get("unknown_usd")
            parts.append(f"{unknown:,} calls of unknown cost" + (f" (worst case ${worst:,.4f})" if worst else ""))
        if unpriced_calls := self.spent.get("unpriced_calls"):
            parts.append(f"{unpriced_calls:,} calls without a known price")
        return ", and ".join(parts)


def summarise(out: Path) -> Summary:
    """Count what is committed; reads every result line once.

    Raises:
        ConfigError: the folder holds no run.
        SinkBroken: `run.json` is damaged.
    """
    manifest = read_manifest(out)
    state, commits, _ = Checkpoint(out / CHECKPOINT, OS_FILES).load()
    ends = dict(state.ends)
    for commit in commits:
        ends.update((name, end) for name, (end, _, _) in commit.shards.items())
    restore_spent(state, commits)
    learnt = state.learnt
    done, kinds = RowSet(), dict[int, str]()
    tokens = Counter[str]()
    cost, unpriced, truncated = 0.0, 0, 0
    for name, line in committed_lines(out, ends):
        usage = line["usage"] or {}
        tokens["in"] += usage.get("prompt_tokens", 0)
        tokens["out"] += usage.get("completion_tokens", 0)
        if name.startswith(FAILURES):
            kinds[line["row"]] = line["kind"]
            continue
        done.add(line["row"])
        truncated += line["truncated"]
        if line["cost_usd"] is None:
            unpriced += 1
        else:
            cost += line["cost_usd"]
    by_kind = Counter(kind for row, kind in kinds.items() if row not in done)
    failed = by_kind.total()
    total = learnt.get("rows_total")
    return Summary(
        out=str(out),
        model=manifest.get("settings", {}).get("model"),
        created=manifest.get("created"),
        done=done.count,
        truncated=truncated,
        failed=failed,
        failed_by_kind=dict(by_kind),
        rows_total=total,
        left=None if total is None else max(0, total - done.count - failed),
        shards=manifest["shards"],
        prompt_tokens=tokens["in"],
        completion_tokens=tokens["out"],
        cost_usd=cost,
        unpriced_rows=unpriced,
        spent=learnt.get(SPENT),
    )


def committed_lines(out: Path, ends: dict[str, int]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every committed line as (shard name, object), results first."""
    for name in sorted(ends, key=lambda name: (not name.startswith(RESULTS), name)):
        left = ends[name]
        with (out / name).open("rb") as file:
            while left > 0 and (line := file.readline()):
                left -= len(line)
                yield name, orjson.loads(line)
