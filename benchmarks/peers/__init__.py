"""Other scorers of image quality, each measured in a process and an environment of its own."""

from benchmarks.peers.process import PEERS, Pass, Peer

__all__ = ["PEERS", "Pass", "Peer"]
