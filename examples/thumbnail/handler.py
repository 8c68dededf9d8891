# SPDX-License-Identifier: Apache-2.0
"""Pillow: draw a picture and return it as a PNG of the size asked for."""
import base64
import io

from PIL import Image, ImageDraw


def handler(event):
    size = max(1, min(1024, int((event or {}).get("size", 64))))
    image = Image.new("RGB", (256, 256), "navy")
    ImageDraw.Draw(image).ellipse((32, 32, 224, 224), fill="gold")
    image.thumbnail((size, size))
    out = io.BytesIO()
    image.save(out, "PNG")
    return {"size": image.size, "png": base64.b64encode(out.getvalue()).decode()}
