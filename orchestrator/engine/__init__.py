"""The engine: claims an activation, runs the user's code, asks the rules what follows, and commits it.

It works the same in every runtime. It knows stores and runtimes by their ports alone, and nothing of Celery.
"""
