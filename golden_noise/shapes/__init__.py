"""The bundled miniature: a tiny SDXL of coloured shapes, its exact detector, its reward, and how they were trained."""
