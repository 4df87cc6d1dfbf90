"""One program a contestant; `interface` says what each of them has to be."""
