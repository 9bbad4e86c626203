"""The app as a Hugging Face Space. Settings as for generate.py, such as "pipeline=sdxl", "npnet=ORG/NAME"."""

from golden_noise.app.command import main

if __name__ == "__main__":
    main(["--host", "0.0.0.0"])
