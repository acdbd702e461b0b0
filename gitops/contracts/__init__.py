"""The contracts between stages: what one part of the line writes and another reads (pydantic only)."""
