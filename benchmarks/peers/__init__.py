"""Peers: the same decoding, straightening and network behind other servers, each in an environment of its own.

Each is set up as its own documentation would for work that keeps a core busy: a worker process a core.
"""
