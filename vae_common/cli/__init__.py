"""The commands: `twin-vae NAME`, or `python -m scripts.NAME` in a checkout.

A command's module has `Arguments`, a dataclass whose fields are its flags, `main(arguments)`, which returns what is
printed as its last line, and where that is not always 0 a `status(result)`. What only the work needs is imported by
`main`, so that `--help` does not wait for it.
"""
