"""Benchmarks that can be believed: where a frame's time goes, how fast a whole examination is, and what changed.

    machine.py     what the machine is: board, cores, clocks, power mode, versions
    conditions.py  what it was doing before, during and after: who else worked, what throttled; `disturbed` with reasons
    statistics.py  percentiles, jitter, the warm-up's rule, and the one interval of a median
    stages.py      one frame at a time through the stages, so that these sum to glass to result
    whole.py       the overlapped pipeline beside bare inference, in turns
    stream.py      a file played live: from the driver to the result, with what was dropped
    cold.py        a fresh process from its start to its first result, and its memory
    versus.py      two networks on the same frames, in turns, ratio pair by pair
    record.py      what a run writes; strict
    compare.py     what records of different runs can tell, and what they cannot
    page.py        a record as a page of HTML; document.py: records as docs/performance.md

Two sides are timed in blocks. For each block both are loaded anew, in an order that alternates, because where a graph
happens to lie in memory makes it faster or slower for as long as it lies there. Within a block they take turns in the
order AB BA AB BA: what drifts disturbs both, and being first is each one's lot as often. Neighbouring turns are a pair
with a ratio; that of a block is the mean of the medians over its pairs AB and over its pairs BA
(`statistics.block_ratio`). That of a run is the median over its blocks, and its interval is read from the sorted blocks
(`statistics.median_interval`). It holds whatever the distribution is, bursts and all, and however much the rounds of a
block depend on one another: only blocks have to be independent. A bootstrap over rounds would have to guess how far
that dependence reaches.

A busy machine stretches the wall clock and hardly the processor's own. Where a graph runs in the thread that asks for
it, the verdict is read from the processor's clock of that thread, and the wall clock's stands beside it
(`versus.clock_of`).
"""
