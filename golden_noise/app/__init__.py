"""The app: a page in the browser that draws, compares and searches; it needs `pip install 'golden-noise[app]'`."""
