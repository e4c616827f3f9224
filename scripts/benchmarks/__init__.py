"""Measure the ledger against bare work of the same kind: `scripts/bench`.

Most figures are ratios of two rates taken in turn (A B A B …), the median of the pairs,
with the spread; absolute figures stand beside them to be understood, or where a ratio would
say nothing. The database is the embedded one with fsync on, in a directory of its own.

A module of this package measures one group of figures. It has one function::

    def measure(place: Place, options: Options) -> Iterable[Figure]:

and stands in `GROUPS` of `__main__`, in the order of running. It is mostly a generator:
each figure is printed as it is yielded.

- `place` (`benchmarks.place`) gives the database (`dsn`), the home (`settings`), a ledger
  with keys (`ledger`, `schema`, `emitter_key`, `reader_key`, `vkey`), its service as a
  process (`service()` starts it unless it runs; `service().url`, `.port`, `.pid`;
  `stop_service()`), loads of HTTP requests from a process of its own (`rate` posts events,
  `get` reads paths and times each answer), and a ledger of many entries (`large(size)`). It is
  shared: leave ledgers sound. What needs quiet processors stops the service first.
- `options` (`benchmarks.options`) says how much: `quick`, `rounds`, `seconds`, `entries`.
- `compare(name, aim, product, bare, rounds=options.rounds)` makes a `Ratio` of two functions
  that give a rate each, such as events a second; `Value` is a figure in some unit
  (`benchmarks.figures`). An aim is what the product set itself; None says that there is none.
- A figure that can't be had here (no browser, say) is left out with `skipped(name, why)`.

Imports are absolute: ``from scripts.benchmarks.figures import Figure, Value, compare``.
"""
