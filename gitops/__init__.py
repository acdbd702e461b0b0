"""Desired state: the contracts between stages, the gates, and the loop that makes Git come true."""
