"""The line's stages, one file each: `python -m ray_jobs.<stage>`."""
