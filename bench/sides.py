"""Cases side by side: rounds interleaved, best and median of each, and what one is to another.

A slow moment of the machine hits all cases of a round alike, so ratios hold where bare times do not. One round is thrown
away: it warms the page cache. A case that fails is named and left out.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

#: A run measures itself and says seconds and MiB, or is measured from outside.
Case = Callable[[], "tuple[float, float] | None"]
#: Of each case that did not fail: best, median, and the most memory if it was measured.
Found = dict[str, tuple[float, ...]]

UNITS = {"ms": 1e3, "s": 1.0}


def table(
    title: str,
    cases: Mapping[str, Case],
    rounds: int,
    results: dict,
    *,
    unit: str = "ms",
    pause_s: float = 0.0,
    after_round: Callable[[], None] = lambda: None,
) -> Found:
    """Runs the cases, prints a line for each, and keeps the figures in `results`."""
    samples: dict[str, list[tuple[float, ...]]] = {name: [] for name in cases}
    failed: dict[str, str] = {}
    for number in range(rounds + 1):
        for name, case in cases.items():
            if name in failed:
                continue
            # What the case before left to the kernel or a helper (dying namespaces, files) is not this one's.
            time.sleep(pause_s)
            before = time.perf_counter()
            try:
                said = case()
            except Exception as error:
                failed[name] = (str(error).splitlines() or [type(error).__name__])[0]
                continue
            if number:
                samples[name].append(said or (time.perf_counter() - before,))
        after_round()
    return show(title, samples, results, unit=unit, failed=failed)


def show(
    title: str,
    samples: Mapping[str, Sequence[tuple[float, ...]]],
    results: dict,
    *,
    unit: str = "ms",
    failed: Mapping[str, str] | None = None,
) -> Found:
    """The table of samples taken otherwise: seconds, or seconds and MiB."""
    has_memory = any(len(sample) > 1 for each in samples.values() for sample in each)
    print(f"\n## {title}\n{'':44}{f'best {unit}':>10}{f'median {unit}':>11}{'MiB' if has_memory else '':>7}")
    found: Found = {}
    for name, each in samples.items():
        if name in (failed or {}) or not each:
            print(f"{name:44}  left out: {(failed or {}).get(name)}")
            continue
        times = [sample[0] * UNITS[unit] for sample in each]
        memory = (max(sample[1] for sample in each),) if has_memory else ()
        found[name] = (min(times), statistics.median(times), *memory)
        print(f"{name:44}{found[name][0]:10.2f}{found[name][1]:11.2f}" + "".join(f"{m:7.0f}" for m in memory))
    results[title] = found
    return found


def ratio(
    found: Found,
    ours: str,
    theirs: str | Sequence[str],
    goal: str,
    results: dict,
    pick: Callable[..., float] = max,
) -> None:
    """Prints one line: ours over theirs (over `pick` of several), by best and by median."""
    others = [theirs] if isinstance(theirs, str) else list(theirs)
    if any(name not in found for name in (ours, *others)):
        print(f"   {ours} / {', '.join(others)}: not measured")
        return
    best, median = (found[ours][i] / pick(found[name][i] for name in others) for i in (0, 1))
    words = others[0] if len(others) == 1 else f"{pick.__name__}({', '.join(others)})"
    results.setdefault("ratios", {})[f"{ours} / {words}"] = (best, median)
    print(f"   {ours} / {words}: best {best:.2f}, median {median:.2f} (goal {goal})")
