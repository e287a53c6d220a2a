"""Other scorers of image quality, each measured in a process and an environment of its own.

Nothing is imported here: `worker` runs where this repository's requirements are not installed.
"""
