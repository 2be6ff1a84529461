"""The model store, and the models that run on this machine."""
