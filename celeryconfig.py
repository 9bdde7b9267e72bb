"""Settings of the reference worker, and an example for your own: `app.config_from_object("celeryconfig")`.

Only what a workflow cares about stands here; each line says why. Everything else is Celery's default. The broker and
the store come from the environment, because they hold passwords.
"""

import os

# --- broker --------------------------------------------------------------------------------------------------------

# Any broker that Celery supports: the orchestrator sends ordinary task messages, one for each step.
broker_url = os.environ.get("BROKER_URL", "redis://localhost:6379/0")

# A worker that is started together with its broker waits for it instead of giving up.
broker_connection_retry_on_startup = True

if broker_url.startswith(("amqp", "pyamqp")):
    # RabbitMQ: without publisher confirms a message that the broker refuses is lost without a word. The orchestrator
    # would send it again after `orchestrator_republish_seconds`; with confirms nothing has to wait for that.
    broker_transport_options = {"confirm_publish": True}

# --- messages ------------------------------------------------------------------------------------------------------

# JSON and nothing else, in both directions: whoever can write to the broker must not be able to run code by it.
task_serializer = "json"
result_serializer = "json"
accept_content = ["json"]

# The default, said aloud: acknowledge early. A lost worker's step is found by its lease in the store, so late
# acknowledgement would add nothing but a second delivery (and RabbitMQ's time limit on unacknowledged messages).
task_acks_late = False

# --- workers -------------------------------------------------------------------------------------------------------

# Take one message for each free slot, and no more: steps differ in length, and a message that waits behind a long step
# in one worker could have been run by another.
worker_prefetch_multiplier = 1

# Tell monitors such as Flower what happens. A step shows there under its own name, `<workflow>.<step>`.
worker_send_task_events = True

# The `task-sent` event would carry the name of the Celery task (`orchestrator.step`) instead of the step's.
task_send_sent_event = False

# A cold shutdown (SIGQUIT, which SIGTERM becomes with REMAP_SIGTERM=SIGQUIT) leaves running steps this many seconds to
# end. What is cut off goes to another worker at once, and runs there again.
worker_soft_shutdown_timeout = 20.0

# --- results -------------------------------------------------------------------------------------------------------

# Not needed: runs and their results are in the store. With a backend the result of a run is also written there under
# the run's id, for code that knows only Celery: `AsyncResult(run_id).get()`.
result_backend = os.environ.get("RESULT_BACKEND")

# --- orchestrator --------------------------------------------------------------------------------------------------

# Where runs are kept; all processes that start, run or read them need the same. `celery report` and `inspect conf`
# mask a name with DATABASE in it.
orchestrator_database_url = os.environ.get("ORCHESTRATOR_STORE", "redis://localhost:6379/1")

# How long a worker that has gone silent keeps its step; running steps renew it every third of this. Shorter: a crash is
# noticed sooner. Longer: a step may block the interpreter for longer without being taken for lost.
orchestrator_lease_seconds = 30

# How often one of the workers looks for what is due: timers, retries, leases that are over. Moments nearer than two
# ticks have a timer of their own as well, so a short sleep or retry does not wait for the tick.
orchestrator_tick_seconds = 1

# How long a queued step may go unseen before its message is sent again (then ever more rarely, and only while its queue
# is short): what a broker loses is missing for this long.
orchestrator_republish_seconds = 30

# The largest single value (an input, an output, a state key) in bytes, as stored. Keep files elsewhere, hand on names.
orchestrator_max_payload_bytes = 16 * 1024 * 1024
