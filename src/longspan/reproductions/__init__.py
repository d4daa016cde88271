"""One module a system: the paper's claim, tried again at the size of this machine. Nothing imports these."""
