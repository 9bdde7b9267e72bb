"""The pure core. Every legal move of a run stands here; this folder knows nothing of stores or Celery.

No I/O, no clock, no randomness, no logging: a function here takes the little it needs and returns data.

* `values`           the forms in which values are stored
* `value_ids`        how each value gets the id under which it is written, and why no two are alike
* `events`           the types of the engine's events, and what each says
* `graph`            what a workflow is: a tree of blocks, addressed by paths
* `transitions`      the table of statuses: which may follow which, and what an activation is stamped with
* `records`          what a run is: one header, one activation for each activation
* `changes`          what a commit says: guards, and what becomes of activations, counters, values and events
* `envelope`         what goes around the operations of a change: texts and limits
* `stamps`           the reading of one row of that table
* `apply`            what a commit or a claim does to activations: the reference reading of a `Change`
* `promises`         resume data for steps that a time travel has not reached yet
* `plan`             what starting a node means, and the plan of a commit
* `flow`             what follows from an outcome
* `past`, `travel`   what a run looks like when it goes on from one of its steps
* `timers`           which activations have a timer, and what follows from its deadline
* `addressing`       which suspended activations a caller means
* `commands`         requests from outside, as changes: start, resume, cancel, restart, time travel, events
* `attempt_commands` what a worker commits, as changes
"""
