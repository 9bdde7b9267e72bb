"""The pure core. Every legal move of a run stands here; this folder knows nothing of stores or Celery.

No I/O, no clock, no randomness, no logging: a function here takes the little it needs and returns data.

* `values`       which value ids there are in stored text
* `graph`        what a workflow is: a tree of blocks, addressed by paths
* `transitions`  the table of statuses: which may follow which, and what a record is stamped with
* `records`      what a run is: one header, one record for each activation
* `changes`      what a commit says: guards, and what becomes of records, counters, values and events
* `promises`     what a time travel has promised to steps that the run has not come to
* `plan`         what starting a node means, and the plan of a commit
* `flow`         what follows from an outcome: the only place that decides where a run goes next
* `stamps`       the reading of one row of that table
* `apply`        what a commit, a claim or a renewal does to records: the reference reading of a `Change`
* `timers`       which records have a moment at which somebody looks at them again, and what follows when it comes
* `past`         what stands before the target of a time travel
* `travel`       what a run looks like when it goes on from one of its steps
"""
