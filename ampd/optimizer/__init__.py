"""The engine under a user's own loop: the same pipeline, without the daemon's data, schedule and checkpoints."""
