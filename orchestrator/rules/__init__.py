"""The rules: every legal move of a run, as pure functions.

Nothing here does I/O, reads a clock, draws a random number, writes a log or imports a library. A function takes the
little that it needs and returns data. So every rule can be tested without a store, and the tests in `tests/simulation`
can explore each order in which workers, callers and crashes may meet.

The modules, in the order in which they may import each other, lowest first:

* `values`           the forms in which values are stored
* `value_ids`        the ids under which values are written, and why no two are alike
* `events`           the types of the library's events, and the contents of each
* `graph`            a workflow as data: a tree of blocks in which a path names each place
* `envelope`         the texts and limits that a change carries beside its operations
* `transitions`      the table of statuses: which may follow which, and what happens on the way
* `model`            a run as data: one run header, and one activation for each node that the run has come to
* `change`           the language of commits: guards, operations and the answers of a store
* `stamps`           the reading of one row of the table: times, numbers, dispatches
* `replies`          the answer to a change as a store remembers it
* `apply`            the effect of a claim, a renewal or a change on activations, as every store must have it
* `pending_resumes`  resume data for steps that a time travel has not reached yet
* `plan`             the plan of a commit, and the meaning of starting a node
* `iterations`       the values that finished iterations of a loop have made, and those of them that may go
* `flow`             what follows from an outcome, joins included
* `timers`           the activations that have a timer, what follows from a deadline, the right to sweep
* `addressing`       the suspended steps that a caller means by a resume
* `attempt_commands` the changes of a worker: outcome, retry, wait, flush, release
* `travel`           the plan of a time travel: what is carried over, what starts anew
* `ownership`        the runtime and namespace to which a run belongs, with its timers
* `commands`         the changes of callers: start, resume, cancel, restart, time travel, events
* `undoing`          the undo of a start or resume, and what makes such a request final
"""
