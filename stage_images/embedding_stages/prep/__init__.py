"""From pairs to a training set with mined hard negatives and a held-out evaluation set in BEIR's form."""
