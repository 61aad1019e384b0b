"""One training of one model in one half, and the folder that holds it."""
