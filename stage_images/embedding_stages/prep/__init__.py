"""From pairs to a training set with mined hard negatives, and a held-out evaluation set in BEIR's form.

rules           pure: which pairs are good, which documents are held out, which queries would leak
mine, search    hard negatives: which passages, by which search (faiss on a CPU, torch on a GPU)
stage           the stage's work, from pairs to the two sets; the base model is loaded last
"""
