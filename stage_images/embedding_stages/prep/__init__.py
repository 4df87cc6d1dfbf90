"""From pairs to a training set with mined hard negatives, and a held-out evaluation set in BEIR's form.

rules           pure: which pairs are good, which documents are held out, which queries would leak
asked, frozen   the evaluation set: split off or labelled; or that of an earlier revision, as far as it still holds
duplicates      pure: texts that nearly repeat others
training        what may train beside that evaluation set
mine, search    hard negatives: which passages, by which search (faiss on a CPU, torch on a GPU)
stage           the stage's work, from pairs to the two sets; the base model is loaded last
"""
