"""Draws the probe: the image that every bundle carries, so that it can be asked a question with a known answer."""

import cv2
import numpy as np

_SIDE, _SEED = 600, 20


def draw_probe() -> bytes:
    """Draw the probe image: a dark pin with a head on a light, noisy background; always the same.

    Returns:
        A PNG file, gray, 600×600.
    """
    # Integers only: they come out alike on every machine, and the pin is found wherever the background is plain.
    noise = np.random.default_rng(_SEED).integers(-6, 7, (_SIDE, _SIDE), dtype=np.int16)
    pixels = np.full((_SIDE, _SIDE), 205, np.uint8)
    cv2.line(pixels, (150, 190), (455, 410), 70, 34)
    cv2.line(pixels, (128, 222), (178, 152), 110, 40)
    cv2.line(pixels, (240, 262), (262, 262), 160, 8)
    drawn = np.clip(pixels.astype(np.int16) + noise, 0, 255).astype(np.uint8)
    return cv2.imencode(".png", drawn)[1].tobytes()
