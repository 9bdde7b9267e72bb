"""The engine: what one delivery does, the same in every runtime.

It claims an activation, runs what the workflow's author wrote, asks the core what follows and commits it. It knows
stores and runtimes by their ports alone, and nothing of Celery.
"""
